"""Pictures of what is fixed in a layer: a pixel per weight, or a sample of rows and columns of a large layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LIMIT = 128
"""Rows, or columns, of weights that a picture shows at most."""
PIXELS = 256
"""Pixels of a picture's longer side, about."""
NEGATIVE, POSITIVE, ZERO = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x7A, 0x7F, 0x87)
"""Colours of fixed weights by their sign, readable on both themes (Okabe-Ito, and the standard networks' grey)."""
BAND = 32
"""Pixels of the height of a picture of biases."""
FAINTEST, TRAINABLE = 0.3, 0.14
"""Opacity of the smallest fixed weights, and of what is trained, which has no colour of its own."""
KEY = (
    ("fixed above zero", POSITIVE, 1.0),
    ("fixed below zero", NEGATIVE, 1.0),
    ("fixed at zero", ZERO, 1.0),
    ("trained", ZERO, TRAINABLE),
)
"""What the colours mean, each with its opacity."""


@dataclass(frozen=True)
class Picture:
    """What a layer looks like."""

    name: str
    pixels: NDArray[np.uint8]
    """[height, width, 4], colour and opacity."""
    told: str
    """Its shape, how much of it is fixed, and which part of it is shown."""


def every(size: int) -> int:
    """Which of `size` rows or columns a picture shows: every one, every second, ..."""
    return -(-size // LIMIT)


def picture(name: str, fixed: Tensor, trainable: Tensor) -> Picture:
    """What is fixed of a layer's weights, blue below zero and orange above; the greater the more opaque.

    A large layer is sampled, every n-th row and column, so that a pixel is always one weight and never a mean.

    Args:
        name: of the layer.
        fixed: F, [out, in], or [out, in, k, k], whose columns are then all weights of a row, or biases [out].
        trainable: D, alike, true where a weight is trained.
    """
    rows_of = (1, -1) if fixed.ndim == 1 else (len(fixed), -1)
    values, trained = fixed.reshape(rows_of).numpy(), trainable.reshape(rows_of).numpy()
    free = trained & (values == 0)
    rows, columns = values.shape
    down, across = every(rows), every(columns)
    zoom = max(1, PIXELS // max(-(-rows // down), -(-columns // across)))
    drawn = _colours(values[::down, ::across], free[::down, ::across])
    pixels = drawn.repeat(BAND if rows == 1 else zoom, axis=0).repeat(zoom, axis=1)
    return Picture(name, pixels, _told(fixed, trained, free, down, across))


def _colours(values: NDArray[np.float32], free: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """[row, column] to [row, column, 4]; weights of twice the root mean square are drawn in full."""
    spread = float(np.sqrt(np.mean(values[~free] ** 2))) if not free.all() else 1.0
    strength = np.minimum(1.0, np.abs(values) / (2 * spread or 1.0))
    opacity = np.where(free, TRAINABLE, np.where(values == 0, 1.0, FAINTEST + (1 - FAINTEST) * strength))
    sign = np.where(free, 0, np.sign(values)).astype(int)
    colour = np.array([ZERO, POSITIVE, NEGATIVE], dtype=np.uint8)[sign]
    return np.concatenate([colour, np.round(255 * opacity)[..., None].astype(np.uint8)], axis=-1)


def _told(fixed: Tensor, trained: NDArray[np.bool_], free: NDArray[np.bool_], down: int, across: int) -> str:
    shape = " × ".join(map(str, fixed.shape))
    share = 1 - trained.mean()
    told = f"{shape}, {share:.1%} fixed" if share < 1 else f"{shape}, all fixed"
    if trained.all() and not free.all():
        told = f"{shape}, trained from a fixed offset"
    sampled = [
        f"every {_ordinal(step)} {what}" for step, what in ((down, "row"), (across, "column")) if step > 1
    ]
    return told + (f"; shown: {' and '.join(sampled)}" if sampled else "")


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
