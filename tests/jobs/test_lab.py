"""A lab as people meet it: real processes, real pages, and one clear line when it cannot be."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx
import pytest
from fakes import STUDY as SMALL
from fakes import eventually
from foreign import ANSWERS as FOREIGN_ANSWERS
from foreign import foreign_server
from lab_tools import LONG, MARK, STUDY, Server, gone, workers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app import listening
from jobs import queries, registry
from jobs.client import RefusedError, UnreachableError
from jobs.folder import LabFolder, LabUnusableError
from jobs.lab import Lab, running
from jobs.store import Store

SPEC = STUDY.model_dump(mode="json")
pytestmark = pytest.mark.slow
FOREIGN = ("duckdb", "streamlit", "starlette", "uvicorn", "altair", "cyclopts")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "lab", ("--port", "0", "--slots", "2"))
    yield made
    made.clear()


def eventually_state(server: Server, run: str, wanted: str, seconds: float = 60.0) -> None:
    with server.client() as client:
        deadline = time.monotonic() + seconds
        while client.run(run)["state"] != wanted or (
            wanted == "running" and client.run(run)["progress"] is None
        ):
            assert time.monotonic() < deadline, client.run(run)
            time.sleep(0.05)


def test_a_lab_starts_what_is_missing_and_takes_it_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, tmp_path.name)
    with Lab(tmp_path / "lab", slots=2) as lab:
        assert lab.started
        study = lab.submit(SPEC, title="mine")
        with Lab(tmp_path / "lab") as same:
            assert not same.started
            *_, last = same.watch(study)
        assert lab.ready()["ready"]
        assert last["state"] == "done", last
        assert last["progress"]["fraction"] == 1.0
        assert {row["treatment"] for row in lab.results(study)["summary"]} == {"standard", "rebasin"}
        assert lab.result(study, "paths").num_rows > 0
        [run] = [run["run"] for run in last["runs"] if run["role"] == "standard/train/0"]
        assert "done after" in lab.log(run)
        assert len(lab.artifact(run, lab.run(run)["artifacts"][0]["name"])) > 1000
        folder = lab.lab
    assert gone(tmp_path.name)
    assert running(folder) is None
    assert folder.log.read_text() == ""
    with Store.open(folder.database, registry.tables()) as store:
        assert queries.study(store, study)["state"] == "done"


def test_a_server_started_for_a_program_ends_when_that_is_killed(tmp_path: Path) -> None:
    script = f"""
        import os
        from jobs.lab import Lab
        lab = Lab({str(tmp_path / "lab")!r}, slots=1)
        os.kill(os.getpid(), 9)
    """
    environment = os.environ | {MARK: tmp_path.name, "PYTHONPATH": str(Path.cwd())}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert killed.returncode == -9
    assert gone(tmp_path.name)
    assert running(LabFolder(tmp_path / "lab")) is None


@pytest.mark.parametrize("answer", FOREIGN_ANSWERS)
def test_a_program_at_a_killed_servers_address_never_sees_the_token(
    tmp_path: Path, answer: tuple[int, str]
) -> None:
    """Whether the lab's lock is free, as after a reboot, or a server is just starting and has not announced itself."""
    folder = LabFolder(tmp_path / "lab")
    with foreign_server(*answer) as foreign:
        with folder.own():
            folder.announce(foreign.address, "2026-01-01")
            assert running(folder) is None
            assert foreign.requests
        had = len(foreign.requests)
        assert running(folder) is None
        assert len(foreign.requests) == had
        assert foreign.tokens == set()


def test_a_stale_announcement_does_not_keep_a_lab_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, tmp_path.name)
    folder = LabFolder(tmp_path / "lab")
    with foreign_server(200, '{"ready": true}') as foreign:
        folder.own().close()
        folder.announce(foreign.address, "2026-01-01")
        with Lab(folder.path, slots=1) as lab:
            assert lab.started
            assert lab.address != foreign.address
            assert lab.studies() == []
        assert foreign.tokens == set()
    assert gone(tmp_path.name)


