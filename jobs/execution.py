"""Carries out one run in this process and says how it ended; the worker and the offline study both do it here."""

from __future__ import annotations

import errno
import json
import math
import time
import traceback
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, ValidationError

from jobs.environment import environment
from jobs.files import write_whole
from jobs.job import Job
from jobs.registry import kind_of
from jobs.specs import RunSpec, canonical_json
from symcore.checkpoints import StoppedError
from symcore.settings import Settings


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
    known = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))] if gpu else []
    if wanted not in {"cpu", *known}:
        accepted = ", ".join(["auto", "cpu", *known]) + ("" if gpu else "; this machine has no CUDA device")
        msg = f"device: {wanted!r}; accepted: {accepted}"
        raise ValueError(msg)
    return wanted


def carry_out(spec: RunSpec, job: Job, attempt: int = 1) -> Outcome:
    """Executes a spec and leaves spec.json, environment.json and outcome.json in the job's folder.

    Where the disk takes no outcome.json, the outcome that is returned says so, for whoever can still be told.
    """
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
    return leave(outcome, job)


def refuse(error: ValidationError, job: Job, attempt: int) -> Outcome:
    """Leaves the outcome of a run whose spec is not accepted."""
    lines = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
    return leave(Outcome(state="failed", error="; ".join(lines), batches=0, attempt=attempt), job)


def leave(outcome: Outcome, job: Job) -> Outcome:
    """Writes an outcome down, as far as the disk takes it; a run whose end cannot be written has failed."""
    try:
        outcome.write(job.folder)
    except OSError as error:
        outcome = outcome.model_copy(update={"state": "failed", "error": _in_one_line(error, job)})
    said = f": {outcome.error}" if outcome.error else ""
    job.log(f"{outcome.state} after {outcome.seconds:.1f} s{said}")
    return outcome


def _in_one_line(error: Exception, job: Job) -> str:
    """What went wrong. safetensors says "os error" and its number where Python has an OSError."""
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    if full or f"(os error {errno.ENOSPC})" in str(error):
        return f"the disk of {job.folder} is full: make room there, then resume"
    return " ".join(f"{type(error).__name__}: {error}".split())


Ending = tuple[Literal["done", "failed", "cancelled", "interrupted"], dict[str, float], str]


def _execute(spec: RunSpec, job: Job) -> Ending:
    kind = kind_of(spec)
    try:
        if (
            ":" in job.device
        ):  # kernels and graphs are launched on the current device, wherever their tensors are
            torch.cuda.set_device(job.device)
        write_whole(job.folder / "spec.json", canonical_json(spec))
        write_whole(job.folder / "environment.json", json.dumps(environment(job.device), indent=1))
        job.log(f"{kind.title(spec)} ({job.device}, {torch.get_num_threads()} threads)")
        return "done", kind.execute(spec, job), ""
    except StoppedError as stopped:
        job.log(str(stopped))
        return job.stop_reason or "interrupted", {}, ""
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a run is its outcome
        job.log(traceback.format_exc())
        return "failed", {}, _in_one_line(error, job)
