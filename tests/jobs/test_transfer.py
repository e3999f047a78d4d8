"""What leaves a lab comes into another one whole, and only once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import STUDY, TRAIN, FakeExecutor, eventually, finish, roles

from jobs import planning, queries
from jobs.importing_offline import ImportRefusedError
from jobs.service import Service
from jobs.specs import canonical_json, spec_hash
from jobs.states import NotAllowedError
from jobs.store import BatchRefusedError

TABLES = ("run", "run_event", "summary", "batch", "study", "study_run", "metric")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "other", executor=FakeExecutor(), grace=0.3) as opened:
        yield opened


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that the offline worker carried out."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "spec.json").write_text(canonical_json(STUDY))
    command = [
        "-m",
        "jobs.worker",
        "--offline",
        str(folder / "spec.json"),
        str(folder / "out"),
        "--device",
        "cpu",
    ]
    subprocess.run([sys.executable, *command], check=True)
    return folder / "out"


def rows(lab: Service, table: str) -> list[str]:
    """Rows of a table without their numbers, as sorted text."""
    kept = lab.store.read(f"SELECT * FROM {table}").to_pylist()
    return sorted(str({name: value for name, value in row.items() if name != "seq"}) for row in kept)


@pytest.mark.parametrize("name", ["export", "export.zip"])
def test_an_export_is_the_same_study_in_another_lab(
    lab: Service, other: Service, executor: FakeExecutor, tmp_path: Path, name: str
) -> None:
    study = lab.submit(STUDY, title="mine")
    finish(lab, executor, study)
    (lab.run_folder(roles(lab, study)["standard/train/0"]) / "log.txt").write_text("a line\n")
    path = lab.export([study], tmp_path / name)
    done = other.import_folder(path)
    assert (done.studies, done.runs, done.known) == ([study], 4, 0)
    for table in TABLES:
        assert rows(other, table) == rows(lab, table), table
    shown = [queries.study(each.store, study) for each in (lab, other)]
    assert shown[0] == shown[1]
    assert (other.run_folder(roles(other, study)["standard/train/0"]) / "log.txt").read_text() == "a line\n"
    assert other.store.acknowledged(roles(lab, study)["standard/train/0"]) == 1


def test_importing_twice_gives_no_doubles(
    lab: Service, other: Service, executor: FakeExecutor, tmp_path: Path
) -> None:
    study = lab.submit(STUDY)
    finish(lab, executor, study)
    path = lab.export([study], tmp_path / "export")
    other.import_folder(path)
    before = {table: rows(other, table) for table in TABLES}
    again = other.import_folder(path)
    assert (again.studies, again.runs, again.known) == ([study], 0, 4)
    assert {table: rows(other, table) for table in TABLES} == before
    assert lab.import_folder(path).known == 4
    assert rows(lab, "run") == before["run"]


def test_imported_runs_are_reused(
    lab: Service, other: Service, executor: FakeExecutor, tmp_path: Path
) -> None:
    study = lab.submit(STUDY)
    finish(lab, executor, study)
    other.import_folder(lab.export([study], tmp_path / "export"))
    assert roles(other, other.submit(STUDY)) == roles(lab, study)


def test_what_was_deleted_comes_back_under_new_names(
    lab: Service, executor: FakeExecutor, tmp_path: Path
) -> None:
    study = lab.submit(STUDY)
    finish(lab, executor, study)
    path = lab.export([study], tmp_path / "export")
    lab.delete([study])
    [back] = lab.import_folder(path).studies
    assert back != study
    assert queries.study(lab.store, back)["state"] == "done"
    reader = queries.run(lab.store, roles(lab, back)["standard/path/0"])
    assert reader["inputs"] == {spec_hash_of(lab, back): roles(lab, back)["standard/train/0"]}


def spec_hash_of(lab: Service, study: str) -> str:
    return str(queries.run(lab.store, roles(lab, study)["standard/train/0"])["hash"])


def test_an_export_can_be_read_without_a_lab(lab: Service, executor: FakeExecutor, tmp_path: Path) -> None:
    study = lab.submit(TRAIN)
    finish(lab, executor, study)
    path = lab.export([study], tmp_path / "export")
    assert json.loads((path / "studies" / study / "study.json").read_text())["spec"]["seeds"] == [0, 1]
    assert pa.parquet.read_table(path / "tables" / "metric.parquet")["value"].to_pylist() == [0.5, 0.5]
    assert (path / "tables" / "metric.csv").read_text().splitlines()[
        0
    ] == '"run","member","name","step","value"'
    assert {entry.name for entry in (tmp_path).iterdir()} == {"export", "lab"}


def test_what_is_not_finished_is_not_exported(lab: Service, executor: FakeExecutor, tmp_path: Path) -> None:
    study = lab.submit(TRAIN)
    eventually(executor.working)
    with pytest.raises(NotAllowedError, match="is running: wait"):
        lab.export([study], tmp_path / "export")
    assert not (tmp_path / "export").exists()
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        lab.export([study], tmp_path / "taken")


def test_an_offline_study_comes_in_once(lab: Service, out: Path) -> None:
    done = lab.import_folder(out)
    assert (done.runs, done.known) == (4, 0)
    [study] = done.studies
    shown = queries.study(lab.store, study)
    assert shown["state"] == "done"
    assert {run["state"] for run in shown["runs"]} == {"done"}
    train = queries.run(lab.store, shown["roles"]["standard/train/0"])
    assert train["hash"] == spec_hash(planning.plan(STUDY)[0].spec)
    assert (train["device"], len(train["artifacts"])) == ("cpu", 1)
    assert train["ended"] - train["started"] < timedelta(minutes=1)
    assert (lab.run_folder(train["run"]) / train["artifacts"][0]["path"]).is_file()
    assert lab.results(study)["summary"].num_rows > 0
    again = lab.import_folder(out)
    assert (again.studies, again.runs, again.known) == ([study], 0, 4)
    assert roles(lab, lab.submit(STUDY)) == shown["roles"]


def test_an_offline_study_uses_the_runs_that_are_here(
    lab: Service, executor: FakeExecutor, out: Path
) -> None:
    mine = lab.submit(STUDY)
    finish(lab, executor, mine)
    done = lab.import_folder(out)
    assert (done.runs, done.known) == (0, 4)
    assert done.studies == [mine]


def test_an_offline_study_that_is_here_with_reused_runs_is_not_doubled(
    lab: Service, executor: FakeExecutor, out: Path
) -> None:
    first = lab.submit(STUDY)
    finish(lab, executor, first)
    again = lab.submit(STUDY)
    lab.delete([first])
    assert lab.import_folder(out).studies == [again]
    assert lab.import_folder(out).studies == [again]


def test_an_exported_study_names_only_runs_that_come_with_it(
    lab: Service, other: Service, executor: FakeExecutor, tmp_path: Path
) -> None:
    study = lab.submit(STUDY)
    finish(lab, executor, study)
    gone = roles(lab, study)["standard/path/0"]
    lab.delete([gone])
    [came] = other.import_folder(lab.export([study], tmp_path / "export")).studies
    assert gone not in roles(other, came).values()
    assert other.cancel([came]) == []
    old = {
        "study": [came],
        "position": pa.array([9], pa.int32()),
        "role": ["x"],
        "run": ["r"],
        "reused": [False],
    }
    other.store.adopt({"study_run": pa.table(old)}).result()
    other.ledger.load()
    assert other.delete([came])


@pytest.mark.parametrize("kind", ["offline", "export", "purge"])
def test_the_lab_answers_while_files_come_and_go(
    lab: Service,
    other: Service,
    executor: FakeExecutor,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Another thread has the ledger's lock at once in the middle of copying and of removing."""
    study = lab.submit(STUDY)
    finish(lab, executor, study)
    path = out if kind == "offline" else lab.export([study], tmp_path / "export")
    free: list[bool] = []

    def asks(files: Callable[..., object]) -> Callable[..., object]:
        def asking(*args: object, **options: object) -> object:
            with ThreadPoolExecutor(1) as thread:
                free.append(thread.submit(_is_free, other).result())
            return files(*args, **options)

        return asking

    if kind == "purge":
        other.import_folder(path)
    monkeypatch.setattr(shutil, "copytree", asks(shutil.copytree))
    if kind == "purge":
        monkeypatch.setattr(shutil, "rmtree", asks(shutil.rmtree))
        other.delete([study])
        assert other.purge().runs == 4
    else:
        assert other.import_folder(path).runs == 4
    assert free == [True] * 4
    assert not (other.folder / ".import").exists()


