"""Published files are read as published, and a set that cannot be had says where its files belong."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import random_split

from symcore.data import cifar, download, sources
from symcore.data.published import DataUnavailableError, Published

NOWHERE = "http://127.0.0.1:9/"
IDX = ["mnist", "fashion-mnist"]
CIFAR = ["cifar-10", "cifar-100"]
SIZES = {"train": 54, "val": 6, "test": 10}


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def python2_pickle(value) -> bytes:
    """Protocol 2 as Python 2 and its numpy wrote it: strings are bytes, and arrays name the module they then had."""
    match value:
        case dict():
            items = b"".join(python2_pickle(key) + python2_pickle(item) for key, item in value.items())
            return b"}(" + items + b"u"
        case list():
            return b"](" + b"".join(map(python2_pickle, value)) + b"e"
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case np.ndarray():
            start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = b"(" + b"".join(map(python2_pickle, value.shape)) + b"t"
            return start + b"(K\x01" + shape + dtype + b"\x89" + python2_pickle(value.tobytes()) + b"tb"
    raise TypeError(type(value))


def noise(name: str) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """Small arrays "train", "train labels", "test", "test labels", and the files that hold them."""
    source, rng = sources.SOURCES[name], np.random.default_rng(0)
    arrays = {
        key: rng.integers(0, end, (n, *shape), dtype=np.uint8)
        for part, n in (("train", SIZES["train"] + SIZES["val"]), ("test", SIZES["test"]))
        for key, end, shape in ((part, 256, source.input_shape), (f"{part} labels", source.classes, ()))
    }
    if name in IDX:
        return arrays, dict(zip(source.published.files, map(idx, arrays.values()), strict=True))
    key = {"cifar-10": b"labels", "cifar-100": b"fine_labels"}[name]
    *training, test = source.published.files
    parts = [*((file, "train", i) for i, file in enumerate(training)), (test, "test", 0)]
    files = {}
    for file, part, i in parts:
        count = len(arrays[part]) // (len(training) if part == "train" else 1)
        rows = slice(i * count, (i + 1) * count)
        batch = {
            b"batch_label": b"noise",
            key: arrays[f"{part} labels"][rows].tolist(),
            b"data": arrays[part][rows].reshape(count, -1),
        }
        files[file] = b"\x80\x02" + python2_pickle(batch) + b"."
    return arrays, files


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny(request, monkeypatch):
    """A data set of noise under the name of a real one: its name, arrays and files, published nowhere."""
    name = request.param
    monkeypatch.setattr(download, "PAUSE", 0)
    arrays, files = noise(name)
    source = sources.SOURCES[name]
    archive = archived(source.published.folder, files) if name in CIFAR else b""
    published = replace(
        source.published,
        files={file: md5(content) for file, content in files.items()},
        url=NOWHERE + (source.published.url.rpartition("/")[2] if archive else ""),
        archive_md5=md5(archive) if archive else "",
    )
    monkeypatch.setitem(sources.SOURCES, name, replace(source, sizes=SIZES, published=published))
    return name, arrays, files


def archived(folder: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for file, content in {"readme.html": b"not needed", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def put(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    own = folder / sources.SOURCES[name].published.folder
    own.mkdir(parents=True)
    for file, content in files.items():
        (own / file).write_bytes(content)
    return own


def check(data: sources.Dataset, arrays: dict[str, np.ndarray]) -> None:
    """Every image stands where the authors' code puts it, with its label."""
    held_out = random_split(
        range(SIZES["train"] + SIZES["val"]),
        [SIZES["train"], SIZES["val"]],
        generator=torch.Generator().manual_seed(42),
    )
    wanted = dict(zip(("train", "val"), ((part.indices, "train") for part in held_out), strict=True))
    wanted["test"] = (list(range(SIZES["test"])), "test")
    assert list(data.splits) == ["train", "val", "test"]
    for split, (places, part) in wanted.items():
        assert np.array_equal(data.splits[split].images.numpy(), arrays[part][places])
        assert data.splits[split].labels.tolist() == arrays[f"{part} labels"][places].tolist()
        assert data.splits[split].images.dtype == torch.uint8
        assert data.splits[split].labels.dtype == torch.int64


@pytest.mark.parametrize("tiny", IDX + CIFAR, indirect=True)
def test_files_in_the_data_folder_are_used_and_split_as_the_authors_do(tiny, tmp_path):
    name, arrays, files = tiny
    put(tmp_path, name, files)
    check(sources.load(name, tmp_path), arrays)


@pytest.mark.parametrize("tiny", ["mnist", "cifar-10"], indirect=True)
def test_a_harmed_file_is_named(tiny, tmp_path):
    name, _, files = tiny
    own, last = put(tmp_path, name, files), list(files)[-1]
    (own / last).write_bytes(b"not it")
    with pytest.raises(DataUnavailableError, match=rf"^{name}: .*{last} is not the published file"):
        sources.load(name, tmp_path)


