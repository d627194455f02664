"""Writes FFCV's files beside the data: `prepare_ffcv.py FOLDER`."""

import pathlib
import sys

import numpy
from common import Case
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.writer import DatasetWriter
from PIL import Image


class Arrays:
    def __init__(self, case):
        self.images, self.labels = case.arrays()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def store(self, destination, path, malloc):
    """In place of `RGBImageField.encode`, which would decode a JPEG and encode it again: stores its bytes."""
    content = pathlib.Path(path).read_bytes()
    with Image.open(path) as image:
        destination["width"], destination["height"] = image.size
    destination["mode"] = IMAGE_MODES["jpg"]
    destination["data_ptr"], storage = malloc(len(content))
    storage[:] = numpy.frombuffer(content, numpy.uint8)


def write(path, mode, samples):
    fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(samples)


def main():
    case = Case("ffcv_loader", "cifar", False, False, 1, sys.argv[1])
    write(case.folder / "cifar.beton", "raw", Arrays(case))
    RGBImageField.encode = store  # the writer's processes are forks of this one
    write(case.folder / "imagenet.beton", "jpg", case.files())


if __name__ == "__main__":
    main()
