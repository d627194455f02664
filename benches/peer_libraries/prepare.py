"""Puts the data for all libraries into a folder: `prepare.py FOLDER [--images PATH] [--cifar PATH]`.

    FOLDER/images/CLASS/...     the photos, given or made here
    FOLDER/cifar.npy            32x32 images as raw pixels (samples, 32, 32, 3), and cifar-labels.npy
    FOLDER/cifar-bin/           the same as CIFAR-10's binary files, which `ddas-loader pack cifar` reads

Few photos are repeated under other names until there are some batches of them.
"""

import argparse
import io
import json
import os
import pathlib
import shutil
import tarfile

import numpy
from PIL import Image

PHOTOS, SMALL = 1280, 50_000
SUFFIXES = (".jpg", ".jpeg")


def made(random, width, height):
    """A picture with about the bytes per pixel of a photo: structure of every size, falling off with frequency."""
    picture = numpy.zeros((height, width, 3), numpy.float32)
    cells = 2
    while cells < 2 * max(width, height):
        noise = random.integers(0, 256, (min(cells, height), min(cells, width), 3), dtype=numpy.uint8)
        layer = numpy.asarray(Image.fromarray(noise).resize((width, height), Image.BICUBIC), numpy.float32)
        picture += (layer - 128) * 1.6 * cells**-0.38
        cells *= 2
    return Image.fromarray(numpy.clip(picture + 118, 0, 255).astype(numpy.uint8))


def make_photos(folder):
    random = numpy.random.default_rng(0)
    for index in range(200):
        width, height = ((500, 375), (375, 500), (500, 333), (400, 400))[index % 4]
        path = folder / f"class-{index % 10}" / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        made(random, width, height).save(path, quality=92)


def jpegs(source):
    """Class and content of every JPEG in a folder or .tar of class folders."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.parent.name, path.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            path = pathlib.PurePosixPath(member.name)
            if member.isfile() and path.suffix.lower() in SUFFIXES:
                yield path.parent.name, archive.extractfile(member).read()


def photos(source, folder):
    if source is None:
        make_photos(folder)
        whence = "200 pictures made by the script (noise of all frequencies)"
    else:
        for index, (label, content) in enumerate(jpegs(source)):
            path = folder / label / f"{index:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        whence = source.name
    originals = sorted(folder.glob("*/*"))
    if not originals:
        raise SystemExit(f"{source}: no .jpg in it; expected a folder or .tar of class folders of JPEGs")
    sizes, total = [], 0
    for path in originals:
        with Image.open(path) as image:
            sizes.append(image.width * image.height)
        total += path.stat().st_size
    for copy in range(1, -(-PHOTOS // len(originals))):
        for path in originals:
            shutil.copyfile(path, path.with_name(f"{path.stem}-{copy}.jpg"))
    return {
        "from": whence,
        "images": len(originals),
        "copies": -(-PHOTOS // len(originals)),
        "kilopixels": sum(sizes) / len(sizes) / 1e3,
        "kilobytes": total / len(originals) / 1e3,
    }


def small(source, folder):
    pictures, labels, names = [], [], {}
    if source is None:
        random = numpy.random.default_rng(1)
        pictures = [numpy.asarray(made(random, 32, 32)) for _ in range(2000)]
        labels, whence = [index % 10 for index in range(2000)], "2000 pictures made by the script"
    else:
        for label, content in jpegs(source):
            image = Image.open(io.BytesIO(content)).convert("RGB")
            if image.size != (32, 32):
                raise SystemExit(f"{source}: an image of {image.width}x{image.height}; expected 32x32")
            pictures.append(numpy.asarray(image))
            labels.append(names.setdefault(label, len(names)) % 10)
            if len(pictures) == SMALL:
                break
        whence = source.name
    if not pictures:
        raise SystemExit(f"{source}: no .jpg in it; expected a folder or .tar of class folders of 32x32 JPEGs")
    repeats = -(-SMALL // len(pictures))
    images = numpy.tile(numpy.stack(pictures), (repeats, 1, 1, 1))[:SMALL]
    classes = numpy.tile(numpy.array(labels, numpy.int64), repeats)[:SMALL]
    numpy.save(folder / "cifar.npy", images)
    numpy.save(folder / "cifar-labels.npy", classes)
    binary = folder / "cifar-bin"
    binary.mkdir()
    records = numpy.concatenate([classes.astype(numpy.uint8)[:, None], images.transpose(0, 3, 1, 2).reshape(SMALL, -1)], 1)
    for part, chunk in enumerate(numpy.split(records, 5), 1):
        (binary / f"data_batch_{part}.bin").write_bytes(chunk.tobytes())
    (binary / "test_batch.bin").write_bytes(records[:10].tobytes())
    (binary / "batches.meta.txt").write_text("".join(f"class-{label}\n" for label in range(10)))
    return {"from": whence, "images": len(pictures), "kept": SMALL}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--cifar", type=pathlib.Path)
    arguments = parser.parse_args()
    (arguments.folder / "images").mkdir(parents=True)
    found = {"images": photos(arguments.images, arguments.folder / "images"), "cifar": small(arguments.cifar, arguments.folder)}
    (arguments.folder / "data.json").write_text(json.dumps(found))
    os.sync()


if __name__ == "__main__":
    main()
