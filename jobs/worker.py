"""The worker: a process that carries out one run, writes its records to its own spool, and reports to the server.

`main` is what the fork server runs. `python -m jobs.worker --offline SPEC OUT` carries out a whole study without one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, ValidationError

from jobs import registry
from jobs.execution import carry_out, refuse
from jobs.files import write_whole
from jobs.job import Job
from jobs.reporting import Reporter, Server
from jobs.spool import Spool, SpoolBusyError
from symcore.settings import Settings

FLUSH_SECONDS = 10.0
"""How long a finished worker tries to hand over before it leaves the rest to its files."""
BUSY_SECONDS = 10.0
"""How long it waits for the last attempt's process to be gone."""


class Assignment(Settings):
    """What a worker is told; a file in the run's folder that only its owner can read, for it holds a token."""

    run: str
    """The run's id."""
    attempt: int = Field(ge=1)
    """Counts the starts of this run."""
    spec: dict[str, Any]
    """The run spec."""
    run_folder: Path
    """Where everything that the run makes is put."""
    inputs: dict[str, Path] = Field(default_factory=dict)
    """Folders of the upstream runs by spec hash."""
    device: str = "cpu"
    """Device to compute on, by torch's name for it."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of the computation."""
    address_file: Path
    """The lab's server.json."""
    token: str
    """Lets this attempt of this run report, and nothing else."""
    data_folder: Path
    """Where data sets are."""

    def write(self) -> Path:
        """Puts the assignment into the run's folder."""
        path = self.run_folder / "assignment.json"
        write_whole(path, self.model_dump_json(), mode=0o600)
        return path

    @classmethod
    def read(cls, run_folder: Path) -> Self:
        """The assignment in a run's folder.

        Raises:
            FileNotFoundError: if there is none.
            ValidationError: if it is not one.
        """
        return cls.model_validate_json((run_folder / "assignment.json").read_text(encoding="utf-8"))


def main(assignment: Assignment) -> None:
    """Carries out the assignment and leaves; meant to be a process's whole life.

    It leads a session of its own, so that a terminal's Ctrl-C and hang-up do not reach it. SIGTERM makes it save a
    checkpoint and leave with the outcome "interrupted".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getpid() != os.getsid(0):
        os.setsid()
    _log_to(assignment.run_folder / "log.txt")
    torch.set_num_threads(assignment.threads)
    spool = _take_over(assignment.run_folder / "records.spool")
    job = Job(
        assignment.run_folder,
        spool,
        registry.tables(),
        device=assignment.device,
        data_folder=assignment.data_folder,
        inputs=assignment.inputs,
    )
    signal.signal(signal.SIGTERM, lambda _signal, _frame: job.stop("interrupted"))
    server = Server(assignment.address_file, assignment.run, assignment.attempt, assignment.token)
    reporter = Reporter(job, spool, server, disown=_leave)
    reporter.start()
    try:
        spec = registry.run_spec(assignment.spec)
    except ValidationError as error:  # queued by another version of the lab
        outcome = refuse(error, job, assignment.attempt)
    else:
        outcome = carry_out(spec, job, assignment.attempt)
    reporter.finish(outcome, FLUSH_SECONDS)


def _log_to(path: Path) -> None:
    """Sends everything that is printed, by C code too, to the run's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _take_over(path: Path) -> Spool:
    """Opens the spool once the last attempt's process has let go of it.

    Raises:
        SpoolBusyError: if it does not.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return Spool(path)
        except SpoolBusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _leave() -> None:
    """Ends the process at once, as if killed: another attempt may own the folder, so nothing more is written."""
    os._exit(0)


if __name__ == "__main__":
    from jobs.offline import command

    sys.exit(command(sys.argv[1:]))
