"""Random changes of training images that keep their class: a crop and a flip, drawn anew for each image of each network.

One number says what happens to an image, so that a whole epoch's choices are a byte each and travel to a device at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PAD = 4
"""Pixels by which a crop moves at most."""
PLACES = 2 * PAD + 1
CHOICES = 2 * PLACES * PLACES


def draw(generator: np.random.Generator, images: int) -> npt.NDArray[np.uint8]:
    """A choice for each image, every one of `CHOICES` equally likely."""
    return generator.integers(CHOICES, size=images, dtype=np.uint8)


def crop_flip(images: Tensor, choices: Tensor) -> Tensor:
    """Each image cropped to its size at one of 9 x 9 places after padding by 4, and mirrored or not.

    Padding is 0. Normalised images have there the mean colour, as in Lim et al.'s code, which however draws once for a
    whole minibatch. A choice is (mirrored * 9 + row) * 9 + column, where 4, 4 is the image's own place.

    Args:
        images: [*lead, row, column] or [*lead, channel, row, column], any type.
        choices: uint8 [*lead], below `CHOICES`.
    """
    height, width = images.shape[-2:]
    rows = _from(height, choices // PLACES % PLACES)
    columns = _from(width, choices % PLACES)
    mirrored = (choices // (PLACES * PLACES)).bool().unsqueeze(-1)
    columns = torch.where(mirrored, columns.flip(-1), columns)
    row, column = rows.unsqueeze(-1), columns.unsqueeze(-2)
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    planes = images.reshape(*choices.shape, -1, height * width)
    moved = planes.gather(-1, source.flatten(-2).unsqueeze(-2).expand_as(planes))
    return moved.masked_fill(outside.flatten(-2).unsqueeze(-2), 0).view(images.shape)


def _from(extent: int, place: Tensor) -> Tensor:
    """Where each row or column of a crop comes from, int64 [*lead, extent]; below 0 or from `extent` on is padding."""
    return torch.arange(extent, device=place.device) + place.long().unsqueeze(-1) - PAD
