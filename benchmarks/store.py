"""How fast a lab takes records in, acknowledged after the commit, and how fast it shows a page of its run table.

    python -m benchmarks.store [--runs 2000] [--points 500] [--processes 4]

A server process of its own (pages, guard and API as in `symlab up`) listens on 127.0.0.1; worker processes post the
batches of their share of the runs over HTTP, one after another, and wait for each answer. The queries are those that
the pages call.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

METRICS = ("train/loss", "test/loss", "test/accuracy", "learning rate", "gradient norm")
"""Curves of each run; its points are divided among them."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    goal: str = ""


def serve(folder: Path, runs: int, report: Connection) -> None:
    """The server process: a lab whose runs count as running, as if other machines worked at them."""
    import uvicorn

    from app.listening import address, listen
    from app.site import site
    from jobs.ledger_rows import Move
    from jobs.service import start, stop
    from jobs.states import State

    lab = start(folder, executor=_nobody())
    ids = _make_runs(lab.ledger, runs)
    with listen("127.0.0.1", 0) as listener:
        here = address("127.0.0.1", listener)
        report.send((here, {run: lab.keys.worker_token(run, 1) for run in ids}))
        config = uvicorn.Config(site(lab, (), here), log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        server.handle_exit = lambda *_: setattr(server, "should_exit", True)  # type: ignore[method-assign]
        server.run(sockets=[listener])
    dice = np.random.default_rng(0)
    ends = [Move(run, State.DONE, {}, {name: float(dice.random()) for name in METRICS[:3]}) for run in ids]
    lab.ledger.move(ends)
    stop()


def post(address: str, tokens: Mapping[str, str], points: int, start: Barrier, report: Connection) -> None:
    """A worker process: one request per run, made when all processes are ready."""
    import httpx

    bodies = {run: _body(points, seed) for seed, run in enumerate(tokens)}
    waits = []
    with httpx.Client(base_url=address, trust_env=False, timeout=60.0) as client:
        start.wait()
        for run, body in bodies.items():
            begin = time.perf_counter()
            headers = {"Authorization": f"Bearer {tokens[run]}"}
            answer = client.post(f"/api/v1/runs/{run}/records?first=0", content=body, headers=headers)
            waits.append(time.perf_counter() - begin)
            assert answer.json()["acknowledged"] == 1, answer.text
    report.send(waits)


def ingest(folder: Path, runs: int, points: int, processes: int) -> list[Row]:
    """Measure from the first request to the last acknowledgement."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(folder, runs, there))
    server.start()
    address, tokens = here.recv()
    _wait_until_ready(address)
    start = context.Barrier(processes + 1)
    pipes, workers = [], []
    for index in range(processes):
        receive, send = context.Pipe()
        mine = dict(list(tokens.items())[index::processes])
        pipes.append(receive)
        workers.append(context.Process(target=post, args=(address, mine, points, start, send)))
        workers[-1].start()
    start.wait()
    begin = time.perf_counter()
    waits = [wait for pipe in pipes for wait in pipe.recv()]
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    server.terminate()
    server.join()
    rate = runs * points / seconds
    return [
        Row(
            f"points a second from {processes} processes, {points} in a request", f"{rate:,.0f}", ">= 60,000"
        ),
        Row("a request, p50 / p95 ms", _percentiles(waits)),
    ]


def pages(folder: Path) -> list[Row]:
    """Measure the queries behind the pages, in a process that owns the store."""
    from jobs import queries, registry
    from jobs.folder import LabFolder
    from jobs.store import Store

    database = LabFolder(folder).database
    with Store.open(database, registry.tables()) as store:
        [runs] = store.read("SELECT count(*) AS n FROM run")["n"].to_pylist()
        [points] = store.read("SELECT count(*) AS n FROM metric")["n"].to_pylist()
        some = queries.runs(store, limit=10)["run"].to_pylist()

        def page() -> None:
            found = queries.runs(
                store, state="done", kind="train", text="digits", sort="test/loss", metrics=METRICS[:3]
            )
            assert found.num_rows == min(50, runs)

        table = f"run table of {runs:,} runs and {points:,} points, filtered, sorted by a metric, 50 rows, p50 / p95 ms"
        return [
            Row(table, _times(page), "p95 <= 20"),
            Row(
                "count of the runs that pass, p50 / p95 ms",
                _times(lambda: queries.count_runs(store, state="done")),
            ),
            Row("all curves of 10 runs, p50 / p95 ms", _times(lambda: queries.metrics(store, some))),
            Row("database, MB", f"{database.stat().st_size / 1e6:.1f}"),
        ]


def _nobody() -> object:
    """An executor without a slot."""
    from jobs.executors.local import LocalExecutor

    class Nobody(LocalExecutor):
        def slots(self) -> list[object]:  # type: ignore[override]
            return []

        def warm(self) -> None:
            """There is nothing to fork."""

    return Nobody()


def _make_runs(ledger: object, runs: int) -> list[str]:
    """Runs with a spec each, in the state of being worked at."""
    from jobs.kinds import train
    from jobs.ledger import Ledger
    from jobs.ledger_rows import Move
    from jobs.specs import PlannedRun
    from jobs.states import State

    assert isinstance(ledger, Ledger)
    base = train.Spec.model_validate(
        {
            "data": "digits",
            "network": {"kind": "mlp"},
            "treatment": {"kind": "standard"},
            "training": {},
            "seeds": (0,),
        }
    )
    planned = [
        PlannedRun(f"train/{seed}", base.model_copy(update={"seeds": (seed,)})) for seed in range(runs)
    ]
    ledger.create(base, planned)
    ledger.move([Move(run, State.RUNNING, {"device": "cpu", "threads": 1}) for run in ledger.runs], attempt=1)
    return list(ledger.runs)


def _body(points: int, seed: int) -> bytes:
    """A request with one batch of records."""
    from jobs.records import METRIC, encode
    from jobs.spool import frame

    columns = {
        "member": np.zeros(points, np.int32),
        "name": [METRICS[index % len(METRICS)] for index in range(points)],
        "step": np.repeat(np.arange(-(-points // len(METRICS))), len(METRICS))[:points],
        "value": np.random.default_rng(seed).random(points),
    }
    return frame(encode("metric", METRIC, columns))


def _wait_until_ready(address: str) -> None:
    import httpx

    while True:
        try:
            if httpx.get(f"{address}/_stcore/health", trust_env=False).text == "ok":
                return
        except httpx.TransportError:
            time.sleep(0.05)


def _times(query: Callable[[], object], count: int = 100) -> str:
    query()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        query()
        times.append(time.perf_counter() - begin)
    return _percentiles(times)


def _percentiles(seconds: Sequence[float]) -> str:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return f"{p50:.1f} / {p95:.1f}"


def main(arguments: Sequence[str]) -> int:
    """Measure and print a table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=2000)
    options.add_argument("--points", type=int, default=500, help="points of each run, sent in one request")
    options.add_argument("--processes", type=int, default=4)
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="symlab-bench-") as scratch:
        folder = Path(scratch) / "lab"
        rows = ingest(folder, given.runs, given.points, given.processes) + pages(folder)
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{row.what:<{width}}  {row.value:>15}  {row.goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
