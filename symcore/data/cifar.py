"""CIFAR's file format: pickles of Python 2, read by an unpickler that can build arrays and nothing else."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return torch.tensor(batch[b"data"]).view(-1, 3, 32, 32), torch.tensor(batch[labels])


def _empty_array(_subtype: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray[Any, Any]:
    """What a pickled array starts from; its content follows."""
    return np.empty(shape, dtype)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""What the published files ask for."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in ALLOWED:
            accepted = ", ".join(map(".".join, ALLOWED))
            msg = f"the file asks for {module}.{name}; accepted: {accepted}"
            raise pickle.UnpicklingError(msg)
        return ALLOWED[module, name]
