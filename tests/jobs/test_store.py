"""What the store promises: acknowledged means kept, each batch once, and a file it cannot serve is said in one line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jobs import migrations
from jobs.migrations import DatabaseUnusableError, migrate
from jobs.records import METRIC
from jobs.store import BatchRefusedError, Store, StoreFailedError, fit_rows

TABLES = {"metric": METRIC, "note": pa.schema([("text", pa.string())])}


def notes(*texts: str) -> list[tuple[str, pa.RecordBatch]]:
    return [("note", pa.record_batch({"text": [text]})) for text in texts]


def stored(store: Store, run: str = "r1") -> list[str]:
    return list(store.read("SELECT text FROM note WHERE run = $run", {"run": run})["text"].to_pylist())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "lab.duckdb", TABLES) as opened:
        yield opened


def test_a_batch_number_is_stored_once_however_often_it_is_sent(store: Store) -> None:
    assert store.ingest("r1", 0, notes("a", "b")).result() == 2
    assert store.ingest("r1", 0, notes("a", "b")).result() == 2
    assert store.ingest("r1", 1, notes("b", "c")).result() == 3
    assert sorted(stored(store)) == ["a", "b", "c"]
    assert store.ingest("r2", 0, notes("other")).result() == 1
    assert stored(store, "r2") == ["other"]


def test_batches_beyond_a_gap_are_not_stored_and_the_answer_says_where_to_go_on(store: Store) -> None:
    assert store.ingest("r1", 5, notes("f")).result() == 0
    assert stored(store) == []


@settings(max_examples=30)
@given(some.lists(some.tuples(some.integers(0, 12), some.integers(0, 6)), max_size=12))
def test_any_resending_stores_a_prefix_exactly_once(slices: list[tuple[int, int]]) -> None:
    with Store.open(Path(":memory:"), TABLES) as store:
        futures = [
            store.ingest("r1", first, notes(*map(str, range(first, first + n)))) for first, n in slices
        ]
        count = 0
        for (first, n), future in zip(slices, futures, strict=True):
            count = max(count, first + n) if first <= count else count
            assert future.result() == count
        assert sorted(map(int, stored(store))) == list(range(count))
        assert store.acknowledged("r1") == count


def test_what_was_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    with Store.open(path, TABLES) as store:
        store.ingest("r1", 0, notes("a")).result()
    with Store.open(path, TABLES) as store:
        assert stored(store) == ["a"]
        assert store.ingest("r1", 0, notes("a", "b")).result() == 2
        assert sorted(stored(store)) == ["a", "b"]


def test_many_threads_lose_and_double_nothing(store: Store) -> None:
    def send(run: str) -> None:
        for first in range(0, 40, 2):
            store.ingest(run, first, notes(str(first), str(first + 1))).result()

    threads = [threading.Thread(target=send, args=(f"r{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert sorted(map(int, stored(store, f"r{index}"))) == list(range(40))


def test_a_change_that_fails_does_not_take_its_neighbours_along(store: Store) -> None:
    gate = threading.Event()
    blocked = store.write(lambda _connection: gate.wait(10))
    good = [store.ingest("r1", 0, notes("a")), store.ingest("r1", 1, notes("b"))]
    bad = store.write(lambda connection: connection.execute("SELECT * FROM nowhere"))
    later = store.ingest("r1", 2, notes("c"))
    gate.set()
    assert blocked.result()
    assert [future.result() for future in [*good, later]] == [1, 2, 3]
    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        bad.result()
    assert sorted(stored(store)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            ("nothing", pa.record_batch({"text": ["a"]})),
            "'nothing' is not a record table; there are metric, note",
        ),
        (("note", pa.record_batch({"words": ["a"]})), "table note"),
        (
            ("metric", pa.record_batch({"member": ["x"], "name": ["l"], "step": [1], "value": [1.0]})),
            "table metric",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_by_name(
    store: Store, batch: tuple[str, pa.RecordBatch], said: str
) -> None:
    with pytest.raises(BatchRefusedError, match=said):
        store.ingest("r1", 0, [batch])
    assert store.acknowledged("r1") == 0


def test_a_column_that_an_earlier_version_did_not_know_is_none() -> None:
    schema = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("later", pa.int64())])
    rows = fit_rows({"note": schema}, "r1", "note", pa.record_batch({"text": ["a"]}))
    assert rows.to_pylist() == [{"run": "r1", "text": "a", "later": None}]
    with pytest.raises(BatchRefusedError, match="table note"):
        fit_rows({"note": schema}, "r1", "note", pa.record_batch({"later": [1]}))


def test_readers_see_whole_commits_while_the_writer_writes(store: Store) -> None:
    """Each commit adds two rows of one run; a reader never sees one of them alone."""
    stop = threading.Event()
    odd: list[int] = []

    def read() -> None:
        while not stop.is_set():
            [count] = store.read("SELECT count(*) AS n FROM note")["n"].to_pylist()
            odd.extend([count] if count % 2 else [])

    reader = threading.Thread(target=read)
    reader.start()
    for first in range(0, 60, 2):
        store.ingest("r1", first, notes("x", "y"))
    store.ingest("r1", 60, notes("x", "y")).result()
    stop.set()
    reader.join()
    assert odd == []


def test_there_is_no_index_and_no_constraint_that_a_crash_could_break(store: Store) -> None:
    assert store.read("SELECT * FROM duckdb_indexes()").num_rows == 0
    constraints = store.read("SELECT constraint_type FROM duckdb_constraints()")[
        "constraint_type"
    ].to_pylist()
    assert constraints == []


def test_the_log_holds_no_change_of_schema_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    script = f"""
        import os
        from pathlib import Path
        import pyarrow as pa
        from jobs.store import Store
        Store.open(Path({str(path)!r}), {{"note": pa.schema([("text", pa.string())])}})
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    wal = path.with_suffix(".duckdb.wal")
    assert not wal.exists() or wal.stat().st_size == 0


