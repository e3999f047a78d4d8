"""What a worker promises: a server that dies or is never there loses nothing, and neither does a worker that is killed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from foreign import ANSWERS as FOREIGN_ANSWERS
from foreign import foreign_server

from jobs import spool, worker
from jobs.execution import Outcome
from jobs.keys import proof
from jobs.kinds import interpolate, train
from jobs.specs import RunSpec, canonical_json
from jobs.spool import Spool
from jobs.worker import Assignment
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import WAsymmetric

SPEC = train.Spec(
    data="digits",
    network=MLPSpec(width=8, depth=1),
    treatment=WAsymmetric(),
    training=TrainingSpec(epochs=6, batch=256),
    seeds=(0, 1),
    mask_seeds=(0,),
)
LONG = SPEC.model_copy(update={"training": TrainingSpec(epochs=150, batch=256)})
FOREIGN = ("duckdb", "streamlit", "altair", "cyclopts", "starlette", "uvicorn")
FORKS = multiprocessing.get_context("forkserver")


class Lab:
    """The server's half of the protocol, in memory; it can die and come back at another port."""

    def __init__(self, folder: Path) -> None:
        self.address_file = folder / "server.json"
        self.frames: list[bytes] = []
        self.beats: list[dict[str, Any]] = []
        self.outcome: dict[str, Any] | None = None
        self.command = "continue"
        self.refuse = 0
        self.tokens: set[str] = set()
        self.start()

    def start(self) -> None:
        lab = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.headers["Authorization"] is None
                asked = parse_qs(urlsplit(self.path).query)
                assert asked["run"] == ["r1"]
                self.say(200, {"proof": proof(f"token-{asked['attempt'][0]}", asked["challenge"][0])})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                lab.tokens.add(self.headers["Authorization"])
                if lab.refuse:
                    self.say(lab.refuse, {"command": lab.command})
                else:
                    self.say(200, lab.take(self.path, body))

            def say(self, status: int, answer: dict[str, Any]) -> None:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()
        self.address_file.write_text(json.dumps({"address": f"http://127.0.0.1:{self.http.server_port}"}))

    def die(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def take(self, path: str, body: bytes) -> dict[str, Any]:
        where = urlsplit(path)
        assert where.path.startswith("/api/v1/runs/r1/")
        verb = where.path.rpartition("/")[2]
        if verb == "records":
            first = int(parse_qs(where.query)["first"][0])
            assert first <= len(self.frames)
            self.frames += spool.unframe(body)[len(self.frames) - first :]
            return {"acknowledged": len(self.frames), "command": self.command}
        if verb == "heartbeat":
            self.beats.append(json.loads(body))
            return {"command": self.command}
        assert verb == "outcome"
        self.outcome = json.loads(body)
        return {}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.die()


@pytest.fixture(scope="module", autouse=True)
def _torch_is_imported_once() -> None:
    FORKS.set_forkserver_preload(["jobs.executors.preload"])


def assignment(folder: Path, spec: RunSpec = SPEC, attempt: int = 1) -> Assignment:
    run_folder = folder / "run"
    run_folder.mkdir(exist_ok=True)
    return Assignment(
        run="r1",
        attempt=attempt,
        spec=spec.model_dump(mode="json"),
        run_folder=run_folder,
        address_file=folder / "server.json",
        token=f"token-{attempt}",
        data_folder=folder / "data",
    )


def process(task: Assignment, main: Callable[[Assignment], None] = worker.main) -> Any:
    started = FORKS.Process(target=main, args=(task,))
    started.start()
    return started


def ended(started: Any, seconds: float = 60) -> int:
    started.join(seconds)
    assert started.exitcode is not None
    return int(started.exitcode)


def wait(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def computed(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("records.spool", "weights.safetensors")}


def payloads(folder: Path) -> list[bytes]:
    return [payload for _, payload in spool.read(folder / "records.spool")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What LONG computes when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    lab = Lab(folder)
    assert ended(process(assignment(folder, LONG))) == 0
    lab.die()
    return computed(folder / "run")


def test_a_run_reaches_the_server_whole(lab: Lab, tmp_path: Path) -> None:
    task = assignment(tmp_path)
    assert ended(process(task)) == 0
    outcome = Outcome.read(task.run_folder)
    assert outcome.state == "done"
    assert 0 < outcome.summary["test/accuracy"] <= 1
    assert lab.outcome == outcome.model_dump(mode="json")
    assert lab.frames == payloads(task.run_folder)
    assert outcome.batches == len(lab.frames) == 6 + 2  # epochs, the final evaluation, the artifact
    assert lab.tokens == {"Bearer token-1"}
    assert (task.run_folder / "spec.json").read_text() == canonical_json(SPEC)


def test_the_server_hears_how_far_the_run_is(lab: Lab, tmp_path: Path) -> None:
    assert ended(process(assignment(tmp_path, LONG))) == 0
    last = lab.beats[-1]
    assert last["total"] == 150 * 2
    assert 0 < last["done"] <= last["total"]
    assert [b["done"] for b in lab.beats] == sorted(b["done"] for b in lab.beats)
    assert "train loss" in last["note"]


def test_a_server_that_dies_and_comes_back_elsewhere_loses_and_doubles_nothing(
    lab: Lab, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    task = assignment(tmp_path, LONG)
    started = process(task)
    for _ in range(2):
        had = len(lab.frames)
        wait(lambda had=had: len(lab.frames) > had or lab.outcome)
        lab.die()
        time.sleep(0.3)
        lab.start()
    assert ended(started) == 0
    assert lab.frames == payloads(task.run_folder)
    assert lab.outcome["state"] == "done"
    assert computed(task.run_folder) == undisturbed


def test_without_any_server_the_work_is_done_and_kept(tmp_path: Path) -> None:
    task = assignment(tmp_path)
    started = process(task, _main_with_short_flush)
    assert ended(started) == 0
    outcome = Outcome.read(task.run_folder)
    assert outcome.state == "done"
    assert outcome.batches == len(payloads(task.run_folder)) == 8


def _main_with_short_flush(task: Assignment) -> None:
    worker.FLUSH_SECONDS = 0.3
    worker.main(task)


def test_sigterm_leaves_a_checkpoint_from_which_the_next_attempt_reaches_the_same_bytes(
    lab: Lab, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    task = assignment(tmp_path, LONG)
    started = process(task)
    wait(lambda: len(lab.frames) > 10)
    os.kill(started.pid, signal.SIGINT)  # a terminal's Ctrl-C is the server's to decide on
    os.kill(started.pid, signal.SIGTERM)
    assert ended(started) == 0
    first = Outcome.read(task.run_folder)
    assert (first.state, first.attempt) == ("interrupted", 1)
    assert (task.run_folder / "checkpoint.safetensors").exists()
    assert lab.outcome["state"] == "interrupted"
    again = assignment(tmp_path, LONG, attempt=2)
    assert ended(process(again)) == 0
    second = Outcome.read(task.run_folder)
    assert (second.state, second.attempt) == ("done", 2)
    assert computed(task.run_folder) == undisturbed
    assert lab.frames == payloads(task.run_folder)
    assert not (task.run_folder / "checkpoint.safetensors").exists()


def test_killed_at_any_moment_the_next_attempt_reaches_the_same_bytes(
    lab: Lab, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    for attempt, frames in enumerate((1, 20, 60), start=1):
        started = process(assignment(tmp_path, LONG, attempt), _main_that_saves_often)
        wait(lambda frames=frames: len(payloads(tmp_path / "run")) >= frames)
        started.kill()
        assert ended(started) == -signal.SIGKILL
        assert Outcome.read(tmp_path / "run") is None
    assert ended(process(assignment(tmp_path, LONG, attempt=4))) == 0
    assert computed(tmp_path / "run") == undisturbed
    assert lab.frames == payloads(tmp_path / "run")
    assert "going on from the checkpoint" in (tmp_path / "run" / "log.txt").read_text()


def _main_that_saves_often(task: Assignment) -> None:
    os.environ["SYMLAB_CHECKPOINT_SECONDS"] = "0.05"
    worker.main(task)


def test_a_cancel_is_obeyed_soon(lab: Lab, tmp_path: Path) -> None:
    endless = SPEC.model_copy(update={"training": TrainingSpec(epochs=100_000, batch=256)})
    started = process(assignment(tmp_path, endless))
    wait(lambda: lab.frames)
    lab.command = "cancel"
    asked = time.monotonic()
    assert ended(started) == 0
    assert time.monotonic() - asked < 10
    assert Outcome.read(tmp_path / "run").state == lab.outcome["state"] == "cancelled"


def test_a_disowned_worker_leaves_and_writes_nothing_more(lab: Lab, tmp_path: Path) -> None:
    started = process(
        assignment(tmp_path, LONG.model_copy(update={"training": TrainingSpec(epochs=100_000)}))
    )
    wait(lambda: lab.frames)
    lab.command, lab.refuse = "stop", 409
    assert ended(started, 10) == 0
    assert Outcome.read(tmp_path / "run") is None
    assert lab.outcome is None


@pytest.mark.parametrize("status", [404, 409, 410, 503])
def test_a_refusing_server_is_tried_again(lab: Lab, tmp_path: Path, status: int) -> None:
    lab.refuse = status
    task = assignment(tmp_path)
    started = process(task)
    wait(lambda: Outcome.read(task.run_folder))
    lab.refuse = 0
    assert ended(started) == 0
    assert lab.frames == payloads(task.run_folder)
    assert lab.outcome["state"] == "done"


@pytest.mark.parametrize("answer", FOREIGN_ANSWERS)
def test_another_program_at_the_labs_address_sees_no_token_and_stops_no_worker(
    tmp_path: Path, answer: tuple[int, str]
) -> None:
    task = assignment(tmp_path)
    with foreign_server(*answer) as foreign:
        task.address_file.write_text(json.dumps({"address": foreign.address}))
        assert ended(process(task, _main_with_short_flush)) == 0
        assert foreign.requests
        assert foreign.tokens == set()
    assert Outcome.read(task.run_folder).state == "done"


def test_a_run_that_fails_says_why_and_keeps_the_traceback_in_its_log(lab: Lab, tmp_path: Path) -> None:
    orphan = interpolate.Spec(data="digits", source="0" * 32, pairs=((0, 1),))
    task = assignment(tmp_path, orphan)
    assert ended(process(task)) == 0
    assert lab.outcome["state"] == "failed"
    assert lab.outcome["error"].startswith(f"LookupError: source: {'0' * 32} is not among")
    assert "Traceback" in (task.run_folder / "log.txt").read_text()


def test_a_spec_of_another_version_fails_with_its_field(lab: Lab, tmp_path: Path) -> None:
    task = assignment(tmp_path, SPEC.model_copy(update={"data_checksum": "0" * 64}))
    assert ended(process(task)) == 0
    assert lab.outcome == Outcome.read(task.run_folder).model_dump(mode="json")
    assert lab.outcome["state"] == "failed"
    assert lab.outcome["error"].startswith("data_checksum: '000")


def test_a_full_disk_fails_the_run_in_one_line_and_is_told(lab: Lab, tmp_path: Path) -> None:
    """Records, log and outcome cannot be written; only the server can still be told."""
    task = assignment(tmp_path)
    assert ended(process(task, _main_on_a_full_disk)) == 0
    assert lab.outcome["state"] == "failed"
    assert lab.outcome["error"] == f"the disk of {task.run_folder} is full: make room there, then resume"


def _main_on_a_full_disk(task: Assignment) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: object, **__: object) -> None:
        raise full

    spool.Spool.append = refuse
    Outcome.write = refuse
    (task.run_folder / "log.txt").symlink_to("/dev/full")
    worker.main(task)


def test_a_worker_waits_for_the_last_attempt_to_let_go(lab: Lab, tmp_path: Path) -> None:
    task = assignment(tmp_path)
    with Spool(task.run_folder / "records.spool"):
        started = process(task)
        time.sleep(0.5)
        assert started.is_alive()
    assert ended(started) == 0
    assert lab.outcome["state"] == "done"


@pytest.mark.usefixtures("lab")
def test_a_worker_never_sees_the_database_or_the_pages(tmp_path: Path) -> None:
    assert ended(process(assignment(tmp_path), _main_and_look)) == 0
    seen = json.loads((tmp_path / "run" / "modules.json").read_text())
    assert "torch" in seen
    assert not set(FOREIGN) & set(seen)


def _main_and_look(task: Assignment) -> None:
    import sys

    worker.main(task)
    (task.run_folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))


def test_an_assignment_is_for_its_owners_eyes(tmp_path: Path) -> None:
    task = assignment(tmp_path)
    assert task.write().stat().st_mode & 0o777 == 0o600
    assert Assignment.read(task.run_folder) == task