@pytest.mark.parametrize("tiny", IDX + CIFAR, indirect=True)
def test_a_download_that_fails_says_where_to_put_which_files(tiny, tmp_path):
    name, _, files = tiny
    first, *others = files
    own = put(tmp_path, name, {first: files[first]})
    with pytest.raises(DataUnavailableError) as caught:
        sources.load(name, tmp_path)
    told = str(caught.value)
    assert f"put {', '.join(others)} into {own}" in told
    assert (f"{name}-python.tar.gz into {tmp_path}" in told) == (name in CIFAR)


@pytest.mark.parametrize("tiny", ["cifar-100"], indirect=True)
def test_an_archive_in_the_data_folder_needs_no_network(tiny, tmp_path):
    name, arrays, files = tiny
    published = sources.SOURCES[name].published
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(archived(published.folder, files))
    published = replace(published, archive_md5=md5((tmp_path / "cifar-100-python.tar.gz").read_bytes()))
    sources.SOURCES[name] = replace(sources.SOURCES[name], published=published)
    check(sources.load(name, tmp_path), arrays)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("packed", [False, True], ids=["files", "archive"])
def test_what_is_missing_is_downloaded_once(packed, tmp_path):
    files = {"a": b"first", "b": b"second"}
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    contents = {"set.tar.gz": archived("set", files)} if packed else files
    for file, content in contents.items():
        (there / file).write_bytes(content)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=there)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        published = Published(
            folder="set",
            files={file: md5(content) for file, content in files.items()},
            url=f"http://127.0.0.1:{server.server_port}/" + ("set.tar.gz" if packed else ""),
            archive_md5=md5(contents["set.tar.gz"]) if packed else "",
        )
        assert list(published.contents("set", here)) == [b"first", b"second"]
        server.shutdown()
    assert list(published.contents("set", here)) == [b"first", b"second"]
    assert sorted(p.name for p in (here / "set").iterdir()) == ["a", "b"]


class Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit",)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused():
    with pytest.raises(pickle.UnpicklingError, match=r"asks for \w+\.system; accepted: numpy"):
        cifar.read([pickle.dumps(Command(), protocol=2)], labels="labels")


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_each_channel_is_normalised_by_its_own_numbers(lead):
    """ImageNet's mean and standard deviation, as the authors' code for CIFAR-10 has them."""
    images = torch.randint(0, 256, (*lead, 3, 32, 32), dtype=torch.uint8)
    data = sources.Dataset(
        sources.SOURCES["cifar-10"], {"train": sources.Split(images, torch.zeros(1, dtype=torch.int64))}
    )
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (images[..., channel, :, :].double() / 255 - mean) / std
        torch.testing.assert_close(
            data.normalise(images)[..., channel, :, :].double(), expected, rtol=0, atol=2e-6
        )


def published_statistics(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of the published training images, to four digits."""
    return {
        "mnist": ([0.1307], [0.3081]),
        "fashion-mnist": ([0.2860], [0.3530]),
        "cifar-10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "cifar-100": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", IDX + CIFAR)
def test_the_published_files_hold_what_is_known_of_them(name):
    source, folder = sources.SOURCES[name], Path(os.environ.get("SYMLAB_TEST_DATA", "lab/data"))
    if source.published.missing(folder):
        pytest.skip(f"reads {name}'s published files: not in lab/data, nor where $SYMLAB_TEST_DATA points")
    data = sources.load(name, folder)
    assert {split: len(part) for split, part in data.splits.items()} == source.sizes
    training = [data.splits["train"], data.splits["val"]]
    images = torch.cat([part.images for part in training]).view(
        -1, len(source.mean), 32 * 32 if name in CIFAR else 28 * 28
    )
    levels = torch.arange(256) / source.full_scale
    for channel, (mean, std) in enumerate(zip(*published_statistics(name), strict=True)):
        share = images[:, channel].flatten().bincount(minlength=256) / images[:, channel].numel()
        assert (share @ levels).item() == pytest.approx(mean, abs=1e-4)
        assert (share @ (levels - mean).square()).sqrt().item() == pytest.approx(std, abs=1e-4)
    counts = (
        torch.cat([part.labels for part in training]).bincount(),
        data.splits["test"].labels.bincount(),
    )
    assert all(len(count) == source.classes for count in counts)
    if name != "mnist":
        assert all((count == count[0]).all() for count in counts)


def test_a_tenth_of_noisy_digits_has_another_label():
    """Of those to train; they are the first of those that `digits` trains on, and labels to test are right."""
    plain, noisy = (sources.load(name, Path()) for name in ("digits", "digits-noisy"))
    assert {name: len(split) for name, split in noisy.splits.items()} == noisy.source.sizes
    train, whole = noisy.splits["train"], plain.splits["train"]
    assert torch.equal(train.images, whole.images[:900])
    assert int((train.labels != whole.labels[:900]).sum()) == 90
    assert torch.equal(noisy.splits["test"].labels[:400], whole.labels[900:])
    assert torch.equal(noisy.splits["test"].labels[400:], plain.splits["test"].labels)
    assert set(train.labels.tolist()) == set(range(10))
