"""The HTTP API: what people and programs ask of a lab, what workers report to it, and whether it is ready."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from jobs import queries, registry
from jobs.access import login_link
from jobs.answers import Verb, as_json, as_table, endpoint, parse, parse_query
from jobs.execution import Outcome
from jobs.job import Progress
from jobs.records import decode
from jobs.service import Service
from jobs.spool import unframe
from jobs.states import UnknownError


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Submission(_Closed):
    """A study, or a single run, to carry out."""

    spec: dict[str, Any]
    """Its spec; see /api/v1/schema."""
    title: str = Field(default="", max_length=200)
    """A name for people."""
    fresh: bool = False
    """Make every run anew, even where there is a finished one with the same spec."""


class Ids(_Closed):
    """Runs and studies that a verb is about."""

    ids: list[str] = Field(min_length=1)
    """Ids of runs ("r...") or studies ("s...")."""


def _absolute(path: str) -> str:
    """A path that means the same in every folder; the server's own would be a surprise."""
    if not Path(path).is_absolute() or "\0" in path:
        message = "not an absolute path on the server's machine; accepted: one that begins with /"
        raise ValueError(message)
    return path


class Files(_Closed):
    """A folder or zip on the server's machine."""

    path: Annotated[str, AfterValidator(_absolute)] = Field(min_length=1)
    """Its absolute path."""


class Export(Ids, Files):
    """What to write, and where."""


class Link(_Closed):
    """A login link to make."""

    next: str = "/"
    """Page that it leads to."""


class Page(_Closed):
    """A page of a list."""

    limit: int = Field(default=50, ge=1, le=10_000)
    """Rows on the page."""
    offset: int = Field(default=0, ge=0)
    """Rows before it."""


class RunPage(Page):
    """A page of the run table; see `jobs.queries.runs`."""

    state: list[str] | None = None
    kind: list[str] | None = None
    study: str | None = None
    text: str = ""
    sort: str = "created"
    descending: bool = True
    metrics: list[str] = []


class Curves(_Closed):
    """Metric curves of a run; see `jobs.queries.metrics`."""

    names: list[str] | None = None
    max_points: int = Field(default=600, ge=2, le=1_000_000)


class First(_Closed):
    """Where a request's batches begin."""

    first: int = Field(ge=0)
    """Sequence number of the first one."""


class Challenge(_Closed):
    """What a lab must answer before a token is shown to it."""

    challenge: str = Field(default="", max_length=200)
    """Random text; empty: no proof is wanted."""
    run: str = Field(default="", max_length=100)
    """The run whose worker asks; empty: a person's program asks."""
    attempt: int = Field(default=0, ge=0)
    """The attempt that its token is for."""


class Beat(_Closed):
    """A worker's heartbeat."""

    done: float
    total: float
    note: str = ""


def routes(service: Callable[[], Service], address: str) -> list[Route]:
    """The API's routes.

    Args:
        service: The lab of this process, once it is open.
        address: Where it is served, for links.
    """
    table: list[tuple[str, str, Callable[[Service, Request, bytes], Any]]] = [
        ("GET", "/schema", _schema),
        ("POST", "/studies", _submit),
        ("GET", "/studies", _studies),
        ("GET", "/studies/{study}", _study),
        ("GET", "/studies/{study}/results", _results),
        ("GET", "/studies/{study}/export", _download),
        ("POST", "/runs/cancel", lambda lab, _, body: {"runs": lab.cancel(parse(Ids, body).ids)}),
        ("POST", "/runs/resume", lambda lab, _, body: {"runs": lab.resume(parse(Ids, body).ids)}),
        ("POST", "/runs/delete", lambda lab, _, body: {"runs": lab.delete(parse(Ids, body).ids)}),
        ("GET", "/runs", _runs),
        ("GET", "/runs/{run}", _run),
        ("GET", "/runs/{run}/metrics", _metrics),
        ("GET", "/runs/{run}/log", _log),
        ("GET", "/runs/{run}/artifacts/{name:path}", _artifact),
        ("GET", "/records/{table}", _records),
        ("POST", "/import", lambda lab, _, body: asdict(lab.import_folder(parse(Files, body).path))),
        ("POST", "/export", _export),
        ("POST", "/purge", lambda lab, _request, _body: asdict(lab.purge())),
        ("POST", "/login-links", lambda lab, _, body: {"link": login_link(address, lab.keys, parse(Link, body).next)}),
        ("POST", "/runs/{run}/records", _take_records),
        ("POST", "/runs/{run}/heartbeat", _take_beat),
        ("POST", "/runs/{run}/outcome", _take_outcome),
    ]  # fmt: skip

    def bound(verb: Callable[[Service, Request, bytes], Any]) -> Verb:
        return lambda request, body: verb(service(), request, body)

    listed = [
        Route(f"/api/v1{path}", endpoint(bound(verb)), methods=[method]) for method, path, verb in table
    ]
    ready = Route("/api/ready", endpoint(lambda request, _body: _ready(service(), request)), methods=["GET"])
    return [
        ready,
        *listed,
        Route("/api/{path:path}", endpoint(_nothing_here), methods=["GET", "POST", "PUT", "DELETE"]),
    ]


def _ready(lab: Service, request: Request) -> Response:
    """Which parts are at work; to a challenge, also the proof that this is the lab whose token the asker holds."""
    state = lab.ready()
    asked = parse_query(Challenge, request)
    proof = {"proof": lab.keys.prove(asked.challenge, asked.run, asked.attempt)} if asked.challenge else {}
    return as_json(state | proof, 200 if state["ready"] else 503)


