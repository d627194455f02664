"""`ddas.Loader`: our batches as a Python program receives them, without a copy."""

import ddas


def batches(case):
    loader = ddas.Loader(
        case.folder / f"{case.recipe}.lmdb",
        recipe=case.recipe,
        policy=case.folder / f"randaugment-{case.recipe}.json" if case.augment else None,
        epochs=1_000_000,
        batch_size=case.batch,
        threads=case.threads,
        dtype="u8" if case.raw else "f32",
        layout="nhwc" if case.raw else "nchw",
        last="drop",
        environment=False,
    )
    for batch in loader:
        yield batch.images
