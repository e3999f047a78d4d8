"""The digits that ship with scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from symcore.data.published import DataUnavailableError
from symcore.randomness import stream

CHECKSUM = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"
"""SHA-256 of the images' and labels' bytes."""


NOISY_CHECKSUM = "09ef8d345b39137871a4831be2458e0bced3cbd7be654db4f6b0a647316e16f7"
"""Likewise of the images with noisy labels, training images and labels first."""

Parts = dict[str, tuple[Tensor, Tensor]]


def read(contents: Iterable[bytes]) -> Parts:
    """1,797 images of 8 x 8 in 17 grey levels with their labels; 1,300 to train and 497 to test, split by a fixed seed.

    Raises:
        DataUnavailableError: if this scikit-learn has other images.
    """
    del contents  # the images come with the package
    images, labels = _shipped()
    return _split(images, labels, 1300)


def read_noisy(contents: Iterable[bytes]) -> Parts:
    """The same images, 900 to train, of which every tenth has another class for a label, and 897 to test with their own.

    Raises:
        DataUnavailableError: if this scikit-learn has other images, or this numpy draws other labels.
    """
    del contents
    parts = _split(*_shipped(), 900)
    rng, labels = stream(0, "digits noise"), parts["train"][1].numpy()
    wrong = rng.permutation(900)[:90]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 90)) % 10
    _check((t.numpy() for part in parts.values() for t in part), NOISY_CHECKSUM, "noisy digits")
    return parts


def _shipped() -> tuple[np.ndarray, np.ndarray]:
    """All images, [n, row, column], and their labels as scikit-learn has them."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of import that only digits needs

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    _check((images, labels), CHECKSUM, "scikit-learn's images")
    return images, labels


def _check(arrays: Iterable[np.ndarray], checksum: str, what: str) -> None:
    found = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    if found != checksum:
        msg = f"digits: {what} have checksum {found}, expected {checksum}"
        raise DataUnavailableError(msg)


def _split(images: np.ndarray, labels: np.ndarray, trained: int) -> Parts:
    """So many images to train, and the rest to test."""
    order = stream(0, "digits split").permutation(len(labels))
    parts = {"train": order[:trained], "test": order[trained:]}
    return {
        name: (torch.from_numpy(images[index]), torch.from_numpy(labels[index]))
        for name, index in parts.items()
    }
