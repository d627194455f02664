"""Operations and policies on single images."""

from __future__ import annotations

import operator
import sys
from typing import Any

from ddas import _ddas
from ddas._images import ImageT, through_pixels


def apply(image: ImageT, operation: str, **arguments: Any) -> ImageT:
    """Applies one operation and returns the result as a new image of the same type.

    The pixels are Pillow's, bit for bit. `image` is a PIL image of mode RGB, a
    NumPy uint8 array of shape (height, width, 3) or a torch uint8 tensor of
    shape (3, height, width).

    Arguments, by operation:

    - Identity, FlipLR, FlipUD, AutoContrast, Equalize, Invert, Blur, Smooth: none
    - Rotate90, Rotate180, Rotate270 (counter-clockwise, the size stays): none
    - GaussianBlur: `radius`, the standard deviation in pixels
    - Rotate: `degrees`, counter-clockwise
    - ShearX, ShearY: `shear`
    - TranslateX, TranslateY: `pixels` or `fraction` of the side; the content moves left or up for positive values;
      `rounding` "truncate" for whole pixels, towards zero
    - Posterize: `bits` kept, 0 to 8 (0 is a black image)
    - Solarize: `threshold`
    - SolarizeAdd: `add` and `threshold`; `scope` "below" (the threshold, the default) or "all" (then solarize)
    - Color, Contrast, Brightness, Sharpness: `factor`, 1.0 leaves the image as it is
    - Desaturate: `amount`, 0 to 1 (grey)
    - CropBilinear: `pixels` cut off each side; the rest is resized to the old size
    - Cutout: `size` in pixels or `fraction` of the width, `center=(x, y)` (the middle of the image
      if left out), `fill`, `shape` "centered" (on a pixel, the default) or "rectangle" (on any point, far edge filled)

    Rotate, the shears and the translations also take `fill` (three bytes, black
    if left out) and `interpolation` ("nearest", "bilinear" or "bicubic").

    Nothing is random: the sign is the one given.

    Raises `ValueError` or `TypeError` naming the operation or argument that is
    unknown, missing or out of range, or the dtype or shape that does not fit.

    >>> from PIL import Image
    >>> apply(Image.new("RGB", (2, 2), (10, 20, 30)), "Invert").getpixel((0, 0))
    (245, 235, 225)
    """
    if not isinstance(operation, str):
        raise TypeError(f'`operation` must be the name of one, such as "Rotate", got {type(operation).__name__}')
    center = arguments.pop("center", None)
    parsed = _ddas.Operation(operation, arguments)
    return through_pixels(image, lambda pixels, width, height: parsed.apply(pixels, width, height, center))


class Augment:
    """A policy as a transform of single images, for use without a daemon.

    What happens to an image depends only on (policy, seed, epoch, index), so
    workers, threads and restarts give the same images; these are the draws the
    daemon makes for the same sample.

    Works on the same three image types as `apply` and returns the type it was
    given. `epochs` is the number of epochs of the training run over which the
    policy's snapshots are spread.

    As a transform, in a torchvision `Compose` or as a dataset's `transform`, it
    is called without `index`. Then calls are numbered from zero after each
    `set_epoch`, and the workers of a torch DataLoader deal the numbers out among
    themselves: no two images of an epoch share draws, and a run that visits its
    images in the same order with as many workers repeats them. Give `index` to
    be independent of both. Processes of a distributed job count alike: give each
    a seed of its own, or `index`.
    """

    def __init__(self, policy: _ddas.Policy, epochs: int, seed: int = 0) -> None:
        self._augmenter = _ddas.Augmenter(policy, epochs, seed)
        self._policy = policy
        self._epoch = 0
        self._calls = 0

    @property
    def policy(self) -> _ddas.Policy:
        return self._policy

    @property
    def epochs(self) -> int:
        return self._augmenter.epochs

    @property
    def seed(self) -> int:
        return self._augmenter.seed

    @property
    def epoch(self) -> int:
        """The training epoch, counted from zero."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` (from 0 up to, not including, `epochs`) the one whose snapshot is used."""
        try:
            epoch = operator.index(epoch)
        except TypeError:
            raise TypeError(f"`epoch` must be a whole number, got {epoch!r}") from None
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"`epoch` must lie in 0..{self.epochs - 1}, got {epoch}")
        self._epoch = epoch
        self._calls = 0

    def __call__(self, image: ImageT, index: int | None = None) -> ImageT:
        if index is None:
            index = _numbered_in_worker(self._calls)
            self._calls += 1
        number, epoch = index, self._epoch
        return through_pixels(
            image, lambda pixels, width, height: self._augmenter.apply(pixels, width, height, epoch, number)
        )

    def drawn(self, index: int) -> list[dict[str, Any]]:
        """The operations drawn for image `index` in the current epoch, in the order they are applied.

        Each is a dict as in a policy file: a `kind`, and the arguments it is
        applied with, the sign resolved. Empty where the image stays as it is.
        The centre of a Cutout is drawn when it is applied, for it depends on the image's size.
        """
        return self._augmenter.drawn(self._epoch, index)

    def __repr__(self) -> str:
        return f"Augment({self._policy!r}, epochs={self.epochs}, seed={self.seed})"


def _numbered_in_worker(call: int) -> int:
    """The `call`-th number that belongs to this worker of a torch DataLoader; `call` itself outside one."""
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None else None
    return call if worker is None else call * worker.num_workers + worker.id