def test_stopping_stops_workers_at_a_checkpoint_and_leaves_nothing(server: Server) -> None:
    with server.start().client() as client:
        [run] = client.study(client.submit(LONG.model_dump(mode="json")))["roles"].values()
        eventually_state(server, run, "running")
    assert server.end(signal.SIGTERM) == 0
    assert gone(server.mark)
    assert len(server.said.read_text().splitlines()) == 2, server.said.read_text()
    assert list((server.folder / "runs" / run).glob("checkpoint*"))
    with Store.open(LabFolder(server.folder).database, registry.tables()) as store:
        shown = queries.run(store, run)
        assert shown["state"] == "queued"
        before = store.read("SELECT count(*) AS n FROM metric")["n"][0].as_py()
    with server.start().client() as client:
        eventually_state(server, run, "running")
        assert client.run(run)["attempt"] == 2
        assert client.records("metric", [run]).num_rows >= before
        client.cancel([run])
        eventually_state(server, run, "cancelled")
        eventually(lambda: workers(server.folder) == [])


def test_pages_need_the_link_and_show_with_it(server: Server) -> None:
    with server.start().client() as client:
        link = client.login_link("/runs")
        stream = f"{client.address.replace('http', 'ws')}/_stcore/stream"
        with httpx.Client(base_url=client.address, follow_redirects=True, trust_env=False) as browser:
            refused = browser.get("/")
            assert refused.status_code == 401
            assert "symlab up" in refused.text
            assert browser.get("/_stcore/health").text == "ok"
            assert browser.get("/api/ready").json()["ready"] is True
            with pytest.raises(InvalidStatus, match="403"):
                connect(stream, proxy=None)
            page = browser.get(link)
            assert (page.status_code, page.url.path) == (200, "/runs")
            assert "<title>" in page.text
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            headers = {"Cookie": cookie, "Origin": client.address}
            with connect(
                stream, additional_headers=headers, subprotocols=["streamlit"], proxy=None
            ) as opened:
                opened.ping().wait(5)
    first, second = server.said.read_text().splitlines()
    assert str(server.folder) in first
    assert "/login?code=" in second


def test_a_worker_has_never_seen_the_web_or_the_store() -> None:
    """The fork server preloads, and every worker imports the server's main module under another name."""
    script = f"""
        import runpy, sys
        import jobs.executors.preload
        runpy.run_module("app.server", run_name="__mp_main__")
        import torch
        print([name for name in {FOREIGN!r} if name in sys.modules], torch.cuda.is_initialized())
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[] False"


def refused(server: Server) -> str:
    """The one line of a server that cannot serve."""
    assert server.process is not None
    assert server.process.wait(60) == 2, server.said.read_text()
    [line] = server.said.read_text().splitlines()
    return line


def test_a_port_in_use_is_said_in_one_line(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server.options = ("--port", str(port))
        server.start()
        assert f"port {port} on 127.0.0.1 is in use" in refused(server)


def test_without_a_wish_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(listening, "DEFAULT_PORT", port)
        with listening.listen("127.0.0.1", None) as free:
            assert port < free.getsockname()[1] < port + listening.PORTS_TRIED


def test_a_folder_that_is_served_already_is_said_in_one_line(server: Server) -> None:
    with server.start().client() as client:
        second = Server(server.folder, ("--port", "0"), mark=server.mark)
        second.folder = server.folder
        said = server.said.read_text()
        second.start()
        assert second.process is not None
        assert second.process.wait(60) == 2
        line = server.said.read_text().removeprefix(said).strip()
        assert client.address in line
        assert "\n" not in line


def test_a_database_from_a_newer_version_is_said_in_one_line(server: Server) -> None:
    server.folder.mkdir()
    path = LabFolder(server.folder).database
    Store.open(path, {}).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, now())")
    server.start()
    assert "newer version" in refused(server)
    with pytest.raises(LabUnusableError, match="newer version"):
        Lab(server.folder)


def test_a_full_disk_ends_the_server_with_one_line(server: Server, tmp_path: Path) -> None:
    """A limit on the size of its files stands for the full disk."""
    server.folder.mkdir()
    limited = f"""
        import resource, runpy, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        sys.argv = ["app.server", "--lab", {str(server.folder)!r}, "--port", "0", "--with-parent", "--slots", "1"]
        runpy.run_module("app.server", run_name="__main__", alter_sys=True)
    """
    environment = os.environ | {MARK: server.mark, "PYTHONPATH": str(Path.cwd())}
    with (tmp_path / "lab.said").open("wb") as said:
        server.process = subprocess.Popen(
            [sys.executable, "-P", "-c", textwrap.dedent(limited)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=environment,
        )
    spec = SMALL.model_copy(update={"pairs": 40}).model_dump(mode="json")
    with server.client() as client, contextlib.suppress(RefusedError, UnreachableError):
        for _ in range(200):
            client.submit(spec, fresh=True)
    line = refused(server)
    assert "cannot be written" in line
    assert server.process.stdin is not None
    server.process.stdin.close()
