"""What the run table, curves and look-ups show, checked against a history that the test made up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from jobs import queries
from jobs.records import METRIC
from jobs.states import UnknownError
from jobs.store import Store, insert

TABLES = {"metric": METRIC, "note": pa.schema([("text", pa.string())])}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "lab.duckdb", TABLES) as opened:
        yield opened


def fill(store: Store, count: int) -> None:
    """Runs r00, r01, ... with a made-up history; the value of "loss" falls with the number, every third lacks it."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [f"r{index:02}" for index in range(count)]
    times = [begin + timedelta(minutes=index) for index in range(count)]

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        columns = {
            "run": ids,
            "time": times,
            "kind": ["train" if index % 2 else "align" for index in range(count)],
            "hash": ids,
            "title": [f"50% of 'it' {index}" for index in range(count)],
            "spec": [f'{{"width":{index}}}' for index in range(count)],
            "inputs": ["{}"] * count,
        }
        insert(connection, "run", pa.table(columns))
        for index, run in enumerate(ids):
            store.append_event(connection, run, "queued")
            store.append_event(connection, run, "running", attempt=1, payload={"device": "cpu"})
            if index % 4:
                store.append_event(connection, run, "done", attempt=1)
        kept = [index for index in range(count) if index % 3]
        values = pa.array([1.0 - index / count for index in kept])
        insert(
            connection,
            "summary",
            pa.table({"run": [ids[i] for i in kept], "name": ["loss"] * len(kept), "value": values}),
        )

    store.write(change).result()


def test_pages_of_the_run_table_cut_one_order_into_pieces(store: Store) -> None:
    fill(store, 30)
    pages = [queries.runs(store, sort="loss", descending=False, limit=7, offset=at) for at in range(0, 35, 7)]
    together = [run for page in pages for run in page["run"].to_pylist()]
    with_loss = [f"r{index:02}" for index in reversed(range(30)) if index % 3]
    without = [f"r{index:02}" for index in range(30) if not index % 3]
    assert together == with_loss + without
    assert queries.count_runs(store) == 30


def test_filters_of_the_run_table_say_what_they_say(store: Store) -> None:
    fill(store, 30)
    done = queries.runs(store, state="done", kind=["train"], limit=100)
    assert set(done["state"].to_pylist()) == {"done"}
    assert set(done["kind"].to_pylist()) == {"train"}
    assert done.num_rows == queries.count_runs(store, state=["done"], kind="train") == 15
    assert queries.runs(store, text="50% OF 'IT' 7")["run"].to_pylist() == ["r07"]
    assert queries.runs(store, text='"width":12')["run"].to_pylist() == ["r12"]
    assert queries.runs(store, text="%")["run"].to_pylist() != []
    assert queries.runs(store, text="_")["run"].to_pylist() == []
    newest = queries.runs(store, limit=1, metrics=["loss", 'odd "name"']).to_pylist()[0]
    assert (newest["run"], newest["device"]) == ("r29", "cpu")
    assert newest["loss"] == pytest.approx(1 - 29 / 30)
    assert newest['odd "name"'] is None


def test_a_thinned_curve_is_part_of_the_whole_and_keeps_both_ends(store: Store) -> None:
    steps = np.arange(5000)
    rows = {
        "member": np.zeros(5000, np.int32),
        "name": ["loss"] * 5000,
        "step": steps,
        "value": np.sqrt(steps),
    }
    store.ingest("r1", 0, [("metric", pa.record_batch(rows))]).result()
    short = {"member": np.ones(3, np.int32), "name": ["loss"] * 3, "step": np.arange(3), "value": np.zeros(3)}
    store.ingest("r1", 1, [("metric", pa.record_batch(short))]).result()
    thin = queries.metrics(store, ["r1"], ["loss"], max_points=100).to_pandas()
    curve = thin[thin["member"] == 0]
    assert len(curve) <= 100
    assert len(thin[thin["member"] == 1]) == 3
    assert list(curve["step"].iloc[[0, -1]]) == [0, 4999]
    assert curve["step"].is_monotonic_increasing
    assert np.diff(curve["step"]).max() <= 2 * 5000 / 99
    np.testing.assert_array_equal(curve["value"], np.sqrt(curve["step"]))
    assert queries.metrics(store, ["r1"], []).num_rows == 0


def test_what_is_not_there_is_said(store: Store) -> None:
    with pytest.raises(UnknownError, match="there is no run 'r9'"):
        queries.run(store, "r9")
    with pytest.raises(UnknownError, match="there is no study 's9'"):
        queries.study(store, "s9")
    with pytest.raises(UnknownError, match="metric, note"):
        queries.records(store, "nothing", [])
