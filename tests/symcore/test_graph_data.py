"""Citation graphs are read as published: their own pickles or tables, the public split, every edge in both directions."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from symcore.data import download, ogb, planetoid, sources
from symcore.data.nodes import OUTSIDE, Nodes
from symcore.data.published import DataUnavailableError

PLANETOID = {"cora": (5278, 49_216), "citeseer": (4552, 105_165), "pubmed": (44_324, 988_031)}
"""Undirected edges without loops, and features that are not 0."""


def matrix(values: np.ndarray) -> bytes:
    """A sparse matrix as SciPy pickled it under Python 2: its class by the name that it then had, then its parts."""
    data, indices, indptr = [], [], [0]
    for row in values:
        data += row[row != 0].tolist()
        indices += np.flatnonzero(row).tolist()
        indptr.append(len(data))
    parts = {
        "_shape": tuple(values.shape),
        "maxprint": 50,
        "data": np.array(data, dtype=np.float32),
        "indices": np.array(indices, dtype=np.int32),
        "indptr": np.array(indptr, dtype=np.int32),
    }
    state = b"}(" + b"".join(word(name) + value(part) for name, part in parts.items()) + b"u"
    return b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81" + state + b"b."


def word(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode()


def value(part: int | tuple[int, ...] | np.ndarray) -> bytes:
    if isinstance(part, np.ndarray):
        return array(part)
    if isinstance(part, tuple):
        return b"(" + b"".join(map(value, part)) + b"t"
    return b"J" + part.to_bytes(4, "little")


def array(values: np.ndarray) -> bytes:
    """An array in the names of Python 2's numpy, without the frame of a pickle."""
    content = values.tobytes()
    kind = values.dtype.str[1:]
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    dtype = (
        b"cnumpy\ndtype\n"
        + word(kind)
        + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    text = b"T" + len(content).to_bytes(4, "little") + content
    return start + value(values.shape) + dtype + b"\x89" + text + b"tb"


def lists(neighbours: dict[int, list[int]]) -> bytes:
    """A dictionary whose missing entries are empty lists."""
    items = b"".join(
        value(node) + b"](" + b"".join(map(value, others)) + b"e" for node, others in neighbours.items()
    )
    return b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R(" + items + b"u."


def made_up() -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Eight files of 2 labelled, 505 other and 3 tested papers, features and labels; place 508 has no paper."""
    rng = np.random.default_rng(0)
    features = (rng.random((510, 6)) < 0.4).astype(np.float32)
    labels = rng.integers(2, size=510)
    one_hot = np.eye(2, dtype=np.int32)[labels]
    tested = [509, 506, 507]
    neighbours: dict[int, list[int]] = {node: [] for node in range(510)}
    neighbours |= {0: [1, 1, 0], 1: [0], 509: [2]}
    known = 506
    files = [
        matrix(features[:2]),
        b"\x80\x02" + array(one_hot[:2]) + b".",
        matrix(features[tested]),
        b"\x80\x02" + array(one_hot[tested]) + b".",
        matrix(features[:known]),
        b"\x80\x02" + array(one_hot[:known]) + b".",
        lists(neighbours),
        b"".join(b"%d\n" % node for node in tested),
    ]
    features[508] = 0
    return files, features, labels


def test_planetoids_files_are_put_in_their_nodes_order() -> None:
    files, features, labels = made_up()
    nodes = planetoid.read(files)
    assert nodes.features.dtype == torch.uint8
    assert np.array_equal(nodes.features.numpy(), features)
    assert [own.tolist() for own in nodes.splits.values()] == [[0, 1], [*range(2, 502)], [506, 507, 509]]
    counted = nodes.labels_of("test")
    assert counted[[506, 507, 509]].tolist() == labels[[506, 507, 509]].tolist()
    assert (counted[:506] == OUTSIDE).all()
    graph = sources.graph_of(nodes.edges, 510)
    assert graph.edges == 2  # 0 - 1 and 2 - 509, however often and in whichever direction they are named


def test_weights_of_words_stay_as_they_are() -> None:
    files, features, _ = made_up()
    files[4] = matrix(features[:506] / 4)
    assert planetoid.read(files).features.dtype == torch.float32


class Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit",)


def test_a_graph_that_asks_for_more_than_lists_is_refused() -> None:
    files, *_ = made_up()
    files[6] = pickle.dumps(Command(), protocol=2)
    with pytest.raises(pickle.UnpicklingError, match=r"asks for \w+\.system; accepted: numpy"):
        planetoid.read(files)


def table(rows: np.ndarray) -> bytes:
    text = "\n".join(",".join(f"{number:.9g}" for number in row) for row in rows) + "\n"
    return gzip.compress(text.encode(), mtime=0)


def tables() -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Files of the Open Graph Benchmark's format: 7 papers with 3 features, 5 citations."""
    rng = np.random.default_rng(0)
    arrays = {
        "edges": np.array([[0, 1], [1, 0], [2, 6], [3, 4], [5, 6]]),
        "features": np.round(rng.standard_normal((7, 3)), 6),
        "labels": rng.integers(40, size=(7, 1)),
        "train": np.array([[6], [0], [2]]),
        "val": np.array([[1], [3]]),
        "test": np.array([[4], [5]]),
    }
    return dict(zip(ogb.FILES, map(table, arrays.values()), strict=True)), arrays


@pytest.fixture
def arxiv(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """A small graph under the name of ogbn-arxiv, published nowhere."""
    monkeypatch.setattr(download, "PAUSE", 0)
    source = sources.SOURCES["ogbn-arxiv"]
    published = replace(source.published, url="http://127.0.0.1:9/arxiv.zip")
    small = replace(source, nodes=7, sizes={"train": 3, "val": 2, "test": 2}, published=published)
    monkeypatch.setitem(sources.SOURCES, "ogbn-arxiv", small)
    return tables()


def check(data: sources.Dataset, arrays: dict[str, np.ndarray]) -> None:
    assert data.splits["train"].images.numpy() == pytest.approx(arrays["features"].astype(np.float32))
    for split in ("train", "val", "test"):
        own, labels = arrays[split][:, 0], data.splits[split].labels.numpy()
        assert np.array_equal(labels[own], arrays["labels"][own, 0])
        assert np.array_equal(np.flatnonzero(labels >= 0), np.sort(own))
    assert data.graph
    assert data.graph.edges == 4


def test_tables_of_the_open_graph_benchmark_are_read(arxiv, tmp_path: Path) -> None:
    files, arrays = arxiv
    for name, content in files.items():
        (tmp_path / "arxiv" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "arxiv" / name).write_bytes(content)
    check(sources.load("ogbn-arxiv", tmp_path), arrays)


def test_an_archive_in_the_data_folder_is_unpacked(arxiv, tmp_path: Path) -> None:
    files, arrays = arxiv
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in {"RELEASE_v1.txt": b"", **files}.items():
            packed.writestr(f"arxiv/{name}", content)
    (tmp_path / "arxiv.zip").write_bytes(stream.getvalue())
    check(sources.load("ogbn-arxiv", tmp_path), arrays)


@pytest.mark.usefixtures("arxiv")
def test_without_it_a_person_is_told_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError, match=rf"raw/edge.csv.gz, .* or arxiv.zip into {tmp_path}"):
        sources.load("ogbn-arxiv", tmp_path)


def test_another_graph_under_the_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes = Nodes(torch.zeros(3, 128), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 0).long(), {})
    source = sources.SOURCES["ogbn-arxiv"]
    other = replace(source, read=lambda _: nodes, published=replace(source.published, files={}))
    monkeypatch.setitem(sources.SOURCES, "ogbn-arxiv", other)
    with pytest.raises(DataUnavailableError, match=r"ogbn-arxiv: its files hold 3 nodes.*expected 169343"):
        sources.load("ogbn-arxiv", tmp_path)


@pytest.mark.parametrize("name", PLANETOID)
def test_the_published_graphs_hold_what_is_known_of_them(name: str) -> None:
    source, folder = sources.SOURCES[name], Path(os.environ.get("SYMLAB_TEST_DATA", "lab/data"))
    if source.published.missing(folder):
        pytest.skip(f"reads {name}'s published files: not in lab/data, nor where $SYMLAB_TEST_DATA points")
    data = sources.load(name, folder)
    edges, entries = PLANETOID[name]
    assert data.graph
    assert data.graph.edges == edges
    features = data.splits["train"].images
    assert features.shape == (source.nodes, *source.input_shape)
    assert int((features != 0).sum()) == entries
    assert features.is_floating_point() == (name == "pubmed")
    assert {split: len(part) for split, part in data.splits.items()} == source.sizes
    train = data.splits["train"].labels
    assert train[train >= 0].bincount().tolist() == [20] * source.classes


def test_files_are_named_by_their_own_md5() -> None:
    for name in PLANETOID:
        files = sources.SOURCES[name].published.files
        assert list(files) == [f"ind.{name}.{part}" for part in planetoid.PARTS]
        assert len(set(files.values())) == 8
        assert all(len(md5) == len(hashlib.md5(b"").hexdigest()) for md5 in files.values())
