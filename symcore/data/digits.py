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


def read(contents: Iterable[bytes]) -> dict[str, tuple[Tensor, Tensor]]:
    """1,797 images of 8 x 8 in 17 grey levels with their labels; 1,300 to train and 497 to test, split by a fixed seed.

    Raises:
        DataUnavailableError: if this scikit-learn has other images.
    """
    del contents  # the images come with the package
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of import that only digits needs

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if found != CHECKSUM:
        msg = f"digits: scikit-learn's images have checksum {found}, expected {CHECKSUM}"
        raise DataUnavailableError(msg)
    order = stream(0, "digits split").permutation(len(labels))
    parts = {"train": order[:1300], "test": order[1300:]}
    return {
        name: (torch.from_numpy(images[index]), torch.from_numpy(labels[index]))
        for name, index in parts.items()
    }
