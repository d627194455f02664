"""What importing costs, and that what is exported is documented and typed."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import metadata, resources

import ddas
from ddas import _ddas


def imported(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    script = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(output.stdout.split())


def test_import_is_small() -> None:
    heavy = {"torch", "PIL", "numpy", "ml_dtypes"}
    assert not heavy & imported("import ddas")
    assert not heavy & imported("import ddas; ddas.Policy; ddas.search_space('paper68')")
    with_array = imported("import ddas, numpy; ddas.apply(numpy.zeros((2, 2, 3), 'uint8'), 'Invert')")
    assert "numpy" in with_array and not {"torch", "PIL"} & with_array
    assert "torch" in imported("import ddas.torch")


def test_version_is_the_packages() -> None:
    assert ddas.__version__ == metadata.version("ddas")


def test_everything_exported_is_there_and_documented() -> None:
    for name in ddas.__all__:
        value = getattr(ddas, name)
        assert name == "__version__" or inspect.getdoc(value), name
    for name, value in vars(ddas).items():
        if isinstance(value, type) and issubclass(value, ddas.Error):
            assert name in ddas.__all__ and value.__module__ == "ddas"


def test_stub_names_what_the_extension_has() -> None:
    """Every public name of the extension and every member of its classes, and no other."""
    stub = ast.parse(resources.files("ddas").joinpath("_ddas.pyi").read_text())

    def public(names: set[str]) -> set[str]:
        return {name for name in names if not name.startswith("_")}

    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert public(set(classes) | functions) == public(set(vars(_ddas)))
    for name, node in classes.items():
        members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        assert public(members) == public(set(vars(getattr(_ddas, name)))), name
    assert resources.files("ddas").joinpath("py.typed").is_file()
