"""Images of one data set as another's networks take them, to see what networks make of images that are none of theirs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from symcore.data.sources import Dataset, Source, Split


def reducible(given: Source, wanted: Source) -> bool:
    """Whether images have the channels that are wanted, and at least as many rows and columns; no graph has images."""
    if given.nodes or wanted.nodes or len(given.input_shape) != len(wanted.input_shape):
        return False
    channels = given.input_shape[:-2] == wanted.input_shape[:-2]
    return channels and all(a >= b for a, b in zip(given.input_shape, wanted.input_shape, strict=True))


def as_of(strange: Dataset, split: str, own: Dataset) -> Dataset:
    """Images of one data set in the size, the range of bytes and the normalisation of another; its only split is "outside".

    Larger images become smaller by the mean over each part, as digits were made from their larger originals.
    BatchNorm's statistics stay those of the other's images.
    """
    images = strange.splits[split].images
    scale = own.source.full_scale / strange.source.full_scale
    if images.shape[1:] != own.source.input_shape or scale != 1:
        images = _resized(images, own.source.input_shape, scale)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    return Dataset(own.source, {"outside": Split(images, labels)}, calibrated_on=own.calibration)


def _resized(images: Tensor, shape: tuple[int, ...], scale: float) -> Tensor:
    """Bytes [n, *shape], some images at a time."""
    size = (shape[-2], shape[-1])
    parts = [
        adaptive_avg_pool2d(part.float().view(len(part), -1, *part.shape[-2:]), size)
        for part in images.split(10_000)
    ]
    return torch.cat([(part * scale).round().to(torch.uint8).view(-1, *shape) for part in parts])
