"""Real servers for tests: started, asked, killed, and looked for when they should be gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa

from jobs.client import Client
from jobs.executors.local import LocalProcess
from jobs.folder import LabFolder
from jobs.keys import Keys
from jobs.kinds import train
from jobs.lab import running
from jobs.studies import lmc
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard

MARK = "SYMLAB_TEST_MARK"
"""Environment variable by which a test knows the processes that came of it."""
STUDY = lmc.Spec(
    network=MLPSpec(width=16, depth=1),
    training=TrainingSpec(epochs=40),
    treatments=("standard", "rebasin"),
    pairs=2,
    block=1,
    points=5,
)
"""Eight short runs in two blocks."""
LONG = train.Spec(
    data="digits",
    network=MLPSpec(width=16, depth=1),
    treatment=Standard(),
    training=TrainingSpec(epochs=100_000),
    seeds=(0, 1),
)
"""A run that ends only when it is told to."""
TABLES = ("metric", "alignment", "path_point", "artifact")


@dataclass
class Server:
    """A server process of its own session on a lab folder."""

    folder: Path
    options: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it without waiting."""
        command = [sys.executable, "-P", "-m", "app.server", "--lab", str(self.folder), *self.options]
        environment = (
            os.environ | {MARK: self.mark, "PYTHONPATH": str(Path(__file__).parents[2])} | self.environment
        )
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env=environment,
            )
        return self

    @property
    def said(self) -> Path:
        """All that it printed."""
        return self.folder.with_name(f"{self.folder.name}.said")

    def client(self, seconds: float = 240.0) -> Client:
        """A connection, once it is ready."""
        lab = LabFolder(self.folder)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.said.read_text()
            found = lab.server()
            if found is not None and found["pid"] == self.process.pid and (address := running(lab)):
                return Client(address, Keys.load(lab.secret).token)
            time.sleep(0.05)
        raise TimeoutError(self.said.read_text())

    def end(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal to it and wait for its end; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def clear(self) -> None:
        """Kill it and its workers if they are still there; nothing else may have been left behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for worker in workers(self.folder):
            worker.kill()
        assert gone(self.mark)

    def relatives(self) -> list[psutil.Process]:
        """Processes that came of it and are still there."""
        return marked(self.mark)


def marked(mark: str) -> list[psutil.Process]:
    """Processes whose environment carries a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def workers(folder: Path) -> list[psutil.Process]:
    """Living workers of a lab, by the notes in their run folders."""
    found = []
    for note in folder.glob("runs/*/worker.json"):
        try:
            said = json.loads(note.read_text())
            process = psutil.Process(said["pid"])
            if LocalProcess(said["pid"], said["born"]).alive():
                found.append(process)
        except (psutil.NoSuchProcess, FileNotFoundError, ValueError):
            continue
    return found


def gone(mark: str, seconds: float = 60.0) -> bool:
    """Whether all processes with a mark end in time; those that do not are ended here.

    A fork server hears of its server's end when it has finished its imports, which a busy machine draws out.
    """
    deadline = time.monotonic() + seconds
    while left := marked(mark):
        if time.monotonic() > deadline:
            for process in left:
                process.kill()
            return False
        time.sleep(0.05)
    return True


def numbers(client: Client, study: str) -> dict[str, list[tuple[object, ...]]]:
    """All records of a study's runs by table, named by role instead of run, in one order: equal if and only if all
    numbers are, to the last bit, and those in the files too, whose checksums are among the records."""
    roles = {run: role for role, run in client.study(study)["roles"].items()}
    found = {}
    for table in TABLES:
        rows = client.records(table, list(roles))
        named = rows.set_column(0, "run", pa.array([roles[run] for run in rows["run"].to_pylist()]))
        found[table] = sorted(tuple(repr(value) for value in row.values()) for row in named.to_pylist())
    return found
