"""Recipes against torchvision and Pillow: the same pixels for the same draws, and draws of the same distribution.

`ddas-loader recipe draw` says what the steps draw; torchvision's own functions, handed those numbers, must give the
bytes that a stream of the same seed delivers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
import torch
from conftest import Serve, run
from PIL import Image, ImageFilter
from scipy import stats
from torchvision.transforms import ColorJitter, RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

import ddas

SEED = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = f'[[steps]]\nkind = "normalize"\nmean = {list(MEAN)}\nstd = {list(STD)}\n'
SIZES = [(61, 47), (40, 90), (33, 33), (20, 25), (128, 51), (57, 56), (32, 31), (250, 33)]

Action = list[Any]


def step(kind: str, **fields: Any) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"kind": kind, **fields}.items()]
    return "\n".join(["[[steps]]", *lines, ""])


def recipe(path: Path, size: int, *steps: str) -> Path:
    path.write_text(f"size = {size}\n" + "\n".join(steps))
    return path


def draw(loader: Path, recipe: object, samples: int, image: tuple[int, int], epoch: int = 0, first: int = 0) -> Iterator[list[Action]]:
    """What the steps draw for consecutive samples."""
    arguments = ("--seed", SEED, "--epoch", epoch, "--first", first, "--samples", samples)
    text = run(loader, "recipe", "draw", recipe, "--image", f"{image[0]}x{image[1]}", *arguments)
    return (json.loads(line)["actions"] for line in text.splitlines())


class Pictures:
    """Images of many sizes, stored without loss, and what Pillow reads from them."""

    def __init__(self, loader: Path, root: Path, sizes: list[tuple[int, int]]) -> None:
        random = np.random.default_rng(3)
        self.images: list[Image.Image] = []
        (root / "images" / "one").mkdir(parents=True)
        for number, (width, height) in enumerate(sizes):
            if number % 2:
                pixels = random.integers(0, 256, (height, width, 3))
            else:  # smooth, saturated, with some noise
                x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
                pixels = np.stack([x, y, 255 - (x + y) / 2], -1) + random.integers(0, 9, (height, width, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(root / "images" / "one" / f"{number:03}.png")
            self.images.append(image)
        run(loader, "pack", "image-folder", root / "images", root / "pictures.lmdb")
        self.path = root / "pictures.lmdb"


@pytest.fixture(scope="module")
def pictures(loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(loader_binary, tmp_path_factory.mktemp("pictures"), SIZES * 4)


@pytest.fixture(scope="module")
def squares(loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(loader_binary, tmp_path_factory.mktemp("squares"), [(32, 32)] * 24)


def crop(image: Image.Image, x: int, y: int, size: int, mode: str = "constant", fill: Any = 0) -> Image.Image:
    """torchvision's pad, then crop."""
    border = max(0, -x, -y, x + size - image.width, y + size - image.height)
    if border:
        image = F.pad(image, border, fill, mode)
    return F.crop(image, y + border, x + border, size, size)


def apply(image: Image.Image, action: Action, size: int, **how: Any) -> Image.Image:
    """One action on a PIL image, by torchvision."""
    kind, *numbers = action
    match kind:
        case "resized-crop":
            x, y, width, height = numbers
            return F.resized_crop(image, y, x, height, width, [size, size], how.get("interpolation", InterpolationMode.BILINEAR))
        case "crop":
            return crop(image, *numbers, size, how.get("mode", "constant"), how.get("fill", 0))
        case "horizontal-flip":
            return F.hflip(image)
        case "vertical-flip":
            return F.vflip(image)
        case "brightness":
            return F.adjust_brightness(image, *numbers)
        case "contrast":
            return F.adjust_contrast(image, *numbers)
        case "saturation":
            return F.adjust_saturation(image, *numbers)
        case "hue":
            return F.adjust_hue(image, *numbers)
        case "grayscale":
            return F.rgb_to_grayscale(image, 3)
        case "gaussian-blur":
            return image.filter(ImageFilter.GaussianBlur(*numbers))
    raise AssertionError(f"no such action: {action}")


def delivered(
    serve: Serve, pictures: Pictures, recipe: object, epochs: int = 3, name: str = "train", **flags: Any
) -> dict[tuple[int, int], Any]:
    """What a stream delivers, by epoch and index."""
    serve(pictures, name, recipe=recipe, epochs=epochs, seed=SEED, **{"dtype": "u8", "layout": "nhwc", **flags})
    found = {}
    with ddas.connect(name) as stream:
        for batch in stream:
            for image, index in zip(batch.images, batch.indices):
                found[batch.epoch, int(index)] = image.copy()
    assert len(found) == epochs * len(pictures.images)
    return found


