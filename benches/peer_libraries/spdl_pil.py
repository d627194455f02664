"""SPDL's pipeline of threads, with torchvision's transforms on PIL images, for SPDL has none of these."""

import random

import torch
import torchvision_pil
from spdl.pipeline import PipelineBuilder


def indices(samples):
    order = list(range(samples))
    while True:
        random.shuffle(order)
        yield from order


def batches(case):
    torch.set_num_threads(1)
    dataset = torchvision_pil.Arrays(case) if case.recipe == "cifar" else torchvision_pil.Files(case)
    builder = (
        PipelineBuilder()
        .add_source(indices(len(dataset)))
        .pipe(lambda index: dataset[index][0], concurrency=case.threads)
        .aggregate(case.batch)
        .pipe(torch.stack)
        .add_sink(2)
    )
    pipeline = builder.build(num_threads=case.threads)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