def test_a_file_from_a_newer_version_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    Store.open(path, TABLES).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, now())")
    with pytest.raises(DatabaseUnusableError) as refusal:
        Store.open(path, TABLES)
    assert "newer version" in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    path.write_text("something else " * 1000)
    with pytest.raises(DatabaseUnusableError) as refusal:
        Store.open(path, TABLES)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    steps = [*migrations.MIGRATIONS, "CREATE TABLE extra (a INTEGER); SELECT * FROM nowhere"]
    with duckdb.connect(str(path)) as connection:
        with pytest.raises(duckdb.CatalogException):
            migrate(connection, path, steps)
        assert connection.sql("SELECT max(version) FROM schema_version").fetchall() == [
            (len(migrations.MIGRATIONS),)
        ]
        assert connection.sql("SELECT * FROM duckdb_tables() WHERE table_name = 'extra'").fetchall() == []
        steps[-1] = "CREATE TABLE extra (a INTEGER)"
        assert migrate(connection, path, steps) == len(steps)
    with pytest.raises(DatabaseUnusableError, match="newer version"):
        Store.open(path, TABLES)


def test_a_kind_may_gain_a_column_and_a_table_but_not_change_a_type(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    with Store.open(path, TABLES) as store:
        store.ingest("r1", 0, notes("a")).result()
    wider = {**TABLES, "note": pa.schema([("text", pa.string()), ("weight", pa.float64())]), "more": METRIC}
    with Store.open(path, wider) as store:
        assert store.read("SELECT text, weight FROM note").to_pylist() == [{"text": "a", "weight": None}]
        assert store.read("SELECT count(*) AS n FROM more")["n"].to_pylist() == [0]
    with pytest.raises(DatabaseUnusableError, match="table note, column text"):
        Store.open(path, {"note": pa.schema([("text", pa.int64())])})


def test_a_column_in_the_middle_gets_its_own_values(tmp_path: Path) -> None:
    path = tmp_path / "lab.duckdb"
    Store.open(path, {"point": pa.schema([("x", pa.float64()), ("y", pa.float64())])}).close()
    wider = {"point": pa.schema([("x", pa.float64()), ("middle", pa.float64()), ("y", pa.float64())])}
    with Store.open(path, wider) as store:
        store.ingest(
            "r1", 0, [("point", pa.record_batch({"x": [1.0], "middle": [2.0], "y": [3.0]}))]
        ).result()
        rows = store.read("SELECT x, middle, y FROM point").to_pylist()
    assert rows == [{"x": 1.0, "middle": 2.0, "y": 3.0}]


def test_a_full_disk_is_said_in_one_line_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "lab.duckdb"
    script = f"""
        import resource
        from pathlib import Path
        import pyarrow as pa
        from jobs.store import Store, StoreFailedError
        store = Store.open(Path({str(path)!r}), {{"note": pa.schema([("text", pa.string())])}})
        size = 300_000 + max(p.stat().st_size for p in Path({str(tmp_path)!r}).iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        count = 0
        try:
            while True:
                text = str(count) + "x" * 10_000
                count = store.ingest("r1", count, [("note", pa.record_batch({{"text": [text]}}))]).result()
        except StoreFailedError as error:
            assert "\\n" not in str(error), error
            assert not store.alive
            try:
                store.ingest("r1", count, []).result()
            except StoreFailedError:
                print(count, error)
        store.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, _, said = done.stdout.partition(" ")
    assert str(path) in said
    assert "cannot be written" in said
    with Store.open(path, {"note": TABLES["note"]}) as store:
        kept = [int(text.rstrip("x")) for text in stored(store)]
        assert len(kept) == len(set(kept)) == store.acknowledged("r1") >= int(count) > 0


def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "lab.duckdb", TABLES)
    store.close()
    with pytest.raises(StoreFailedError, match="closed"):
        store.ingest("r1", 0, notes("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["lab.duckdb"]