def assert_same(found: dict[tuple[int, int], Any], loader: Path, recipe: Path, pictures: Pictures, size: int, **how: Any) -> Counter[str]:
    """Compares a u8 stream with torchvision's result; counts the actions that came up."""
    seen: Counter[str] = Counter()
    for (epoch, index), image in found.items():
        expected = pictures.images[index]
        (actions,) = draw(loader, recipe, 1, expected.size, epoch, index)
        for action in actions:
            seen[action[0]] += 1
            expected = apply(expected, action, size, **how)
        assert np.array_equal(image, np.asarray(expected)), f"sample {index} of epoch {epoch}: {actions}"
    return seen


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resized_crops_jitter_and_flips_are_torchvisions(
    serve: Serve, loader_binary: Path, pictures: Pictures, tmp_path: Path, interpolation: str
) -> None:
    path = recipe(
        tmp_path / "all.toml",
        48,
        step("random-resized-crop", interpolation=interpolation),
        step("horizontal-flip"),
        step("vertical-flip"),
        step("color-jitter", brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5),
        step("grayscale", probability=0.2),
        step("gaussian-blur", probability=0.5),
        NORMALIZE,
    )
    found = delivered(serve, pictures, path, epochs=4)
    mode = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}[interpolation]
    seen = assert_same(found, loader_binary, path, pictures, 48, interpolation=mode)
    assert seen["hue"] == len(found) and seen["grayscale"] > 5 and seen["gaussian-blur"] > 20
    assert seen["horizontal-flip"] > 20 and seen["vertical-flip"] > 20


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_padded_crops_are_torchvisions(
    serve: Serve, loader_binary: Path, squares: Pictures, tmp_path: Path, mode: str
) -> None:
    fill = [9, 120, 255] if mode == "constant" else None
    border = {"padding_mode": mode} | ({"fill": fill} if fill else {})
    path = recipe(
        tmp_path / "crop.toml",
        32,
        step("horizontal-flip"),
        step("random-crop", padding=7, **border),
        step("vertical-flip"),
        step("horizontal-flip"),
        NORMALIZE,
    )
    found = delivered(serve, squares, path)
    assert_same(found, loader_binary, path, squares, 32, mode=mode, fill=tuple(fill or (0, 0, 0)))


@pytest.mark.parametrize("shorter", [32, 45, 60])
@pytest.mark.parametrize("interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_evaluation_is_torchvisions(
    serve: Serve, loader_binary: Path, pictures: Pictures, tmp_path: Path, shorter: int, interpolation: InterpolationMode
) -> None:
    path = recipe(
        tmp_path / "eval.toml",
        40,
        step("resize", shorter=shorter, interpolation=interpolation.value),
        step("center-crop"),
        NORMALIZE,
    )
    for (_, index), image in delivered(serve, pictures, path, epochs=1).items():
        resized = F.resize(pictures.images[index], shorter, interpolation)
        assert np.array_equal(image, np.asarray(F.center_crop(resized, [40, 40]))), index


def test_a_centre_crop_alone_pads_as_torchvision(serve: Serve, pictures: Pictures, tmp_path: Path) -> None:
    path = recipe(tmp_path / "center.toml", 40, step("center-crop"), NORMALIZE)
    for (_, index), image in delivered(serve, pictures, path, epochs=1).items():
        assert np.array_equal(image, np.asarray(F.center_crop(pictures.images[index], [40, 40]))), index


def test_random_crops_of_resized_images(serve: Serve, loader_binary: Path, pictures: Pictures, tmp_path: Path) -> None:
    path = recipe(
        tmp_path / "resize.toml",
        40,
        step("resize", exact=[45, 70]),
        step("horizontal-flip"),
        step("random-crop"),
        step("horizontal-flip"),
        step("color-jitter", contrast=[0.5, 0.5]),
        NORMALIZE,
    )
    corners = set()
    for (epoch, index), image in delivered(serve, pictures, path).items():
        resize, *actions = next(draw(loader_binary, path, 1, pictures.images[index].size, epoch, index))
        assert resize == ["resize", 70, 45]
        expected = F.resize(pictures.images[index], [45, 70])
        for action in actions:
            expected = apply(expected, action, 40)
            if action[0] == "crop":
                corners.add(tuple(action[1:]))
        assert np.array_equal(image, np.asarray(expected)), (epoch, index, actions)
    assert {y for _, y in corners} == set(range(6)) and len({x for x, _ in corners}) > 20


