"""The thread that gives queued runs to free slots, watches their workers, and settles how each attempt ended."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs import queries
from jobs.execution import Outcome
from jobs.executors import Executor, Slot, WorkerProcess
from jobs.job import Progress as Report
from jobs.ledger import Ledger
from jobs.ledger_rows import Move, Run
from jobs.pace import Pace, Progress
from jobs.settling import Known, left_outcome, progress_mark, settle, without_input
from jobs.states import ACTIVE, State
from jobs.store import StoreFailedError, first_line
from jobs.worker import Assignment

LOGGER = logging.getLogger("symlab.dispatcher")
Command = Literal["continue", "cancel", "stop"]
"""What a worker hears in answer to its heartbeat."""

TICK = 0.1
"""Seconds between looks at the workers."""
PATIENCE = 3
"""Leases of silence after which a worker that still lives is ended, so that its run goes on elsewhere."""


class StaleAttemptError(Exception):
    """A worker of an earlier attempt, which must stop."""


@dataclass(frozen=True)
class Place:
    """Where a lab keeps what workers need."""

    runs: Path
    """Folder of run folders."""
    data: Path
    """Folder of data sets."""
    address_file: Path
    """File that says where the server listens."""
    token: Callable[[str, int], str]
    """Token of a run's attempt."""


@dataclass
class Live:
    """A worker and what is known of it."""

    run: str
    attempt: int
    process: WorkerProcess
    slot: Slot | None
    """None for an adopted worker beyond the slots that there are now."""
    mark: object
    """Records and checkpoints when it started; compared when it dies."""
    pace: Pace = field(default_factory=Pace)
    asked: float | None = None
    """When it was asked to end, on the monotonic clock."""


