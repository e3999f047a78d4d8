"""The state of a run's work in a file of its folder: written now and then and at a stop, taken up by the next attempt."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

from safetensors import SafetensorError, safe_open
from torch import Tensor

from jobs.job import Job, RecordsLostError
from symcore.checkpoints import Keeper, write_tensors

SHARE = 0.05
"""Of the time, that writing checkpoints may take: large states are written less often."""


def checkpoint_seconds() -> float:
    """Time between checkpoints: `$SYMLAB_CHECKPOINT_SECONDS`, else 20.

    Raises:
        ValueError: if the variable holds something else than a positive number.
    """
    given = os.environ.get("SYMLAB_CHECKPOINT_SECONDS", "20")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        msg = f"SYMLAB_CHECKPOINT_SECONDS: {given!r}; accepted: a number above 0"
        raise ValueError(msg)
    return seconds


class Checkpoint(Keeper):
    """A file that holds the state of work, and how many batches of records were there before it."""

    def __init__(self, job: Job, name: str = "checkpoint") -> None:
        """Reads nothing yet.

        Raises:
            ValueError: see `checkpoint_seconds`.
        """
        self._job, self._name = job, name
        self._path = job.folder / f"{name}.safetensors"
        self._pause, self._saved = checkpoint_seconds(), time.monotonic()

    def kept(self) -> dict[str, Tensor]:
        """The state in the file, whose records the job then counts; empty if there is none that can be gone on from."""
        if not self._path.exists():
            return {}
        try:
            with safe_open(self._path, framework="pt") as file:
                mark = int(file.metadata()["mark"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            if mark < self._job.sequence:  # of work whose results are recorded
                return {}
            self._job.rewind(mark)
        except (SafetensorError, OSError, RecordsLostError) as error:
            self._job.log(f"the checkpoint cannot be gone on from ({error}); what it was of begins again")
            return {}
        self._job.log(f"going on from the checkpoint after {mark} batches of records")
        return state

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Writes a state; the records before it are on the disk, and a crash leaves the old file whole."""
        began = time.monotonic()
        write_tensors(self._path, state, {"mark": str(self._job.mark())})
        self._saved = time.monotonic()
        self._pause = max(checkpoint_seconds(), (self._saved - began) / SHARE)

    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._saved > self._pause

    def part(self, name: str) -> Checkpoint:
        """The file of a part."""
        return Checkpoint(self._job, f"{self._name}-{name}")

    def drop(self) -> None:
        """Removes the file, and those of its parts."""
        for path in self._job.folder.glob(f"{self._name}*.safetensors"):
            path.unlink()
