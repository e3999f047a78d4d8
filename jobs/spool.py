"""A run's records as an append-only file of numbered, checksummed frames that survives being killed at any byte.

A frame is `[u32 length][u32 CRC-32 of the payload][payload]`, little-endian; its sequence number is its place in the
file. The same frames, back to back, are the body of a worker's request, and the file is what an import reads.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

HEADER = struct.Struct("<II")
LARGEST = 64 * 2**20
"""Bytes of the largest payload; a longer length in a header can only be damage."""


class FrameError(ValueError):
    """Bytes that are not whole frames, in a request's body."""


class SpoolBusyError(Exception):
    """Another process has the spool open for appending."""


def frame(payload: bytes) -> bytes:
    """One frame around a payload.

    Raises:
        ValueError: if the payload is empty or larger than `LARGEST`.
    """
    if not 0 < len(payload) <= LARGEST:
        msg = f"payload: {len(payload)} bytes; accepted: 1 to {LARGEST}"
        raise ValueError(msg)
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def frames(stream: BinaryIO) -> Iterator[bytes]:
    """Payloads of the whole frames at the head of a stream; ends at the first torn or damaged one."""
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        length, checksum = HEADER.unpack(header)
        if not 0 < length <= LARGEST:
            return
        payload = stream.read(length)
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload


def unframe(body: bytes) -> list[bytes]:
    """Payloads of a request's body.

    Raises:
        FrameError: if anything but whole frames is in it; nothing of such a body may be stored.
    """
    payloads: list[bytes] = []
    at = 0
    while at < len(body):
        header = body[at : at + HEADER.size]
        length, checksum = HEADER.unpack(header) if len(header) == HEADER.size else (0, 0)
        payload = body[at + HEADER.size : at + HEADER.size + length]
        if not payload or len(payload) != length or zlib.crc32(payload) != checksum:
            msg = f"frame {len(payloads)} at byte {at} of {len(body)} is torn or damaged"
            raise FrameError(msg)
        payloads.append(payload)
        at += HEADER.size + length
    return payloads


def read(path: Path, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """Sequence number and payload of each whole frame from `first` on; changes nothing, a missing file is empty."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for sequence, payload in enumerate(frames(stream)):
            if sequence >= first:
                yield sequence, payload


class Spool:
    """The spool of one run, open for appending by its worker; another thread may read while it grows."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file and cuts off what a killed worker left half written.

        Raises:
            SpoolBusyError: if another process appends to it; the lock goes with its holder, however that ends.
        """
        self._path = path
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            msg = f"{path} is being written by another process"
            raise SpoolBusyError(msg) from error
        self._ends: list[int] = []
        end = 0
        for _, payload in read(path):
            end += HEADER.size + len(payload)
            self._ends.append(end)
        self._file.truncate(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def count(self) -> int:
        """Number of frames; the next one's sequence number."""
        return len(self._ends)

    def append(self, payload: bytes) -> int:
        """Adds a frame and returns its sequence number; once it returns, a killed process does not lose it.

        Raises:
            OSError: if the frame could not be written (disk full, say); the file is as it was.
        """
        data = frame(payload)
        end = self._ends[-1] if self._ends else 0
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            self._file.truncate(end)
            raise
        self._ends.append(end + len(data))
        return self.count - 1

    def sync(self) -> None:
        """Waits until all frames are on the disk, so that they survive a power cut too."""
        os.fsync(self._file.fileno())

    def payload(self, sequence: int) -> bytes:
        """The payload of one frame that is there."""
        start = (self._ends[sequence - 1] if sequence else 0) + HEADER.size
        with self._path.open("rb") as stream:
            stream.seek(start)
            return stream.read(self._ends[sequence] - start)

    def framed(self, first: int, limit: int) -> tuple[int, bytes]:
        """Frames from `first` on as they stand in the file, at most `limit` bytes but at least one if there is one.

        Returns their number and the bytes: the body of a worker's request.
        """
        ends = self._ends[: self.count]
        if first >= len(ends):
            return 0, b""
        start = ends[first - 1] if first else 0
        last = first
        while last + 1 < len(ends) and ends[last + 1] - start <= limit:
            last += 1
        with self._path.open("rb") as stream:
            stream.seek(start)
            return last + 1 - first, stream.read(ends[last] - start)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