class Dispatcher:
    """Queue, slots and workers. Public methods may be called from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        place: Place,
        executor: Executor,
        *,
        lease: float = 30.0,
        grace: float = 30.0,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing happens before `start`.

        Args:
            ledger: The runs.
            place: Where a lab keeps what workers need.
            executor: What starts workers.
            lease: Seconds without a word after which a worker counts as lost.
            grace: Seconds between asking a worker to end and killing it; `grace` may be lowered while waiting.
            on_failure: Called once when the store cannot be written any more; the dispatcher has ended then.
        """
        self.slots = executor.slots()
        self._ledger, self._place, self._executor = ledger, place, executor
        self._lease, self.grace = lease, grace
        self._on_failure = on_failure
        self._free = list(self.slots)
        self._live: dict[str, Live] = {}
        self._stopping = False
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="dispatcher", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and has looked at its workers lately."""
        return self._thread.is_alive() and time.monotonic() - self._looked < 30.0

    def start(self) -> None:
        """Take over the workers of an earlier server, settle those that ended meanwhile, and begin."""
        self._executor.warm()
        with self._ledger.lock:
            for run in [run for run in self._ledger.runs.values() if run.state in ACTIVE]:
                with self._contained(run.run):
                    self._adopt(run)
        self._thread.start()

    def stop(self) -> None:
        """Stop workers at a checkpoint, kill those that take longer than the grace, put their runs back in the queue."""
        with self._ledger.changed:
            self._stopping = True
            self._ledger.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        # Where the store has failed, the next start reads how they ended from their folders.
        with contextlib.suppress(StoreFailedError):
            self._end_all()

    def _end_all(self) -> None:
        """Ask all workers to end, kill those that do not, and settle what they leave."""
        for live in list(self._live.values()):
            with self._contained(live.run):
                live.process.terminate()
        asked = time.monotonic()
        while (
            any(not self._leaving(live) for live in self._live.values())
            and time.monotonic() - asked < self.grace
        ):
            time.sleep(0.02)
        for live in list(self._live.values()):
            with self._contained(live.run):
                live.process.kill()
        while any(live.process.alive() for live in self._live.values()):
            time.sleep(0.02)
        with self._ledger.lock:
            for live in list(self._live.values()):
                with self._contained(live.run):
                    self._end(live)

    def beat(self, run: str, attempt: int, report: Report | None = None) -> Command:
        """Note a sign of life of a worker and answer what it shall do.

        Raises:
            StaleAttemptError: Another attempt at the run has begun, or the run is over.
        """
        with self._ledger.lock:
            known, live = self._current(run, attempt)
            if live is not None:
                live.pace.heard(report)
            if known.state is State.LOST:
                self._ledger.move([Move(run, State.RUNNING, {"reason": "its worker was heard of again"})])
            if known.state is State.CANCELLING:
                return "cancel"
            return "stop" if self._stopping else "continue"

    def finish(self, run: str, attempt: int, outcome: Outcome) -> None:
        """Settle an attempt that its worker says has ended.

        Raises:
            StaleAttemptError: Another attempt at the run has begun, or the run was settled already.
        """
        with self._ledger.lock:
            known, live = self._current(run, attempt)
            self._settle(known, outcome, live)

    def progress(self, run: str) -> Progress | None:
        """How far a run with a worker is."""
        live = self._live.get(run)
        return live.pace.progress() if live else None

    def _current(self, run: str, attempt: int) -> tuple[Run, Live | None]:
        """The run that a worker speaks for, if it still may."""
        known = self._ledger.runs.get(run)
        if known is None or known.attempt != attempt or known.state not in ACTIVE:
            message = f"attempt {attempt} at run {run} is over"
            raise StaleAttemptError(message)
        return known, self._live.get(run)

    def _serve(self) -> None:
        """Look at workers and queue until asked to stop, or until the store fails."""
        while True:
            with self._ledger.changed:
                if self._stopping:
                    return
                try:
                    self._look()
                except StoreFailedError:
                    self._on_failure()
                    return
                self._looked = time.monotonic()
                self._ledger.changed.wait(TICK if self._live else 1.0)

    def _look(self) -> None:
        """One round: workers that ended or are silent, runs whose inputs failed, free slots."""
        if self._ledger.store.failure is not None:
            raise self._ledger.store.failure
        for live in list(self._live.values()):
            with self._contained(live.run):
                self._watch(live)
        waiting = self._waiting()
        if self._free and waiting and self._executor.ready():
            for run in self._order(waiting)[: len(self._free)]:
                with self._contained(run.run):
                    self._begin(run)

    @contextlib.contextmanager
    def _contained(self, run: str) -> Iterator[None]:
        """Makes an error that nobody expects the failure of one run, so that the others are served on."""
        try:
            yield
        except StoreFailedError:
            raise
        except Exception as error:
            LOGGER.exception("run %s cannot be looked after", run)
            live = self._live.get(run)
            if live is not None:
                self._release(live)
            state = self._ledger.runs[run].state
            if state in ACTIVE or (state is State.QUEUED and live is None):
                said = f"the server could not look after it: {type(error).__name__}: {first_line(error)}"
                self._ledger.move([Move(run, State.FAILED, {"error": said})])

    def _waiting(self) -> list[Run]:
        """Queued runs that may still get what they read.

        One that is queued again while its last worker has not exited waits until that worker's slot is back.
        """
        waiting = []
        for run in self._ledger.runs.values():
            if run.state is State.QUEUED and not run.deleted and run.run not in self._live:
                with self._contained(run.run):
                    if not self._give_up_without_input(run):
                        waiting.append(run)
        return waiting

    def _order(self, waiting: Sequence[Run]) -> list[Run]:
        """Runs that could start now: of the oldest study first, and of each those that most others wait for."""
        readers = Counter(source for run in waiting for source in run.inputs.values())
        startable = [run for run in waiting if self._inputs_done(run)]
        return sorted(startable, key=lambda run: (run.created, -readers[run.run]))

    def _watch(self, live: Live) -> None:
        """Settle a worker that ended; end one that was asked to; doubt one that is silent, and end it in the end."""
        now = time.monotonic()
        state = self._ledger.runs[live.run].state
        if not live.process.alive():
            self._end(live)
        elif live.asked is None and state is not State.RUNNING and state is not State.LOST:
            live.asked = now
            if state is State.CANCELLING:
                live.process.terminate()
        elif live.asked is not None and now - live.asked > self.grace:
            live.process.kill()
        elif live.asked is None and state is State.LOST and now - live.pace.seen > PATIENCE * self._lease:
            live.asked = now
            live.process.terminate()
        elif state is State.RUNNING and now - live.pace.seen > self._lease:
            error = f"no word from its worker (process {live.process.pid}) for {self._lease:.0f} s"
            self._ledger.move([Move(live.run, State.LOST, {"error": error})])

    def _begin(self, run: Run) -> None:
        """Give a queued run to a free slot."""
        slot = self._free[0]
        attempt = run.attempt + 1
        folder = self._place.runs / run.run
        threads = run.threads or slot.threads
        try:
            self._assign(run, attempt, slot.device, threads)
            mark = progress_mark(self._ledger.store, run.run, folder)
            self._ledger.move(
                [Move(run.run, State.RUNNING, {"device": slot.device, "threads": threads})], attempt=attempt
            )
            process = self._executor.start(folder, attempt)
        except OSError as error:
            self._ledger.move(
                [Move(run.run, State.FAILED, {"error": f"no worker could be started: {error}"})]
            )
            return
        self._live[run.run] = Live(run.run, attempt, process, self._free.pop(0), mark)

    def _assign(self, run: Run, attempt: int, device: str, threads: int) -> None:
        """Write what the worker must know into the run's folder, which only its owner can read."""
        folder = self._place.runs / run.run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in ("outcome.json", "worker.json"):
            (folder / leftover).unlink(missing_ok=True)
        Assignment(
            run=run.run,
            attempt=attempt,
            spec=queries.run(self._ledger.store, run.run)["spec"],
            run_folder=folder,
            inputs={key: self._place.runs / source for key, source in run.inputs.items()},
            device=device,
            threads=threads,
            address_file=self._place.address_file,
            token=self._place.token(run.run, attempt),
            data_folder=self._place.data,
        ).write()

    def _adopt(self, run: Run) -> None:
        """Take over a worker of an earlier server, or settle how its attempt ended."""
        folder = self._place.runs / run.run
        process = self._executor.adopt(folder, run.attempt)
        if process is None:
            self._settle(run, left_outcome(folder), None)
            return
        device = queries.run(self._ledger.store, run.run)["device"]
        slot = next((slot for slot in self._free if slot.device == device), None)
        if slot is not None:
            self._free.remove(slot)
        mark = progress_mark(self._ledger.store, run.run, folder)
        self._live[run.run] = Live(run.run, run.attempt, process, slot, mark)

    def _end(self, live: Live) -> None:
        """Settle an attempt whose process is gone, and free its slot."""
        run = self._ledger.runs[live.run]
        if run.state in ACTIVE and run.attempt == live.attempt:
            self._settle(run, left_outcome(self._place.runs / run.run), live)
        self._release(live)

    def _release(self, live: Live) -> None:
        """Forget a worker and give its slot back."""
        del self._live[live.run]
        if live.slot is not None:
            self._free.append(live.slot)

    def _settle(self, run: Run, outcome: Outcome | None, live: Live | None) -> None:
        """Store what an attempt left behind and take the run to its next state."""
        folder = self._place.runs / run.run
        if outcome is not None and outcome.attempt != run.attempt:
            outcome = None
        known = Known(live.mark if live else None, self._stopping, live.process.pid if live else None)
        moves = settle(self._ledger.store, run, folder, outcome, known)
        self._ledger.move(moves)
        last = moves[-1]
        if last.state is State.FAILED:
            LOGGER.info("run %s failed: %s", run.run, first_line(ValueError(last.payload.get("error", ""))))

    def _leaving(self, live: Live) -> bool:
        """Whether a worker has ended, is settled, or has left its outcome and only waits for a server to hear it."""
        if not live.process.alive() or self._ledger.runs[live.run].state not in ACTIVE:
            return True
        try:
            outcome = left_outcome(self._place.runs / live.run)
        except OSError:
            return False  # settling it will say what is wrong
        return outcome is not None and outcome.attempt == live.attempt

    def _inputs_done(self, run: Run) -> bool:
        """Whether all runs that this one reads are done."""
        return all(self._ledger.runs[source].state is State.DONE for source in run.inputs.values())

    def _give_up_without_input(self, run: Run) -> bool:
        """End a queued run that reads a failed or cancelled one; says whether it did."""
        move = without_input(run, [self._ledger.runs[name] for name in run.inputs.values()])
        if move is not None:
            self._ledger.move([move])
        return move is not None
