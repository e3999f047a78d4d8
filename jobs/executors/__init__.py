"""Where workers run: what the dispatcher asks of an executor, whichever machine it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Slot:
    """Room for one run: a device, and the CPU threads that go with it."""

    device: str
    threads: int


class WorkerProcess(Protocol):
    """A worker that was started or found again."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def terminate(self) -> None:
        """Ask it to write a checkpoint and end."""
        ...

    def kill(self) -> None:
        """End it and all that it started."""
        ...


class Executor(Protocol):
    """Starts workers and finds those of an earlier server."""

    def slots(self) -> list[Slot]:
        """How many runs fit at once, and on what."""
        ...

    def warm(self) -> None:
        """Begin to prepare for the first start, without waiting."""
        ...

    def ready(self) -> bool:
        """Whether a start would not have to wait."""
        ...

    def start(self, folder: Path, attempt: int) -> WorkerProcess:
        """Start the worker that a run folder's `assignment.json` describes.

        Raises:
            OSError: No process could be started.
        """
        ...

    def adopt(self, folder: Path, attempt: int) -> WorkerProcess | None:
        """The living worker of this attempt at a run, if there is one."""
        ...
