"""Where images come from: the digits that ship with scikit-learn, and MNIST from its published files."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symcore.randomness import stream


class DataUnavailableError(Exception):
    """A data set's files are neither in the data folder nor to be had; the message says where to put them."""


@dataclass(frozen=True)
class Split:
    """Part of a data set: images uint8 [n, *input_shape], labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """What is known of a data set without its files; the checksum names its exact content."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    sizes: dict[str, int]
    checksum: str
    full_scale: float
    mean: float
    std: float
    read: Callable[[Path], dict[str, Split]]


@dataclass(frozen=True)
class Dataset:
    """Images kept as bytes on one device, with the numbers that normalise them."""

    source: Source
    splits: dict[str, Split]

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device."""
        moved = {name: Split(s.images.to(device), s.labels.to(device)) for name, s in self.splits.items()}
        return replace(self, splits=moved)

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes [..., *input_shape] -> float32 with the training set's mean 0 and standard deviation 1."""
        scale = 1 / (self.source.full_scale * self.source.std)
        return images.float() * scale - self.source.mean / self.source.std


def _digits(folder: Path) -> dict[str, Split]:
    """1,797 images of 8 x 8 in 17 grey levels; 1,300 to train and 497 to test, split by a fixed seed."""
    del folder  # the images ship with scikit-learn
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of import that only digits needs

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if found != SOURCES["digits"].checksum:
        msg = f"digits: scikit-learn's images have checksum {found}, expected {SOURCES['digits'].checksum}"
        raise DataUnavailableError(msg)
    order = stream(0, "digits split").permutation(len(labels))
    parts = {"train": order[:1300], "test": order[1300:]}
    return {
        name: Split(torch.from_numpy(images[index]), torch.from_numpy(labels[index]))
        for name, index in parts.items()
    }


MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""MD5 of each published file."""
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def _fetch(name: str, folder: Path, url: str, files: dict[str, str]) -> None:
    """Makes sure that every file is in the folder and unharmed; downloads what is missing.

    Raises:
        DataUnavailableError: when a file is missing and cannot be downloaded, or has the wrong checksum.
    """
    for file, md5 in files.items():
        path = folder / file
        if not path.exists():
            _download(name, path, url + file, md5)
        elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            msg = f"{name}: {path} is not the published file (its MD5 should be {md5}); remove it or put the right one there"
            raise DataUnavailableError(msg)


def _download(name: str, path: Path, url: str, md5: str) -> None:
    import pooch  # noqa: PLC0415 - only a download needs it
    import requests  # noqa: PLC0415

    try:
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent)
    except (OSError, ValueError, requests.RequestException) as error:
        wanted = ", ".join(MNIST_FILES)
        msg = (
            f"{name}: {url} could not be downloaded ({type(error).__name__}); put {wanted} into {path.parent}"
        )
        raise DataUnavailableError(msg) from error


def _idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An IDX file of bytes: two zero bytes, type 8, the number of axes, their sizes big-endian, the data."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", axes, offset=4))
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _mnist(folder: Path) -> dict[str, Split]:
    """54,000 images to train, 6,000 to validate (split as the authors' code does, seed 42), 10,000 to test."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    _fetch("mnist", raw, MNIST_URL, MNIST_FILES)
    images, labels, test_images, test_labels = (
        torch.from_numpy(_idx(raw / file).copy()) for file in MNIST_FILES
    )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(42))
    return {
        "train": Split(images[order[:54_000]], labels[order[:54_000]].long()),
        "val": Split(images[order[54_000:]], labels[order[54_000:]].long()),
        "test": Split(test_images, test_labels.long()),
    }


SOURCES: dict[str, Source] = {
    "digits": Source(
        name="digits",
        input_shape=(8, 8),
        classes=10,
        sizes={"train": 1300, "test": 497},
        checksum="65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5",
        full_scale=16.0,
        mean=0.3054,
        std=0.3762,
        read=_digits,
    ),
    "mnist": Source(
        name="mnist",
        input_shape=(28, 28),
        classes=10,
        sizes={"train": 54_000, "val": 6_000, "test": 10_000},
        checksum=hashlib.sha256("".join(MNIST_FILES.values()).encode()).hexdigest(),
        full_scale=255.0,
        mean=0.1307,
        std=0.3081,
        read=_mnist,
    ),
}


def load(name: str, folder: Path) -> Dataset:
    """The data set, from files in the folder where it has any, downloading them when they are missing.

    Raises:
        KeyError: for a name that is not in `SOURCES`.
        DataUnavailableError: when its files cannot be had; the message says where to put them.
    """
    source = SOURCES[name]
    return Dataset(source, source.read(folder))
