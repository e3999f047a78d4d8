"""The data sets: what is known of each without its files, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from symcore.data import cifar, digits, idx
from symcore.data.published import Published


@dataclass(frozen=True)
class Split:
    """Part of a data set: images uint8 [n, *input_shape], labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """What is known of a data set without its files."""

    name: str
    title: str
    """Its name as people write it."""
    input_shape: tuple[int, ...]
    """[row, column] or [channel, row, column]."""
    classes: int
    sizes: dict[str, int]
    """Images in each split; "val", if any, is taken out of the published training images."""
    checksum: str
    """Names the exact content."""
    full_scale: float
    """The largest pixel."""
    mean: tuple[float, ...]
    """What normalising subtracts, in parts of the full scale: one number, or one per channel."""
    std: tuple[float, ...]
    """What it divides by, likewise."""
    published: Published
    read: Callable[[Iterator[bytes]], dict[str, tuple[Tensor, Tensor]]]
    """Images and labels of "train" and "test" from the published files' contents."""


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
        """Bytes [..., *input_shape] -> float32, less the source's mean and over its standard deviation."""
        return images.float() * self._scale - self._shift

    @cached_property
    def _scale(self) -> float | Tensor:
        return self._by_channel(*(1 / (self.source.full_scale * std) for std in self.source.std))

    @cached_property
    def _shift(self) -> float | Tensor:
        both = zip(self.source.mean, self.source.std, strict=True)
        return self._by_channel(*(mean / std for mean, std in both))

    def _by_channel(self, *values: float) -> float | Tensor:
        """A number, or [channel, 1, 1] on the images' device."""
        if len(values) == 1:
            return values[0]
        device = next(iter(self.splits.values())).images.device
        return torch.tensor(values, device=device).view(-1, 1, 1)


DIGITS = Source(
    name="digits",
    title="Digits",
    input_shape=(8, 8),
    classes=10,
    sizes={"train": 1300, "test": 497},
    checksum=digits.CHECKSUM,
    full_scale=16.0,
    mean=(0.3054,),
    std=(0.3762,),
    published=Published(folder="", files={}, url=""),  # they come with scikit-learn
    read=digits.read,
)


def _content(published: Published) -> str:
    """A checksum of all files from those of each."""
    return hashlib.sha256("".join(published.files.values()).encode()).hexdigest()


def _like_mnist(
    name: str, title: str, folder: str, url: str, md5: tuple[str, str, str, str], *, mean: float, std: float
) -> Source:
    """Grey images in ten classes, 60,000 to train and 10,000 to test, in four IDX files."""
    published = Published(folder, dict(zip(idx.FILES, md5, strict=True)), url)
    return Source(
        name=name,
        title=title,
        input_shape=(28, 28),
        classes=10,
        sizes={"train": 54_000, "val": 6_000, "test": 10_000},
        checksum=_content(published),
        full_scale=255.0,
        mean=(mean,),
        std=(std,),
        published=published,
        read=idx.read,
    )


def _like_cifar(
    name: str,
    title: str,
    published: Published,
    *,
    classes: int,
    labels: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Source:
    """Colour images, 50,000 to train and 10,000 to test, in pickles; `labels` is the key of their labels."""
    return Source(
        name=name,
        title=title,
        input_shape=(3, 32, 32),
        classes=classes,
        sizes={"train": 45_000, "val": 5_000, "test": 10_000},
        checksum=_content(published),
        full_scale=255.0,
        mean=mean,
        std=std,
        published=published,
        read=partial(cifar.read, labels=labels),
    )


MNIST = _like_mnist(
    "mnist",
    "MNIST",
    "MNIST/raw",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    mean=0.1307,
    std=0.3081,
)
FASHION_MNIST = _like_mnist(
    "fashion-mnist",
    "Fashion-MNIST",
    "FashionMNIST/raw",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    mean=0.2860,
    std=0.3530,
)
CIFAR_10 = _like_cifar(
    "cifar-10",
    "CIFAR-10",
    Published(
        folder="cifar-10-batches-py",
        files={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
    ),
    classes=10,
    labels="labels",
    mean=(0.485, 0.456, 0.406),  # ImageNet's, as in Lim et al.'s code for linear mode connectivity
    std=(0.229, 0.224, 0.225),
)
CIFAR_100 = _like_cifar(
    "cifar-100",
    "CIFAR-100",
    Published(
        folder="cifar-100-python",
        files={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    ),
    classes=100,
    labels="fine_labels",
    mean=(0.491, 0.482, 0.447),  # CIFAR-10's, as in Lim et al.'s code for Bayesian networks
    std=(0.247, 0.243, 0.261),
)
SOURCES = {source.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR_10, CIFAR_100)}
"""Every data set by its name."""


def load(name: str, folder: Path) -> Dataset:
    """The data set, from files in the folder where it has any, downloading them when they are missing.

    Raises:
        KeyError: for a name that is not in `SOURCES`.
        DataUnavailableError: when its files cannot be had; the message says where to put them.
    """
    source = SOURCES[name]
    parts = source.read(source.published.contents(name, folder))
    if "val" in source.sizes:
        parts = _hold_out(parts, source.sizes)
    return Dataset(source, {part: Split(images, labels) for part, (images, labels) in parts.items()})


def _hold_out(
    parts: dict[str, tuple[Tensor, Tensor]], sizes: dict[str, int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Splits "val" off the training images as the authors' code does: torch's `random_split` with seed 42."""
    images, labels = parts["train"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(42))
    train, val = order.split([sizes["train"], sizes["val"]])
    return {
        "train": (images[train], labels[train]),
        "val": (images[val], labels[val]),
        "test": parts["test"],
    }
