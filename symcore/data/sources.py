"""The data sets: what is known of each without its files, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from symcore.data import cifar, digits, idx, ogb, planetoid
from symcore.data.nodes import Nodes
from symcore.data.published import DataUnavailableError, OnBytes, Published, unheard
from symcore.propagation import Graph, graph_of

CALIBRATION = 2_000
"""Training images, the first ones, from which BatchNorm's statistics are estimated."""


@dataclass(frozen=True)
class Split:
    """Part of a data set: images uint8 [n, *input_shape], labels int64 [n].

    In a graph the images are the features of all nodes, which all splits share, and the labels of nodes outside the
    split are negative.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Images, or nodes, that count."""
        return self._counted

    @cached_property
    def _counted(self) -> int:
        return int((self.labels >= 0).sum())


@dataclass(frozen=True)
class Source:
    """What is known of a data set without its files."""

    name: str
    title: str
    """Its name as people write it."""
    input_shape: tuple[int, ...]
    """[row, column] or [channel, row, column]; of a graph's nodes [feature]."""
    classes: int
    sizes: dict[str, int]
    """Images, or a graph's nodes, in each split; an image set's "val" is taken out of its published training images."""
    checksum: str
    """Names the exact content."""
    full_scale: float
    """The largest pixel."""
    mean: tuple[float, ...]
    """What normalising subtracts, in parts of the full scale: one number, or one per channel."""
    std: tuple[float, ...]
    """What it divides by, likewise."""
    published: Published
    read: Callable[[Iterator[bytes]], dict[str, tuple[Tensor, Tensor]] | Nodes]
    """Images and labels of "train" and "test", or a graph's nodes, from the published files' contents."""
    nodes: int = 0
    """Nodes of the graph that the data set is; 0: it is separate images."""

    def rows(self, split: str) -> int:
        """What a network reads to be evaluated on a split: its images, or all nodes of the graph."""
        return self.nodes or self.sizes[split]


@dataclass(frozen=True)
class Dataset:
    """Images kept as bytes on one device, with the numbers that normalise them."""

    source: Source
    splits: dict[str, Split]
    graph: Graph | tuple[()] = ()
    """The edges between nodes; empty where images stand for themselves."""
    calibrated_on: Tensor | None = None
    """Images from which BatchNorm's statistics are estimated; none: the first training images."""

    @property
    def calibration(self) -> Tensor:
        """Images from which BatchNorm's statistics are estimated."""
        given = self.calibrated_on
        return self.splits["train"].images[:CALIBRATION] if given is None else given

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device."""
        tensors = [t for s in self.splits.values() for t in (s.images, s.labels)]
        moved = {id(t): t.to(device) for t in tensors}  # a graph's splits share their images
        splits = {name: Split(moved[id(s.images)], moved[id(s.labels)]) for name, s in self.splits.items()}
        graph = Graph(*(t.to(device) for t in self.graph)) if self.graph else ()
        given = self.calibrated_on
        return replace(
            self,
            splits=splits,
            graph=graph,
            calibrated_on=None if given is None else given.to(device),
        )

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


DIGITS_NOISY = replace(
    DIGITS,
    name="digits-noisy",
    title="Digits, a tenth of training labels wrong",
    sizes={"train": 900, "test": 897},
    checksum=digits.NOISY_CHECKSUM,
    read=digits.read_noisy,
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


def _like_cora(
    name: str, title: str, md5: tuple[str, ...], *, features: int, classes: int, nodes: int
) -> Source:
    """A citation graph in Planetoid's files, with the public split."""
    files = dict(zip((f"ind.{name}.{part}" for part in planetoid.PARTS), md5, strict=True))
    published = Published("planetoid", files, "https://github.com/kimiyoung/planetoid/raw/master/data/")
    return Source(
        name=name,
        title=title,
        input_shape=(features,),
        classes=classes,
        sizes={"train": 20 * classes, "val": planetoid.VALIDATION, "test": 1_000},
        checksum=_content(published),
        full_scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        published=published,
        read=planetoid.read,
        nodes=nodes,
    )


