"""Carries out one run in this process and says how it ended; the worker and the offline study both do it here."""

from __future__ import annotations

import json
import math
import time
import traceback
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field

from jobs.environment import environment
from jobs.files import write_whole
from jobs.job import Job
from jobs.registry import kind_of
from jobs.specs import RunSpec, canonical_json
from symcore.settings import Settings
from symcore.training import StoppedError


class Outcome(Settings):
    """How a run ended, left as outcome.json in its folder whether a server is there or not."""

    state: Literal["done", "failed", "cancelled", "interrupted"]
    """Interrupted: it was told to end and left a checkpoint to go on from."""
    summary: dict[str, float | None] = Field(default_factory=dict)
    """Headline numbers of a run that is done; none where a number is not finite."""
    error: str = ""
    """One line on why it failed; the traceback is in the log."""
    batches: int
    """Batches of records that it made."""
    attempt: int = 1
    """The attempt that ended so."""
    seconds: float = 0.0
    """Wall time of this attempt."""

    FILE: ClassVar[str] = "outcome.json"

    def write(self, folder: Path) -> None:
        """Leaves the outcome in the run's folder."""
        write_whole(folder / self.FILE, self.model_dump_json())

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The outcome in a run's folder, if there is one."""
        path = folder / cls.FILE
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def resolve_device(wanted: str) -> str:
    """A device by torch's name for it; "auto" takes a GPU where there is one.

    Raises:
        ValueError: if the device is not there.
    """
    gpu = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if gpu else "cpu"
    if wanted != "cpu" and not (gpu and wanted.partition(":")[0] == "cuda"):
        accepted = "auto, cpu" + (", cuda, cuda:0 and so on" if gpu else "; this machine has no CUDA device")
        msg = f"device: {wanted!r}; accepted: {accepted}"
        raise ValueError(msg)
    return wanted


def carry_out(spec: RunSpec, job: Job, attempt: int = 1) -> Outcome:
    """Executes a spec and leaves spec.json, environment.json and outcome.json in the job's folder."""
    (job.folder / Outcome.FILE).unlink(missing_ok=True)
    started = time.monotonic()
    state, summary, error = _execute(spec, job)
    outcome = Outcome(
        state=state,
        summary={name: value if math.isfinite(value) else None for name, value in summary.items()},
        error=error,
        batches=job.sequence,
        attempt=attempt,
        seconds=round(time.monotonic() - started, 3),
    )
    job.log(f"{outcome.state} after {outcome.seconds:.1f} s" + (f": {error}" if error else ""))
    outcome.write(job.folder)
    return outcome


Ending = tuple[Literal["done", "failed", "cancelled", "interrupted"], dict[str, float], str]


def _execute(spec: RunSpec, job: Job) -> Ending:
    kind = kind_of(spec)
    try:
        write_whole(job.folder / "spec.json", canonical_json(spec))
        write_whole(job.folder / "environment.json", json.dumps(environment(job.device), indent=1))
        job.log(f"{kind.title(spec)} ({job.device}, {torch.get_num_threads()} threads)")
        return "done", kind.execute(spec, job), ""
    except StoppedError as stopped:
        job.log(str(stopped))
        return job.stop_reason or "interrupted", {}, ""
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a run is its outcome
        job.log(traceback.format_exc())
        return "failed", {}, f"{type(error).__name__}: {error}"
