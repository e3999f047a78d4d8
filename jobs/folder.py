"""A lab's folder: where everything in it is, and the lock that makes one process its owner."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from jobs.files import write_whole

LOOK_SECONDS = 0.2
"""How long those who only look whether a folder is owned may at most stand in the way of its next owner."""


class LabUnusableError(Exception):
    """A lab folder cannot be served; the message is one clear line that says why and what to do."""


@dataclass(frozen=True)
class LabFolder:
    """Paths in a lab folder."""

    path: Path

    @classmethod
    def find(cls, path: str | Path | None = None) -> Self:
        """The lab folder of this name, else of `$SYMLAB_LAB`, else `./lab`."""
        return cls(Path(path or os.environ.get("SYMLAB_LAB") or "lab").expanduser().resolve())

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.path / "lab.duckdb"

    @property
    def address_file(self) -> Path:
        """Says where the running server listens."""
        return self.path / "server.json"

    @property
    def secret(self) -> Path:
        """Holds the lab's token; only its owner can read it."""
        return self.path / "secret"

    @property
    def log(self) -> Path:
        """What a server says that was started for somebody else."""
        return self.path / "server.log"

    @property
    def runs(self) -> Path:
        """Folder of the runs' folders."""
        return self.path / "runs"

    @property
    def data(self) -> Path:
        """Folder of data sets: `$SYMLAB_DATA`, else one in the lab."""
        return Path(os.environ.get("SYMLAB_DATA") or self.path / "data").expanduser().resolve()

    def server(self) -> dict[str, Any] | None:
        """What the last server announced: address, pid, started; none when there is no (whole) announcement."""
        try:
            found: dict[str, Any] = json.loads(self.address_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found

    def announce(self, address: str, started: str) -> None:
        """Say where this process serves the lab."""
        content = json.dumps({"address": address, "pid": os.getpid(), "started": started})
        write_whole(self.address_file, content, mode=0o600)

    def inside(self, run: str, name: str) -> Path | None:
        """A file of a run by its recorded path; none when that is no file or leads out of the run's folder."""
        folder = self.runs / run
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None

    def owned(self) -> bool:
        """Whether a living process owns the folder."""
        try:
            with (self.path / "lock").open("rb") as lock:
                # A shared lock, so that those who only look do not take each other for the owner.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def own(self) -> BinaryIO:
        """Create the folder where it is missing and become its owner until the answer is closed or the process ends.

        Raises:
            LabUnusableError: Another process owns the folder, or it cannot be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.runs.mkdir(mode=0o700, exist_ok=True)
            lock = (self.path / "lock").open("a+b")
        except OSError as error:
            message = f"lab folder {self.path} cannot be used: {error.strerror}"
            raise LabUnusableError(message) from error
        try:
            _lock(lock)
        except BlockingIOError as error:
            lock.close()
            server = self.server()
            where = f" at {server['address']} (process {server['pid']})" if server else ""
            message = f"lab folder {self.path} is already served by another process{where}: use that one, or name another"
            raise LabUnusableError(message) from error
        return lock

    def retract(self) -> None:
        """Take back this process's announcement."""
        server = self.server()
        if server is not None and server["pid"] == os.getpid():
            with suppress(FileNotFoundError):
                self.address_file.unlink()


def _lock(file: BinaryIO) -> None:
    """Take a lock for oneself.

    Raises:
        BlockingIOError: Another process keeps it.
    """
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