CORA = _like_cora(
    "cora",
    "Cora",
    (
        "190831eee19d8f330d89d94b40a65c5a",
        "78344284e3ff7fd24eb9c307d51351eb",
        "b29c36916768e1d2f55391c1aa9317ac",
        "48bf43f54fa5b86089a4bd0299795f10",
        "c9083193a57057dd1238321e140194d7",
        "125d70817fe1fdbfdcad991995e81579",
        "b37c419cec179f45834467630c278e4c",
        "9b822cae1d01f41e8bf8782e20367c0e",
    ),
    features=1433,
    classes=7,
    nodes=2708,
)
CITESEER = _like_cora(
    "citeseer",
    "CiteSeer",
    (
        "baeb0100b5a8af8d41f928113ce0a4e5",
        "8b99f50aa950fbbf9a7a2b71ff9cac97",
        "c25ab826a7e95c0922ab625de705f7df",
        "356894a73b7a7eff43c3580f2fcf92a4",
        "28486b4b9c4ee076b4eee2febd89ba86",
        "f0df7e5f859245e32987bfd224d01657",
        "5f88483d5f5cc2b26b987bbbfb695005",
        "70af39d4dff8aaa5c63f8dc526b16534",
    ),
    features=3703,
    classes=6,
    nodes=3327,
)
PUBMED = _like_cora(
    "pubmed",
    "PubMed",
    (
        "2e93a89281c7597939cfb24976696f54",
        "520bb2899bb8fb705181b8e34a973573",
        "30d5abd15cf10e46ebd9514b256e0347",
        "3082e367753e3a81c457f644316ca17d",
        "d6ecf5ffbdc9f8b181962d6829c7a8ac",
        "ab5def164b4c5b33e215b6397a84ee4b",
        "601ee2ffa59197989ff7267383a4ea46",
        "57cdfacfa20179b9b92e077fba394d1c",
    ),
    features=500,
    classes=3,
    nodes=19717,
)
OGBN_ARXIV = Source(
    name="ogbn-arxiv",
    title="ogbn-arxiv",
    input_shape=(128,),
    classes=40,
    sizes={"train": 90_941, "val": 29_799, "test": 48_603},
    checksum=hashlib.sha256(b"ogbn-arxiv, version 1 of the Open Graph Benchmark").hexdigest(),
    full_scale=1.0,
    mean=(0.0,),
    std=(1.0,),
    published=Published(
        folder="arxiv",
        files=dict.fromkeys(ogb.FILES, ""),
        url="https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
    ),
    read=ogb.read,
    nodes=169_343,
)
"""No checksum of its files is published, so that its counts are all that can be checked."""
SOURCES = {
    source.name: source
    for source in (
        DIGITS,
        DIGITS_NOISY,
        MNIST,
        FASHION_MNIST,
        CIFAR_10,
        CIFAR_100,
        CORA,
        CITESEER,
        PUBMED,
        OGBN_ARXIV,
    )
}
"""Every data set by its name."""


def load(name: str, folder: Path, on_bytes: OnBytes = unheard) -> Dataset:
    """The data set, from files in the folder where it has any, downloading them when they are missing.

    Args:
        name: of the data set.
        folder: the data folder.
        on_bytes: told how far a download is; what it raises ends the download, which the next one goes on with.

    Raises:
        KeyError: for a name that is not in `SOURCES`.
        DataUnavailableError: when its files cannot be had; the message says where to put them.
    """
    source = SOURCES[name]
    parts = source.read(source.published.contents(name, folder, on_bytes))
    if isinstance(parts, Nodes):
        return _on_graph(source, parts)
    if "val" in source.sizes:
        parts = _hold_out(parts, source.sizes)
    return Dataset(source, {part: Split(images, labels) for part, (images, labels) in parts.items()})


def _on_graph(source: Source, nodes: Nodes) -> Dataset:
    """A graph's nodes as a data set.

    Raises:
        DataUnavailableError: if the files hold another graph than is known under the name.
    """
    found = (len(nodes.features), {split: len(own) for split, own in nodes.splits.items()})
    if found != (source.nodes, source.sizes):
        msg = f"{source.name}: its files hold {found[0]} nodes, split into {found[1]}; expected {source.nodes} and {source.sizes}"
        raise DataUnavailableError(msg)
    splits = {split: Split(nodes.features, nodes.labels_of(split)) for split in nodes.splits}
    return Dataset(source, splits, graph_of(nodes.edges, source.nodes))


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