def test_of_a_study_that_was_stopped_what_is_finished_comes_in(
    lab: Service, executor: FakeExecutor, out: Path, tmp_path: Path
) -> None:
    stopped, last = tmp_path / "stopped", planning.plan(STUDY)[-1]
    shutil.copytree(out, stopped)
    outcome = stopped / "runs" / spec_hash(last.spec) / "outcome.json"
    outcome.rename(tmp_path / "outcome.json")
    done = lab.import_folder(stopped)
    assert (done.runs, done.known, done.left) == (3, 0, 1)
    [study] = done.studies
    shown = queries.study(lab.store, study)
    assert shown["state"] == "cancelled"
    assert {run["role"]: run["state"] for run in shown["runs"]}[last.role] == "cancelled"
    assert lab.results(study)["summary"].num_rows > 0
    again = lab.import_folder(stopped)
    assert (again.studies, again.runs, again.known, again.left) == ([study], 0, 3, 1)

    (tmp_path / "outcome.json").rename(outcome)
    later = lab.import_folder(stopped)
    assert (later.runs, later.known, later.left) == (1, 3, 0)
    assert queries.study(lab.store, later.studies[0])["state"] == "done"
    lab.resume([study])
    finish(lab, executor, study)


def test_what_failed_without_a_server_says_why_here(lab: Service, out: Path, tmp_path: Path) -> None:
    copy, last = tmp_path / "copy", planning.plan(STUDY)[-1]
    shutil.copytree(out, copy)
    outcome = copy / "runs" / spec_hash(last.spec) / "outcome.json"
    outcome.write_text(json.dumps(json.loads(outcome.read_text()) | {"state": "failed", "error": "no room"}))
    done = lab.import_folder(copy)
    assert (done.runs, done.left) == (3, 1)
    run = queries.run(lab.store, roles(lab, done.studies[0])[last.role])
    assert (run["state"], run["error"]) == ("failed", "no room")


