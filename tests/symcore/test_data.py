"""Published files are read as published, and a set that cannot be had says where its files belong."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from symcore.data import sources


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A data folder with MNIST-shaped files of noise, and the loader told their checksums."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = [
        rng.integers(0, 256, (60_000, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, 60_000, dtype=np.uint8),
        rng.integers(0, 256, (10_000, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, 10_000, dtype=np.uint8),
    ]
    sums = {}
    for name, array in zip(sources.MNIST_FILES, arrays, strict=True):
        content = idx(array)
        (raw / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(sources, "MNIST_FILES", sums)
    return tmp_path, arrays


def test_mnist_files_in_the_data_folder_are_used_and_split_as_the_authors_do(tiny_mnist):
    folder, arrays = tiny_mnist
    mnist = sources.load("mnist", folder)
    assert {name: len(s) for name, s in mnist.splits.items()} == sources.SOURCES["mnist"].sizes
    assert np.array_equal(mnist.splits["test"].images.numpy(), arrays[2])
    assert np.array_equal(mnist.splits["test"].labels.numpy(), arrays[3])
    together = np.concatenate([mnist.splits[name].images.numpy() for name in ("train", "val")])
    assert sorted(together.sum((1, 2)).tolist()) == sorted(arrays[0].sum((1, 2), dtype=np.int64).tolist())


def test_a_harmed_file_is_named(tiny_mnist):
    folder, _ = tiny_mnist
    harmed = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    harmed.write_bytes(b"not it")
    with pytest.raises(
        sources.DataUnavailableError, match=r"train-labels-idx1-ubyte\.gz is not the published file"
    ):
        sources.load("mnist", folder)


def test_a_download_that_fails_says_where_to_put_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MNIST_URL", "http://127.0.0.1:9/")
    with pytest.raises(sources.DataUnavailableError) as caught:
        sources.load("mnist", tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert "t10k-labels-idx1-ubyte.gz" in str(caught.value)
