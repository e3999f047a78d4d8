"""kill -9 at random moments: nothing acknowledged is lost or doubled, nobody is left behind, the numbers are the same.

`SYMLAB_KILLS` sets how many moments; `SYMLAB_KILL_SEED` repeats the moments of a failed test.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from lab_tools import STUDY, Server, gone, numbers, workers

from jobs.client import Client, UnreachableError
from jobs.store import Store

KILLS = int(os.environ.get("SYMLAB_KILLS", "3"))
SEED = int(os.environ.get("SYMLAB_KILL_SEED", random.SystemRandom().randrange(10**6)))
SPEC = STUDY.model_dump(mode="json")
OFTEN = {"SYMLAB_CHECKPOINT_SECONDS": "0.05"}
"""Checkpoints within the fraction of a second that a run takes here."""
NOTE = {"note": pa.schema([("number", pa.int64())])}

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "lab", ("--port", "0", "--slots", "2"), environment=OFTEN)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[object, ...]]]:
    """The numbers of the study when nobody is killed."""
    server = Server(tmp_path_factory.mktemp("undisturbed") / "lab", ("--port", "0", "--slots", "2"))
    with server.start().client() as client:
        found = finished(client, client.submit(SPEC))
    server.end()
    assert gone(server.mark)
    assert all(found.values())
    return found


def finished(client: Client, study: str) -> dict[str, list[tuple[object, ...]]]:
    """The numbers of a study, once it has ended well."""
    *_, last = client.watch(study, 0.1)
    assert last["state"] == "done", [(run["role"], run["state"], run["error"]) for run in last["runs"]]
    return numbers(client, study)


def acknowledged(client: Client, study: str) -> dict[str, int]:
    """Rows that each run of a study has in the database."""
    runs = list(client.study(study)["roles"].values())
    counts = dict.fromkeys(runs, 0)
    for table in ("metric", "alignment", "path_point"):
        for run in client.records(table, runs)["run"].to_pylist():
            counts[run] += 1
    return counts


def test_a_killed_writer_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """The store alone: a process writes and says what was acknowledged, until it is killed."""
    script = f"""
        from pathlib import Path
        import pyarrow as pa
        from jobs.store import Store
        store = Store.open(Path({str(tmp_path / "lab.duckdb")!r}), {{"note": pa.schema([("number", pa.int64())])}})
        waiting = []
        while True:
            first = store.acknowledged("r1") + len(waiting)
            waiting.append(store.ingest("r1", first, [("note", pa.record_batch({{"number": [first] * 100}}))]))
            if len(waiting) == 3:
                print(waiting.pop(0).result(), flush=True)
    """
    dice = random.Random(SEED)
    counted = 0
    for moment in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(dice.uniform(0, 0.2))
        writer.kill()
        said = [int(line) for line in writer.stdout.read().split("\n") if line.strip()][:-1]
        writer.stdout.close()
        writer.wait()
        with Store.open(tmp_path / "lab.duckdb", NOTE) as store:
            rows = store.read(
                "SELECT number, count(*) AS n FROM note GROUP BY number ORDER BY number"
            ).to_pylist()
            assert rows == [{"number": number, "n": 100} for number in range(len(rows))], (SEED, moment)
            assert store.acknowledged("r1") == len(rows) >= max(said, default=counted) >= counted
            counted = len(rows)
    assert counted > KILLS


def test_killed_servers_lose_and_double_nothing(
    server: Server, undisturbed: dict[str, list[tuple[object, ...]]]
) -> None:
    """The server is killed at any moment, its start included; workers go on, and the next server takes them over."""
    dice = random.Random(SEED)
    with server.start().client() as client:
        studies = [client.submit(SPEC)]
    seen: dict[str, int] = {}
    for moment in range(KILLS):
        seen = _watch(server, studies, seen, dice.uniform(0, 4.0 if moment % 2 else 1.5))
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        server.start()
    with server.client() as client:
        for study in studies:
            assert finished(client, study) == undisturbed, SEED
        assert 1 in {run["attempt"] for run in client.runs(limit=1000)[0]}, "no worker outlived its server"
    _ends_clean(server)


def _watch(server: Server, studies: list[str], seen: dict[str, int], seconds: float) -> dict[str, int]:
    """Look at the last study for a while, from the server's birth on; no row that was seen is ever gone.

    One that has ended is followed by another.
    """
    deadline = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError, UnreachableError), server.client(seconds) as client:
        while time.monotonic() < deadline:
            counts = acknowledged(client, studies[-1])
            for run in seen.keys() & counts.keys():
                assert counts[run] >= seen[run], (SEED, run)
            seen = seen | counts
            if client.study(studies[-1])["ended"] is not None:
                studies.append(client.submit(SPEC, fresh=True))
            time.sleep(0.02)
    time.sleep(max(0.0, deadline - time.monotonic()))
    return seen


def test_killed_workers_are_resumed_to_the_same_numbers(
    server: Server, undisturbed: dict[str, list[tuple[object, ...]]]
) -> None:
    """Workers are killed at any moment; each new attempt goes on from the last checkpoint."""
    dice = random.Random(SEED)
    with server.start().client() as client:
        killed = 0
        while killed < KILLS:
            study = client.submit(SPEC, fresh=True)
            tries: dict[str, int] = {}
            while killed < KILLS and client.study(study)["ended"] is None:
                _await(server.folder, checkpoint=killed % 2 == 0, seconds=dice.uniform(0, 0.4))
                killed += _kill_one(server.folder, dice, tries)
            assert finished(client, study) == undisturbed, SEED
    logs = [path.read_text() for path in server.folder.glob("runs/*/log.txt")]
    assert any("going on from the checkpoint" in log for log in logs), SEED
    _ends_clean(server)


def _await(folder: Path, *, checkpoint: bool, seconds: float) -> None:
    """Wait for some time, or for a living worker with a checkpoint that its next attempt can go on from.

    A run here lasts a fraction of a second and its worker's start several, so that a moment taken at random seldom
    falls after a checkpoint.
    """
    deadline = time.monotonic() + (4.0 if checkpoint else seconds)
    while time.monotonic() < deadline and not (checkpoint and _saved(folder)):
        time.sleep(0.01)


def _saved(folder: Path) -> list[psutil.Process]:
    """Living workers whose run has a checkpoint."""
    runs = {path.parent.name for path in folder.glob("runs/*/checkpoint*")}
    return [worker for worker in workers(folder) if _run_of(folder, worker) in runs]


def _kill_one(folder: Path, dice: random.Random, tries: dict[str, int]) -> int:
    """Kill a worker, one with a checkpoint if there is one; says how many were killed.

    None is killed so often that its run may count as hopeless.
    """
    for choice in (_saved(folder), workers(folder)):
        living = [worker for worker in choice if tries.get(_run_of(folder, worker), 0) < 4]
        if living:
            break
    else:
        return 0
    victim = dice.choice(living)
    run = _run_of(folder, victim)
    tries[run] = tries.get(run, 0) + 1
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.send_signal(signal.SIGKILL)
    return 1


def _run_of(folder: Path, worker: psutil.Process) -> str:
    """The run that a worker's note says it works at."""
    notes = (
        note for note in folder.glob("runs/*/worker.json") if f'"pid": {worker.pid},' in note.read_text()
    )
    return next((note.parent.name for note in notes), "")


def _ends_clean(server: Server) -> None:
    """The server ends in order, and so does everything that came of it, killed servers' workers too."""
    assert server.end() == 0, server.said.read_text()
    assert gone(server.mark), "a process was left behind"
    assert "Traceback" not in server.said.read_text()
    assert "arning" not in server.said.read_text()
