"""What the spool promises: whatever byte a worker dies at, whole frames stay, the torn one goes, numbers go on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import spool
from jobs.spool import FrameError, Spool, frame, unframe

payloads = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
on_disk = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.spool"


def write(path: Path, content: list[bytes]) -> list[int]:
    path.unlink(missing_ok=True)
    with Spool(path) as opened:
        return [opened.append(p) for p in content]


@on_disk
@given(content=payloads, more=payloads, data=st.data())
def test_a_file_cut_at_any_byte_keeps_its_whole_frames_and_goes_on(
    path: Path, content: list[bytes], more: list[bytes], data: st.DataObject
) -> None:
    assert write(path, content) == list(range(len(content)))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)), label="cut")
    path.write_bytes(whole[:cut])
    ends = [len(b"".join(map(frame, content[: n + 1]))) for n in range(len(content))]
    kept = sum(end <= cut for end in ends)
    with Spool(path) as opened:
        assert opened.count == kept
        assert [opened.append(p) for p in more] == list(range(kept, kept + len(more)))
    assert list(spool.read(path)) == list(enumerate(content[:kept] + more))
    assert path.read_bytes() == b"".join(map(frame, content[:kept] + more))


@on_disk
@given(content=payloads.filter(bool), data=st.data())
def test_no_damaged_payload_is_ever_read(path: Path, content: list[bytes], data: st.DataObject) -> None:
    write(path, content)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1), label="byte")
    damaged[at] ^= data.draw(st.integers(1, 255), label="flip")
    path.write_bytes(damaged)
    read = [payload for _, payload in spool.read(path)]
    assert read == content[: len(read)]
    assert len(read) < len(content)
    with pytest.raises(FrameError):
        unframe(bytes(damaged))


@on_disk
@given(content=payloads, first=st.integers(0, 9), limit=st.integers(1, 200))
def test_requests_of_any_size_carry_every_frame_once(
    path: Path, content: list[bytes], first: int, limit: int
) -> None:
    write(path, content)
    sent: list[bytes] = []
    with Spool(path) as opened:
        at = first
        while at < opened.count:
            count, body = opened.framed(at, limit)
            carried = unframe(body)
            assert len(carried) == count >= 1
            assert count == 1 or len(body) <= limit
            sent += carried
            at += count
        assert opened.framed(opened.count, limit) == (0, b"")
    assert sent == content[first:] == [payload for _, payload in spool.read(path, first)]


def test_a_full_disk_leaves_the_file_as_it_was(path: Path) -> None:
    class Full(io.RawIOBase):
        """Takes three bytes, then there is no space left."""

        def __init__(self, file: io.RawIOBase) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            self.file.write(data[:3])
            raise OSError(28, "No space left on device")

        def truncate(self, size: int | None = None) -> int:
            return self.file.truncate(size)

    with Spool(path) as opened:
        opened.append(b"kept")
        good = opened._file
        opened._file = Full(good)
        with pytest.raises(OSError, match="No space left"):
            opened.append(b"lost")
        opened._file = good
        assert opened.append(b"next") == 1
    assert [payload for _, payload in spool.read(path)] == [b"kept", b"next"]


def test_a_payload_must_have_bytes(path: Path) -> None:
    with Spool(path) as opened, pytest.raises(ValueError, match="payload: 0 bytes; accepted: 1 to"):
        opened.append(b"")
