"""Workers as processes of this machine, forked from a server that has torch imported and nothing of the web or store.

The fork server is Python's own. It re-imports the main module in every worker, so a main module that starts a lab
keeps its imports under its guard. Each worker leads a process group, holds a lock on its run folder while it lives and
writes `worker.json`, by which a restarted server finds it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from jobs import worker
from jobs.executors import Slot, forks
from jobs.files import write_whole


@dataclass(frozen=True)
class LocalProcess:
    """A process known by its id and its time of birth, since ids are used again."""

    pid: int
    born: str
    """As `birth` tells it."""

    @classmethod
    def of(cls, pid: int) -> LocalProcess:
        """The process that has this id now; one that is gone already counts as dead."""
        return cls(pid, birth(pid))

    def alive(self) -> bool:
        """Whether the process runs; one that ended and was not collected yet does not."""
        try:
            ended = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        return not ended and self.born != "" and birth(self.pid) == self.born

    def terminate(self) -> None:
        """SIGTERM: the worker writes a checkpoint and ends."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the worker's process group."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                # It may be so young that it does not lead its group yet.
                leads = os.getpgid(self.pid) == self.pid
                (os.killpg if leads else os.kill)(self.pid, signal.SIGKILL)


def birth(pid: int) -> str:
    """When a process began, by a clock that nobody sets; empty for one that is gone.

    On Linux that is in clock ticks since the boot of that id (proc_pid_stat(5), field 22): seconds since 1970 are made
    from it with the present time of day, and a step of that clock would give every process another birth.
    """
    try:
        if sys.platform != "linux":
            return repr(psutil.Process(pid).create_time())
        after_name = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        )
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{after_name.split()[19]} of {boot}"


class LocalExecutor:
    """Slots and worker processes of this machine."""

    def __init__(self, count: int | None = None) -> None:
        """Choose the slots.

        Args:
            count: Runs at once; by default one per GPU; on a CPU two to four, since small networks gain little from threads.
        """
        self._slots = _slots(count)
        self._context = forks.context()
        self._warmed = threading.Event()

    def slots(self) -> list[Slot]:
        """One per run that fits at once."""
        return list(self._slots)

    def warm(self) -> None:
        """Start the fork server; its imports take seconds."""
        threading.Thread(target=self._warm, name="fork-server-start", daemon=True).start()

    def ready(self) -> bool:
        """Whether the fork server has imported what it preloads."""
        return self._warmed.is_set()

    def start(self, folder: Path, attempt: int) -> LocalProcess:
        """Fork a worker for the run folder's assignment."""
        process = self._context.Process(
            target=enter, args=(str(folder), attempt), name=f"worker-{folder.name}"
        )
        process.start()
        assert process.pid is not None
        return LocalProcess.of(process.pid)

    def _warm(self) -> None:
        """Fork an idle process: that waits for the imports. Where it fails, so will a start, which says why."""
        try:
            first = self._context.Process(target=_idle, name="first-fork")
            first.start()
            first.join()
        finally:
            self._warmed.set()

    def adopt(self, folder: Path, attempt: int) -> LocalProcess | None:
        """The worker that wrote this folder's `worker.json`, if it lives and works at this attempt."""
        try:
            found = json.loads((folder / "worker.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        process = LocalProcess(found["pid"], found.get("born", ""))
        return process if found["attempt"] == attempt and process.alive() else None


def _idle() -> None:
    """The work of a process that only has to be born."""


def enter(folder: str, attempt: int) -> None:
    """What a new worker process does first: a session of its own, the run folder's lock, its name there; then the work."""
    os.setsid()
    place = Path(folder)
    with (place / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assignment = worker.Assignment.read(place)
        if assignment.attempt != attempt:
            return  # a newer attempt was given out while this process was being born
        me = LocalProcess.of(os.getpid())
        note = {"pid": me.pid, "born": me.born, "attempt": attempt}
        write_whole(place / "worker.json", json.dumps(note))
        worker.main(assignment)


def _slots(count: int | None) -> list[Slot]:
    """GPUs first; without one, shares of the CPU."""
    cores = len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count() or 1
    gpus = torch.cuda.device_count()  # asks the driver, and leaves CUDA itself untouched
    if gpus:
        count = min(count or gpus, gpus)
        return [Slot(f"cuda:{index}", max(1, cores // count)) for index in range(count)]
    count = count or (1 if cores == 1 else min(4, max(2, cores // 2)))
    return [Slot("cpu", max(1, cores // count)) for _ in range(count)]
