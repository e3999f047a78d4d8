"""CIFAR's file format: pickles of Python 2 that hold arrays and lists."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from symcore.data import pickles


def read(contents: Iterable[bytes], labels: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n]; the last file holds the test images, the others the training images.

    Args:
        contents: the files.
        labels: the key of the labels in a file: "labels" in CIFAR-10's, "fine_labels" in CIFAR-100's.

    Raises:
        pickle.UnpicklingError: if a file asks for anything but arrays.
    """
    *train, test = (_batch(content, labels.encode()) for content in contents)
    images, classes = zip(*train, strict=True)
    return {"train": (torch.cat(images), torch.cat(classes)), "test": test}


def _batch(content: bytes, labels: bytes) -> tuple[Tensor, Tensor]:
    batch = pickles.load(content, pickles.ARRAYS, encoding="bytes")
    return torch.tensor(batch[b"data"]).view(-1, 3, 32, 32), torch.tensor(batch[labels])
