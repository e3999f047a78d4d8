"""A lab whose workers are played by the test: processes that do what they are told, when they are told."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jobs.execution import Outcome
from jobs.executors import Slot
from jobs.kinds import train
from jobs.records import METRIC, encode
from jobs.registry import tables
from jobs.service import Service
from jobs.spool import Spool
from jobs.studies import lmc
from jobs.worker import Assignment
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard

STUDY = lmc.Spec(
    network=MLPSpec(width=8, depth=1),
    training=TrainingSpec(epochs=2),
    pairs=1,
    block=1,
    treatments=("standard", "rebasin"),
)
"""Four runs: a train run that an align run and a path read, and a path that reads both."""
TRAIN = train.Spec(
    data="digits",
    network=MLPSpec(width=8, depth=1),
    treatment=Standard(),
    training=TrainingSpec(epochs=2),
    seeds=(0, 1),
)


def metric_batch(step: int, value: float = 0.5, members: int = 2) -> bytes:
    """One batch of a metric, as a worker encodes it."""
    columns = {
        "member": np.arange(members, dtype=np.int32),
        "name": ["train/loss"] * members,
        "step": np.full(members, step),
        "value": np.full(members, value),
    }
    return encode("metric", METRIC, columns)


@dataclass
class FakeProcess:
    """A worker; `obeys` says whether it ends when asked to."""

    folder: Path
    attempt: int
    pid: int
    obeys: bool = True
    running: bool = True
    killed: bool = False

    def alive(self) -> bool:
        return self.running

    def terminate(self) -> None:
        if self.obeys and self.running:
            self.end("interrupted")

    def kill(self) -> None:
        self.killed = self.killed or self.running
        self.running = False

    def record(self, *payloads: bytes) -> None:
        """Write batches to the spool, as a worker does before it tells anybody."""
        with Spool(self.folder / "records.spool") as spool:
            for payload in payloads:
                spool.append(payload)

    def end(
        self, state: str = "done", *, error: str = "", summary: dict[str, float | None] | None = None
    ) -> None:
        """Leave an outcome and exit."""
        self.folder.mkdir(exist_ok=True)
        with Spool(self.folder / "records.spool") as spool:
            batches = spool.count
        outcome = {
            "state": state,
            "summary": summary or {},
            "error": error,
            "batches": batches,
            "attempt": self.attempt,
        }
        Outcome.model_validate(outcome | {"seconds": 1.0}).write(self.folder)
        self.running = False


@dataclass
class FakeExecutor:
    """Starts fake processes and remembers them by run."""

    count: int = 2
    obeys: bool = True
    started: list[FakeProcess] = field(default_factory=list)
    adoptable: bool = True
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def slots(self) -> list[Slot]:
        return [Slot("cpu", 1)] * self.count

    def warm(self) -> None:
        pass

    def ready(self) -> bool:
        return True

    def start(self, folder: Path, attempt: int) -> FakeProcess:
        assert Assignment.read(folder).attempt == attempt
        self.started.append(FakeProcess(folder, attempt, next(self.pids), self.obeys))
        return self.started[-1]

    def adopt(self, folder: Path, attempt: int) -> FakeProcess | None:
        if not self.adoptable:
            return None
        return next(
            (p for p in self.started if (p.folder, p.attempt) == (folder, attempt) and p.running), None
        )

    def of(self, run: str) -> FakeProcess:
        """The last process of a run."""
        return next(process for process in reversed(self.started) if process.folder.name == run)

    def working(self) -> list[str]:
        """Runs that have a live process."""
        return [process.folder.name for process in self.started if process.running]


def eventually(truth: Callable[[], object], what: str = "", seconds: float = 10.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, what or "it did not become true"
        time.sleep(0.01)


def state(lab: Service, run: str) -> str:
    """A run's state as the database holds it."""
    [found] = lab.store.read("SELECT state FROM run_state WHERE run = $run", {"run": run})[
        "state"
    ].to_pylist()
    return str(found)


def roles(lab: Service, study: str) -> dict[str, str]:
    """Run ids of a study by role."""
    rows = lab.store.read(
        "SELECT role, run FROM study_run WHERE study = $study", {"study": study}
    ).to_pylist()
    return {row["role"]: row["run"] for row in rows}


def finish(lab: Service, executor: FakeExecutor, study: str) -> None:
    """Play all workers of a study to a good end."""
    runs = list(roles(lab, study).values())

    def step() -> bool:
        for run in set(executor.working()) & set(runs):
            process = executor.of(run)
            process.record(metric_batch(1))
            process.end(summary={"test/loss": 0.25})
        return all(state(lab, run) == "done" for run in runs)

    eventually(step, "the study did not end")


assert "metric" in tables()