def _is_free(lab: Service) -> bool:
    taken = lab.ledger.lock.acquire(timeout=5)
    if taken:
        lab.ledger.lock.release()
    return taken


def test_an_import_that_the_database_refuses_leaves_no_files(
    lab: Service, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_rows: object) -> None:
        message = "not today"
        raise BatchRefusedError(message)

    monkeypatch.setattr(lab.store, "adopt", refuse)
    with pytest.raises(ImportRefusedError, match="not today"):
        lab.import_folder(out)
    assert list(lab.lab.runs.iterdir()) == []


def _without_outcomes(out: Path) -> None:
    for path in out.glob("runs/*/outcome.json"):
        path.unlink()


def _torn_spool(out: Path) -> None:
    path = next(out.glob("runs/*/records.spool"))
    path.write_bytes(path.read_bytes()[:-5])


def _other_spec(out: Path) -> None:
    path = next(out.glob("runs/*/spec.json"))
    found = json.loads(path.read_text())
    path.write_text(
        json.dumps(found | {"precision": "tf32"} if "precision" in found else found | {"seed": 9})
    )


def _newer_format(out: Path) -> None:
    path = out / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def _not_json(out: Path) -> None:
    (out / "study.json").write_text("{")


def _empty(out: Path) -> None:
    (out / "study.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_outcomes, "no run of it is finished"),
        (_torn_spool, "batches of records"),
        (_other_spec, "another version"),
        (_newer_format, "format 99"),
        (_not_json, "damaged"),
        (_empty, "neither export.json nor study.json"),
    ],
)
def test_a_damaged_folder_is_refused_whole_and_in_one_line(
    lab: Service, out: Path, tmp_path: Path, damage: object, said: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    damage(copy)  # type: ignore[operator]
    with pytest.raises(ImportRefusedError, match=said) as refusal:
        lab.import_folder(copy)
    assert "\n" not in str(refusal.value)
    assert queries.count_runs(lab.store) == 0
    assert list(lab.lab.runs.iterdir()) == []


def test_a_study_that_is_not_here_stays_where_it_is(lab: Service, tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="neither"):
        lab.import_folder(tmp_path / "nowhere")