def test_without_antialiasing_pixels_are_torchs(serve: Serve, loader_binary: Path, pictures: Pictures, tmp_path: Path) -> None:
    """Within a level and its rounding: torch works in floating point here, we round between the axes as well."""
    path = recipe(tmp_path / "plain.toml", 24, step("resize", exact=[24, 24], antialias=False), NORMALIZE)
    for (_, index), image in delivered(serve, pictures, path, epochs=1).items():
        source = torch.from_numpy(np.array(pictures.images[index])).permute(2, 0, 1)[None].float()
        exact = torch.nn.functional.interpolate(source, (24, 24), mode="bilinear", align_corners=False, antialias=False)
        assert np.abs(image - exact[0].permute(1, 2, 0).numpy()).max() <= 1.001, index


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_lighting_and_normalising_are_the_usual_ones(
    serve: Serve, loader_binary: Path, squares: Pictures, tmp_path: Path, layout: str
) -> None:
    """The authors' `Lighting`, on the tensor before `Normalize`; black borders are lit as well."""
    path = recipe(tmp_path / "lit.toml", 32, step("random-crop", padding=4), step("lighting", std=0.5), NORMALIZE)
    for (epoch, index), image in delivered(serve, squares, path, dtype="f32", layout=layout).items():
        cut, (kind, *shift) = next(draw(loader_binary, path, 1, (32, 32), epoch, index))
        assert kind == "lighting"
        tensor = F.to_tensor(apply(squares.images[index], cut, 32))
        tensor.add_(torch.tensor(shift)[:, None, None])
        expected = F.normalize(tensor, list(MEAN), list(STD)).numpy()
        assert np.array_equal(image, expected if layout == "nchw" else expected.transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", ["f32", "u8"])
def test_erased_rectangles_hold_what_they_should(
    serve: Serve, loader_binary: Path, squares: Pictures, tmp_path: Path, dtype: str
) -> None:
    erasing = {"probability": 0.7, "scale": [0.05, 0.5], "count": 2}
    values = {"zero": "zero", "triple": [0.5, -1.0, 2.0], "noise": "noise", "color": "color"}
    for name, value in values.items():
        path = recipe(tmp_path / f"{name}.toml", 32, NORMALIZE, step("random-erasing", value=value, **erasing))
        erased, last = 0, []
        for (epoch, index), image in delivered(serve, squares, path, name=name, dtype=dtype, layout="nchw").items():
            tensor = F.normalize(F.to_tensor(squares.images[index]), list(MEAN), list(STD))
            pixels = torch.from_numpy(np.array(squares.images[index])).permute(2, 0, 1)
            expected = (pixels if dtype == "u8" else tensor).numpy().copy()
            found = image.copy()
            rectangles = next(draw(loader_binary, path, 1, (32, 32), epoch, index))
            for _, left, top, right, bottom in rectangles:
                erased += 1
                inside = np.s_[:, top:bottom, left:right]
                if name in ("noise", "color"):
                    expected[inside] = found[inside]
                else:
                    constant = np.array([0, 0, 0] if value == "zero" else value, np.float32)
                    if dtype == "u8":
                        constant = np.clip(np.round((constant * np.array(STD) + np.array(MEAN)) * 255), 0, 255)
                    expected[inside] = constant[:, None, None]
            assert np.array_equal(found, expected), (epoch, index)
            if rectangles:  # nothing was put over the last one
                last.append(found[inside])
        assert erased > 30
        if dtype == "f32" and name == "noise":
            assert stats.kstest(np.concatenate([part.ravel() for part in last]), "norm").pvalue > 1e-4
        if name == "color":
            assert all(np.ptp(part, (1, 2)).max() == 0 for part in last if part.size)
            colours = np.array([part[:, 0, 0] for part in last if part.size])
            assert len(np.unique(colours)) > len(colours)


DRAWS = 100_000


def test_resized_crops_are_distributed_as_torchvisions(loader_binary: Path) -> None:
    """Boxes of 100,000 draws; a narrow image, for which half of the attempts fail and some all ten."""
    torch.manual_seed(1)
    for width, height, samples in [(500, 375, DRAWS), (300, 90, DRAWS // 5)]:
        image = Image.new("L", (width, height))
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(samples // 2)])
        theirs = theirs[:, [1, 0, 3, 2]]  # x, y, width, height
        ours = np.array([actions[0][1:] for actions in draw(loader_binary, "imagenet", samples, (width, height))])
        assert_alike(ours, theirs, width, height)


def assert_alike(ours: Any, theirs: Any, width: int, height: int) -> None:
    """Kolmogorov and Smirnov's test on areas, ratios, sides and positions within the room left."""

    def features(boxes: Any) -> dict[str, Any]:
        x, y, w, h = boxes.T.astype(float)
        room_x, room_y = width - w, height - h
        return {
            "area": w * h,
            "ratio": w / h,
            "width": w,
            "height": h,
            "x": x[room_x > 0] / room_x[room_x > 0],
            "y": y[room_y > 0] / room_y[room_y > 0],
        }

    mine, other = features(ours), features(theirs)
    for name in mine:
        pvalue = stats.ks_2samp(mine[name], other[name]).pvalue
        assert pvalue > 1e-4, f"{name} at {width}x{height}: p = {pvalue:.2g}"


def test_jitter_is_distributed_as_torchvisions(loader_binary: Path, tmp_path: Path) -> None:
    jitter = ColorJitter(0.4, 0.3, 0.2, 0.1)
    path = recipe(
        tmp_path / "jitter.toml", 32, step("color-jitter", brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1), NORMALIZE
    )
    torch.manual_seed(2)
    kinds = ("brightness", "contrast", "saturation", "hue")
    theirs = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS // 4)]
    ours = list(draw(loader_binary, path, DRAWS, (32, 32)))
    factors = [dict(actions) for actions in ours]
    for number, kind in enumerate(kinds):
        mine = [drawn[kind] for drawn in factors]
        assert stats.ks_2samp(mine, [drawn[number + 1] for drawn in theirs]).pvalue > 1e-4, kind
    orders = Counter(tuple(kind for kind, _ in actions) for actions in ours)
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4
    # The factors are independent of one another and of the order.
    columns = np.array([[drawn[kind] for kind in kinds] + [actions[0][0] == "hue"] for drawn, actions in zip(factors, ours)])
    correlations = np.corrcoef(columns.T) - np.eye(5)
    assert np.abs(correlations).max() < 5 / math.sqrt(DRAWS)


def test_lighting_is_distributed_as_the_authors(loader_binary: Path) -> None:
    eigenvalues = np.array([0.2175, 0.0188, 0.0045])
    eigenvectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    shifts = np.array([actions[-1][1:] for actions in draw(loader_binary, "imagenet-authors", DRAWS, (500, 375))])
    alphas = np.linalg.solve(eigenvectors, shifts.T) / eigenvalues[:, None] / 0.1
    for alpha in alphas:
        assert stats.kstest(alpha, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(alphas) - np.eye(3)).max() < 5 / math.sqrt(DRAWS)


def test_erased_rectangles_are_distributed_as_torchvisions(loader_binary: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "erase.toml", 64, NORMALIZE, step("random-erasing", scale=[0.02, 0.6], ratio=[0.2, 4.0]))
    torch.manual_seed(3)
    image = torch.zeros(3, 64, 64)
    theirs = []
    for _ in range(DRAWS // 4):
        top, left, height, width, _ = RandomErasing.get_params(image, (0.02, 0.6), (0.2, 4.0), [0.0])
        theirs.append((left, top, width, height))
    drawn = list(draw(loader_binary, path, DRAWS, (64, 64)))
    boxes = [actions[0][1:] for actions in drawn if actions]
    assert stats.binomtest(len(boxes), DRAWS, 0.5).pvalue > 1e-4
    ours = np.array([(left, top, right - left, bottom - top) for left, top, right, bottom in boxes])
    assert_alike(ours, np.array(theirs), 64, 64)


def test_blur_grey_and_flips_come_as_often_as_asked(loader_binary: Path, tmp_path: Path) -> None:
    path = recipe(
        tmp_path / "chances.toml",
        32,
        step("horizontal-flip", probability=0.3),
        step("vertical-flip", probability=0.6),
        step("grayscale", probability=0.1),
        step("gaussian-blur", probability=0.8, sigma=[0.5, 1.5]),
        step("color-jitter", probability=0.25, hue=0.2),
        NORMALIZE,
    )
    chances = {"horizontal-flip": 0.3, "vertical-flip": 0.6, "grayscale": 0.1, "gaussian-blur": 0.8, "hue": 0.25}
    drawn = list(draw(loader_binary, path, DRAWS, (32, 32)))
    counts = Counter(action[0] for actions in drawn for action in actions)
    for kind, chance in chances.items():
        assert stats.binomtest(counts[kind], DRAWS, chance).pvalue > 1e-4, kind
    radii = [action[1] for actions in drawn for action in actions if action[0] == "gaussian-blur"]
    assert stats.kstest(radii, "uniform", (0.5, 1.0)).pvalue > 1e-4
