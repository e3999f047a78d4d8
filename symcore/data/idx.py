"""MNIST's file format, IDX, which other sets of grey images share."""

from __future__ import annotations

import gzip
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
"""Their names, in the order in which they are read."""


def read(contents: Iterable[bytes]) -> dict[str, tuple[Tensor, Tensor]]:
    """Images uint8 [n, row, column] and labels int64 [n] from the four files."""
    images, labels, test_images, test_labels = map(_array, contents)
    return {"train": (images, labels.long()), "test": (test_images, test_labels.long())}


def _array(content: bytes) -> Tensor:
    """A compressed file of bytes: two zero bytes, type 8, the number of axes, their sizes big-endian, the data."""
    raw = gzip.decompress(content)
    axes = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", axes, offset=4))
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
