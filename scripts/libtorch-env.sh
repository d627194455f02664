#!/bin/sh
# Prints the exports with which cargo builds `ddas-search` against the libtorch
# of a Python environment, and prepares the link folder they name.
#
#     eval "$(scripts/libtorch-env.sh .venv)"
#     cargo build --release -p ddas-search
#
# The environment needs PyTorch 2.11 (`pip install torch==2.11.0`), or, for the
# CPU alone and without `import torch`:
#     pip install --no-deps torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
#
# Why a link folder: the PyPI wheel is a CUDA build. Linked as it lies, a
# program would ask for the CUDA libraries at start even on a machine without
# them. The folder shows the linker the CPU libraries only (`libtorch.so` is a
# linker script for libtorch_cpu); ddas-search loads libtorch_cuda by itself
# when it is there, so one binary serves both.
set -eu

environment=${1:-.venv}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
link_folder=${2:-$root/.libtorch}

fail() {
    echo "libtorch-env.sh: $1" >&2
    exit 1
}

[ -d "$environment" ] || fail "no Python environment at $environment; make one with: python3 -m venv $environment"
libtorch=
for candidate in "$environment"/lib/python3*/site-packages/torch; do
    [ -e "$candidate/lib/libtorch_cpu.so" ] && libtorch=$(CDPATH='' cd -- "$candidate" && pwd)
done
[ -n "$libtorch" ] || fail "no libtorch in $environment; install it with: $environment/bin/pip install torch==2.11.0"
version=$(sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$libtorch/version.py")
[ "$version" = 2.11.0 ] || fail "$libtorch is PyTorch ${version:-of unknown version}; the tch crate in use needs 2.11.0"

mkdir -p "$link_folder/lib"
ln -sfn "$libtorch/lib/libtorch_cpu.so" "$link_folder/lib/libtorch_cpu.so"
ln -sfn "$libtorch/lib/libc10.so" "$link_folder/lib/libc10.so"
ln -sfn "$libtorch/lib/libgomp.so.1" "$link_folder/lib/libgomp.so.1"
ln -sfn libgomp.so.1 "$link_folder/lib/libgomp.so"
# Written only when it changes: cargo need not relink on every call.
script='INPUT(-ltorch_cpu)'
if [ "$(cat "$link_folder/lib/libtorch.so" 2>/dev/null || true)" != "$script" ]; then
    printf '%s\n' "$script" > "$link_folder/lib/libtorch.so"
fi

echo "export LIBTORCH='$libtorch'"
echo "export LIBTORCH_LIB='$link_folder'"
# Documentation tests get no run path from a build script.
echo "export LD_LIBRARY_PATH='$libtorch/lib'\"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""
