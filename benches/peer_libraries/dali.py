"""DALI on the CPU. Batches are taken where DALI leaves them, without a copy."""

import numpy
from common import RATIO, SCALE, RandomBatches
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.auto_aug import rand_augment

QUEUE = 2


def cifar(case):
    images, _ = case.arrays()
    orders = iter(RandomBatches(len(images), case.batch))
    pictures = fn.external_source(source=lambda: images[next(orders)], layout="HWC", batch=True)
    if case.augment:
        pictures = rand_augment.rand_augment(pictures, shape=[32, 32], n=2, m=9)
    corner = fn.cast(fn.random.uniform(values=list(range(-4, 5)), shape=[2]), dtype=types.INT32)
    pictures = fn.slice(pictures, start=corner, shape=[32, 32], axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)
    pictures = finished(case, pictures)
    center = fn.random.uniform(range=[0.0, 32.0], shape=[2])
    return fn.erase(pictures, anchor=center, shape=[16, 16], axis_names="HW", centered_anchor=True, fill_value=0)


def imagenet(case):
    files = case.files()
    jpegs, _ = fn.readers.file(
        files=[path for path, _ in files],
        labels=[label for _, label in files],
        random_shuffle=True,
        pad_last_batch=False,
        dont_use_mmap=False,
        name="reader",
    )
    pictures = fn.decoders.image_random_crop(
        jpegs, device="cpu", output_type=types.RGB, random_area=SCALE, random_aspect_ratio=RATIO
    )
    pictures = fn.resize(pictures, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=True)
    if case.augment:
        pictures = rand_augment.rand_augment(pictures, shape=[224, 224], n=2, m=9)
    return finished(case, pictures)


def finished(case, pictures):
    mirror = fn.random.coin_flip()
    if case.raw:
        return fn.flip(pictures, horizontal=mirror)
    return fn.crop_mirror_normalize(
        pictures,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * mean for mean in case.mean],
        std=[255 * std for std in case.std],
        mirror=mirror,
    )


def batches(case):
    @pipeline_def(enable_conditionals=True)
    def pipeline():
        return cifar(case) if case.recipe == "cifar" else imagenet(case)

    built = pipeline(batch_size=case.batch, num_threads=case.threads, device_id=None, prefetch_queue_depth=QUEUE)
    built.build()
    while True:
        (images,) = built.run()
        yield numpy.asarray(images.as_tensor())
