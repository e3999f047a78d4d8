"""Downloads that can be stopped, cut off and gone on with: what came stays in NAME.part until the file is whole and right."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests

from symcore.data.published import OnBytes

CHUNK = 2**16
"""Bytes between two calls of `OnBytes`; of a chunk that breaks off nothing is kept."""
TRIES = 4
"""In a row that bring nothing new before a download is given up."""
PAUSE = 0.5
"""Seconds before the second try; twice as long before each later one."""
LOOK_SECONDS = 0.1
"""How often `OnBytes` is called where no bytes come: between tries, and while another process downloads."""
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as broken."""

BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""What may go better the next time."""


class DownloadError(Exception):
    """A file could not be downloaded; the message says why in a few words."""


class _BrokenOffError(Exception):
    """The server ended before the file did, or is busy."""


def fetch(url: str, folder: Path, md5: str, on_bytes: OnBytes) -> Path:
    """The file of that address in the folder, downloaded unless it is there already.

    Args:
        url: ends in the file's name.
        folder: created where it is missing.
        md5: of the whole file; empty where none is known.
        on_bytes: see `OnBytes`.

    Raises:
        DownloadError: if it cannot be had; what came of it stays, unless the checksum of the whole is wrong.
        OSError: if the folder cannot be written.
    """
    name = url.rpartition("/")[2]
    part = folder / f"{name}.part"
    known = f"md5:{md5}" if md5 else None
    try:
        path = pooch.retrieve(
            url, known_hash=known, fname=name, path=folder, downloader=_Resuming(part, on_bytes)
        )
    except requests.RequestException as error:
        raise DownloadError(_why(error)) from error
    except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
        msg = f"what came is not the published file (its MD5 should be {md5}), and was removed"
        raise DownloadError(msg) from error
    return Path(path)


@contextmanager
def alone(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes from downloading to the same place meanwhile.

    Args:
        place: a folder; the lock is an empty file beside it, which stays.
        waiting: called now and then while another process is at it; what it raises ends the wait.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{place.name}.lock").open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                time.sleep(LOOK_SECONDS)
            else:
                break
        yield


@dataclass
class _Resuming:
    """Pooch's downloader: goes on with the part of the file that is here, and tries again where the connection breaks."""

    part: Path
    on_bytes: OnBytes
    total: int = 0
    """Bytes of the whole file, as far as the server has said."""

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:  # noqa: ANN401, ARG002 - pooch's protocol
        """Leaves the whole file at `output_file`, unchecked.

        Raises:
            DownloadError: if too many tries in a row brought nothing.
            requests.RequestException: if the server has no such file, say.
        """
        Path(output_file).unlink()  # pooch's own empty file, which a killed process would leave behind
        most, vain = self._here, 0
        while True:
            try:
                self._receive(url)
                break
            except (*BROKEN, _BrokenOffError) as error:
                vain = 1 if self._here > most else vain + 1
                most = max(most, self._here)
                if vain == TRIES:
                    raise DownloadError(_why(error)) from error
                self._pause(PAUSE * 2 ** (vain - 1))
        self.part.replace(output_file)

    @property
    def _here(self) -> int:
        """Bytes that came so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _say(self, here: int) -> None:
        self.on_bytes(self.part.stem, here, self.total)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._say(self._here)
            time.sleep(LOOK_SECONDS)

    def _receive(self, url: str) -> None:
        """One try at what is missing; all of it where the server knows no ranges.

        Raises:
            _BrokenOffError: if the file is not whole after it.
        """
        here = self._here
        # The checksums are those of the files as they are stored, so that nothing may be packed for the way.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={here}-"} if here else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._check_whole(here, _span(response)[1])
                return
            if response.status_code >= 500 or response.status_code == requests.codes.too_many_requests:
                msg = f"the server answered {response.status_code} {response.reason}"
                raise _BrokenOffError(msg)
            response.raise_for_status()
            first, self.total = _span(response)
            if first not in {0, here}:
                msg = f"asked for bytes from {here} on, got them from {first} on"
                raise _BrokenOffError(msg)
            self._write(first, response.iter_content(CHUNK))

    def _check_whole(self, here: int, total: int) -> None:
        """Where nothing follows what is here, that is the file, or else a part of another, which goes."""
        if here != total:
            self.part.unlink()
            msg = f"{here} bytes of it were here, and it has {total}"
            raise _BrokenOffError(msg)

    def _write(self, here: int, chunks: Iterable[bytes]) -> None:
        """Puts what comes behind the first bytes that are here."""
        with self.part.open("ab") as file:
            file.truncate(here)
            self._say(here)
            for chunk in chunks:
                file.write(chunk)
                here += len(chunk)
                self._say(here)
        if self.total and here != self.total:
            msg = f"the connection ended after {here} of {self.total} bytes"
            raise _BrokenOffError(msg)


def _span(response: requests.Response) -> tuple[int, int]:
    """Where in the file an answer begins, and how many bytes the whole file has, 0 where it does not say."""
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if told:
        return int(told[1] or 0), 0 if told[2] == "*" else int(told[2])
    return 0, int(response.headers.get("Content-Length", 0))


def _why(error: Exception) -> str:
    """What went wrong in few words: those of requests come with addresses of objects in memory."""
    if isinstance(error, requests.HTTPError | _BrokenOffError):
        return str(error)
    if isinstance(error, requests.Timeout):
        return f"no answer for {TIMEOUT:g} s"
    return f"no connection: {type(error).__name__}"