def _nothing_here(request: Request, _body: bytes) -> Any:  # noqa: ANN401
    message = f"there is no {request.method} {request.url.path}; see docs/api.md"
    raise UnknownError(message)


def _schema(_lab: Service, _request: Request, _body: bytes) -> Any:  # noqa: ANN401
    """JSON schemas of all specs, and the presets of studies."""
    studies = registry.studies()
    return {
        "studies": {name: module.Spec.model_json_schema() for name, module in studies.items()},
        "runs": {name: module.Spec.model_json_schema() for name, module in registry.kinds().items()},
        "presets": {
            name: {preset: spec.model_dump(mode="json") for preset, spec in module.PRESETS.items()}
            for name, module in studies.items()
        },
    }


def _submit(lab: Service, _request: Request, body: bytes) -> Response:
    given = parse(Submission, body)
    study = lab.submit(given.spec, fresh=given.fresh, title=given.title)
    return as_json({"study": study}, 201)


def _studies(lab: Service, request: Request, _body: bytes) -> Response:
    page = parse_query(Page, request)
    return as_table(request, queries.studies(lab.store, limit=page.limit, offset=page.offset))


def _study(lab: Service, request: Request, _body: bytes) -> Any:  # noqa: ANN401
    name = request.path_params["study"]
    return queries.study(lab.store, name) | {"progress": asdict(lab.study_progress(name))}


def _results(lab: Service, request: Request, _body: bytes) -> Any:  # noqa: ANN401
    """All result tables as JSON, or the one that `?table=` names."""
    tables = lab.results(request.path_params["study"])
    wanted = request.query_params.get("table")
    if wanted is None:
        return {name: table.to_pylist() for name, table in tables.items()}
    if wanted not in tables:
        message = f"table: {wanted!r} is not a result of this study; there are {', '.join(tables) or 'none'}"
        raise UnknownError(message)
    return as_table(request, tables[wanted])


def _download(lab: Service, request: Request, _body: bytes) -> Response:
    """An export as a zip that is removed once it is sent."""
    study = request.path_params["study"]
    scratch = tempfile.mkdtemp(prefix="symlab-")
    clean = BackgroundTask(shutil.rmtree, scratch, ignore_errors=True)
    try:
        path = lab.export([study], Path(scratch) / f"{study}.zip")
    except BaseException:
        shutil.rmtree(scratch)
        raise
    return FileResponse(path, filename=path.name, media_type="application/zip", background=clean)


def _export(lab: Service, _request: Request, body: bytes) -> Any:  # noqa: ANN401
    given = parse(Export, body)
    return {"path": str(lab.export(given.ids, given.path))}


def _runs(lab: Service, request: Request, _body: bytes) -> Any:  # noqa: ANN401
    page = parse_query(RunPage, request)
    chosen = page.model_dump(include={"state", "kind", "study", "text"})
    found = queries.runs(lab.store, **page.model_dump())
    rows = [row | {"progress": _progress(lab, row["run"])} for row in found.to_pylist()]
    return {"runs": rows, "count": queries.count_runs(lab.store, **chosen)}


def _run(lab: Service, request: Request, _body: bytes) -> Any:  # noqa: ANN401
    run = request.path_params["run"]
    return queries.run(lab.store, run) | {"progress": _progress(lab, run)}


def _progress(lab: Service, run: str) -> dict[str, Any] | None:
    found = lab.progress(run)
    return asdict(found) | {"fraction": found.fraction} if found else None


def _metrics(lab: Service, request: Request, _body: bytes) -> Response:
    given = parse_query(Curves, request)
    run = request.path_params["run"]
    return as_table(request, queries.metrics(lab.store, [run], given.names, given.max_points))


def _log(lab: Service, request: Request, _body: bytes) -> Response:
    run = lab.ledger.get(request.path_params["run"]).run
    path = lab.run_folder(run) / "log.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return PlainTextResponse(text, headers={"Content-Disposition": f'attachment; filename="{run}.log.txt"'})


def _artifact(lab: Service, request: Request, _body: bytes) -> Response:
    """A file that the run recorded as an artifact, by its name."""
    run, name = lab.ledger.get(request.path_params["run"]).run, request.path_params["name"]
    for row in queries.records(lab.store, "artifact", [run]).to_pylist():
        path = lab.lab.inside(run, row["path"])
        if row["name"] == name and path is not None:
            return FileResponse(path, filename=path.name)
    message = f"run {run} has no artifact {name!r}, or its file is gone"
    raise UnknownError(message)


def _records(lab: Service, request: Request, _body: bytes) -> Response:
    runs = request.query_params.getlist("run")
    return as_table(request, queries.records(lab.store, request.path_params["table"], runs))


def _take_records(lab: Service, request: Request, body: bytes) -> Any:  # noqa: ANN401
    """Numbered batches from `?first=` on; what was stored already is dropped."""
    run = request.path_params["run"]
    command = lab.dispatcher.beat(run, request.scope["attempt"])
    first = parse_query(First, request).first
    batches = [decode(payload) for payload in unframe(body)]
    stored = lab.store.ingest(run, first, batches).result() if batches else lab.store.acknowledged(run)
    return {"acknowledged": stored, "command": command}


def _take_beat(lab: Service, request: Request, body: bytes) -> Any:  # noqa: ANN401
    beat = parse(Beat, body)
    report = Progress(beat.done, beat.total, beat.note)
    return {"command": lab.dispatcher.beat(request.path_params["run"], request.scope["attempt"], report)}


def _take_outcome(lab: Service, request: Request, body: bytes) -> Any:  # noqa: ANN401
    lab.dispatcher.finish(request.path_params["run"], request.scope["attempt"], parse(Outcome, body))
    return {}
