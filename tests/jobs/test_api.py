"""The API's promises: wrong input names its field and queues nothing; workers are answered after the commit."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fakes import STUDY, TRAIN, FakeExecutor, eventually, finish, metric_batch, roles, state
from serving_tools import served
from starlette.applications import Starlette
from starlette.middleware import Middleware

from jobs.access import Access
from jobs.answers import ARROW
from jobs.api import routes
from jobs.service import Service
from jobs.spool import frame

SPEC = STUDY.model_dump(mode="json")


@pytest.fixture
def api(lab: Service) -> Iterator[httpx.Client]:
    app = Starlette(
        routes=routes(lambda: lab, "http://127.0.0.1:1"), middleware=[Middleware(Access, keys=lab.keys)]
    )
    headers = {"Authorization": f"Bearer {lab.keys.token}"}
    with served(app) as address, httpx.Client(base_url=address, headers=headers) as client:
        yield client


def counts(lab: Service) -> tuple[int, int]:
    return lab.store.read("SELECT * FROM run").num_rows, lab.store.read("SELECT * FROM study").num_rows


@pytest.mark.parametrize(
    ("change", "field", "value", "said"),
    [
        ({"pairs": 0}, "pairs", 0, "greater than or equal to 1"),
        ({"network": {"kind": "mlp", "width": "wide"}}, "network.width", "wide", "integer"),
        ({"colour": "red"}, "colour", "red", "not permitted"),
        ({"data": "imagenet"}, "data", "imagenet", "digits"),
        ({"kind": "lcm"}, "kind", "lcm", "lmc"),
    ],
)
def test_a_wrong_field_names_itself_and_nothing_is_queued(
    api: httpx.Client, lab: Service, change: dict[str, Any], field: str, value: object, said: str
) -> None:
    answer = api.post("/api/v1/studies", json={"spec": SPEC | change})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == (field, value)
    assert said in error["message"]
    assert counts(lab) == (0, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/studies", b'{"spec": {', ""),
        ("POST", "/studies", b'{"specs": {}}', "spec"),
        ("POST", "/runs/cancel", b'{"ids": []}', "ids"),
        ("GET", "/runs?limit=many", b"", "limit"),
        ("GET", "/runs?colour=red", b"", "colour"),
        ("POST", "/import", b'{"path": ""}', "path"),
        ("POST", "/import", b'{"path": "results"}', "path"),
        ("POST", "/import", b'{"path": "/results\\u0000"}', "path"),
        ("POST", "/export", b'{"ids": ["s1"], "path": "results"}', "path"),
        ("POST", "/export", b'{"ids": ["s1"], "path": "/results\\u0000"}', "path"),
    ],
)
def test_a_wrong_request_names_its_field_too(
    api: httpx.Client, method: str, path: str, body: bytes, field: str
) -> None:
    answer = api.request(method, f"/api/v1{path}", content=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    "path", ["/runs/r9", "/studies/s9", "/runs/r9/log", "/records/nothing", "/studies/s9/results", "/x"]
)
def test_what_is_not_there_is_404_in_words(api: httpx.Client, path: str) -> None:
    answer = api.get(f"/api/v1{path}")
    assert answer.status_code == 404
    assert "there is no" in answer.json()["error"]


def test_a_study_from_submission_to_results(api: httpx.Client, lab: Service, executor: FakeExecutor) -> None:
    answer = api.post("/api/v1/studies", json={"spec": TRAIN.model_dump(mode="json"), "title": "mine"})
    assert answer.status_code == 201
    study = answer.json()["study"]
    assert api.get("/api/v1/studies").json()[0]["title"] == "mine"
    finish(lab, executor, study)
    [run] = roles(lab, study).values()
    shown = api.get(f"/api/v1/studies/{study}").json()
    assert (shown["state"], shown["progress"]["fraction"], shown["roles"]) == ("done", 1.0, {"train": run})
    listed = api.get("/api/v1/runs", params={"state": ["done", "failed"], "metrics": "test/loss"}).json()
    assert (listed["count"], listed["runs"][0]["run"], listed["runs"][0]["test/loss"]) == (1, run, 0.25)
    assert api.get(f"/api/v1/runs/{run}").json()["summary"] == {"test/loss": 0.25}
    curves = api.get(f"/api/v1/runs/{run}/metrics", headers={"Accept": ARROW})
    assert pa.ipc.open_stream(curves.content).read_all().num_rows == 2
    assert len(api.get(f"/api/v1/runs/{run}/metrics").json()) == 2
    assert api.get(f"/api/v1/studies/{study}/export").content[:2] == b"PK"
    assert api.post("/api/v1/runs/resume", json={"ids": [run]}).json() == {"runs": []}
    assert api.post("/api/v1/runs/delete", json={"ids": [study]}).json() == {"runs": [run]}
    assert api.post("/api/v1/purge").json()["runs"] == 1


def test_an_export_that_cannot_be_written_says_so_in_one_line(
    api: httpx.Client, lab: Service, executor: FakeExecutor, tmp_path: Path
) -> None:
    study = lab.submit(TRAIN)
    finish(lab, executor, study)
    (tmp_path / "file").touch()
    answer = api.post("/api/v1/export", json={"ids": [study], "path": str(tmp_path / "file" / "a" / "b")})
    assert answer.status_code == 422
    assert answer.json()["error"] == f"{tmp_path / 'file' / 'a'}: Not a directory"


@pytest.mark.parametrize("damage", [b"PK\x01\x02", b"x" * 40])
def test_a_damaged_zip_is_refused_in_one_line(
    api: httpx.Client, lab: Service, executor: FakeExecutor, tmp_path: Path, damage: bytes
) -> None:
    study = lab.submit(TRAIN)
    finish(lab, executor, study)
    path = lab.export([study], tmp_path / "out.zip")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:  # within a file's data: not all of a header is read
        largest = max(archive.infolist(), key=lambda entry: entry.compress_size)
    place = largest.header_offset + 30 + len(largest.filename) + largest.compress_size // 2
    path.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    answer = api.post("/api/v1/import", json={"path": str(path)})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{path} is damaged: ")
    assert "\n" not in answer.json()["error"]


def test_what_cannot_be_done_now_is_409_in_words(api: httpx.Client, lab: Service) -> None:
    study = lab.submit(STUDY)
    answer = api.post("/api/v1/runs/delete", json={"ids": [study]})
    assert answer.status_code == 409
    assert "cancel it before deleting" in answer.json()["error"]


def test_a_worker_is_acknowledged_after_the_commit_and_once(
    api: httpx.Client, lab: Service, executor: FakeExecutor
) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    token = {"Authorization": f"Bearer {lab.keys.worker_token(run, 1)}"}
    url = f"/api/v1/runs/{run}/records"
    assert api.post(url, params={"first": 0}, headers=token).json() == {
        "acknowledged": 0,
        "command": "continue",
    }
    body = frame(metric_batch(1)) + frame(metric_batch(2))
    for _ in range(2):
        answer = api.post(url, params={"first": 0}, headers=token, content=body)
        assert answer.json() == {"acknowledged": 2, "command": "continue"}
        assert lab.store.read("SELECT count(*) AS n FROM metric")["n"].to_pylist() == [4]
    assert api.post(url, params={"first": 7}, headers=token, content=body).json()["acknowledged"] == 2
    beat = {"done": 1, "total": 4, "note": "epoch 1"}
    assert api.post(f"/api/v1/runs/{run}/heartbeat", headers=token, json=beat).json() == {
        "command": "continue"
    }
    assert api.get(f"/api/v1/runs/{run}").json()["progress"]["fraction"] == 0.25
    executor.of(run).obeys = False
    lab.cancel([run])
    assert api.post(f"/api/v1/runs/{run}/heartbeat", headers=token, json=beat).json() == {"command": "cancel"}
    outcome = {"state": "done", "summary": {"test/loss": None}, "batches": 2, "attempt": 1}
    assert api.post(f"/api/v1/runs/{run}/outcome", headers=token, json=outcome).json() == {}
    assert state(lab, run) == "done"
    late = api.post(f"/api/v1/runs/{run}/heartbeat", headers=token, json=beat)
    assert (late.status_code, late.json()["command"]) == (409, "stop")


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-1], lambda body: body[:20] + b"x" + body[21:], lambda _: b"hello"]
)
def test_damaged_records_are_refused_whole(
    api: httpx.Client, lab: Service, executor: FakeExecutor, damage: Any
) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    token = {"Authorization": f"Bearer {lab.keys.worker_token(run, 1)}"}
    body = damage(frame(metric_batch(1)) + frame(metric_batch(2)))
    answer = api.post(f"/api/v1/runs/{run}/records", params={"first": 0}, headers=token, content=body)
    assert answer.status_code == 422
    assert lab.store.read("SELECT * FROM metric").num_rows == lab.store.acknowledged(run) == 0


def test_ready_means_that_every_part_is_at_work(api: httpx.Client, lab: Service) -> None:
    assert api.get("/api/ready", headers={"Authorization": ""}).json()["ready"] is True
    lab.dispatcher.stop()
    answer = api.get("/api/ready")
    assert (answer.status_code, answer.json()) == (
        503,
        {"ready": False, "store": True, "writer": True, "dispatcher": False},
    )
    lab.store.close()
    assert api.get("/api/ready").json() == {
        "ready": False,
        "store": False,
        "writer": False,
        "dispatcher": False,
    }


def test_the_schema_describes_every_field(api: httpx.Client) -> None:
    schema = api.get("/api/v1/schema").json()
    assert {"lmc"} <= schema["studies"].keys()
    assert {"train", "align", "interpolate"} <= schema["runs"].keys()
    for name, preset in schema["presets"]["lmc"].items():
        assert preset["kind"] == "lmc", name
    fields = schema["studies"]["lmc"]["properties"]
    assert all("description" in field or name == "kind" for name, field in fields.items())
