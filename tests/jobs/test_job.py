"""What a job promises a kind: the same numbers after a resume, honest stopping, no record twice."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest

from jobs import spool
from jobs.job import Job, Progress, RecordsLostError
from jobs.records import COMMON, RecordError
from jobs.spool import Spool, SpoolBusyError
from symcore.checkpoints import StoppedError


def job(folder: Path, opened: Spool) -> Job:
    return Job(folder, opened, COMMON, device="cpu", data_folder=folder, inputs={})


def emit(target: Job, step: int) -> None:
    target.emit("metric", member=[0], name=["loss"], step=[step], value=[step / 3])


def test_a_resumed_run_makes_its_batches_again_and_none_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "records.spool"
    with Spool(path) as opened:
        first = job(tmp_path, opened)
        for step in range(5):
            emit(first, step)
        mark = first.mark()
        for step in range(5, 7):
            emit(first, step)
    with Spool(path) as opened:
        second = job(tmp_path, opened)
        second.rewind(mark)
        for step in range(5, 9):
            emit(second, step)
        assert second.sequence == opened.count == 9
    with Spool(tmp_path / "undisturbed") as opened:
        whole = job(tmp_path, opened)
        for step in range(9):
            emit(whole, step)
    assert path.read_bytes() == (tmp_path / "undisturbed").read_bytes()


def test_what_is_recorded_once_is_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make(step: int) -> dict[str, list[object]]:
        made.append(step)
        return {
            "member": [0],
            "name": ["loss"],
            "step": [step],
            "value": [math.nan if step == 1 else step / 3],
        }

    for stop in (2, 5):
        with Spool(tmp_path / "s") as opened:
            started = job(tmp_path, opened)
            rows = [started.once("metric", partial(make, step)) for step in range(stop)]
    assert made == list(range(5))
    assert [row["value"][0].as_py() for row in rows] == pytest.approx(
        [0, math.nan, 2 / 3, 1, 4 / 3], nan_ok=True
    )
    with (
        Spool(tmp_path / "s") as opened,
        pytest.raises(RecordError, match="holds metric, this version records artifact"),
    ):
        job(tmp_path, opened).once("artifact", dict)


def test_a_checkpoint_ahead_of_the_records_is_not_gone_on_from(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as opened:
        started = job(tmp_path, opened)
        emit(started, 0)
        with pytest.raises(RecordsLostError, match="counts 2 batches of records, the spool holds 1"):
            started.rewind(2)


def test_two_processes_never_write_one_spool(tmp_path: Path) -> None:
    with Spool(tmp_path / "s"), pytest.raises(SpoolBusyError, match="being written by another process"):
        Spool(tmp_path / "s")
    with Spool(tmp_path / "s") as free:
        assert free.count == 0


def test_an_artifact_row_describes_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "weights.bin"
    file.write_bytes(b"abc")
    with Spool(tmp_path / "s") as opened:
        job(tmp_path, opened).artifact(file, "weights")
    from jobs.records import decode

    ((_, payload),) = spool.read(tmp_path / "s")
    assert decode(payload)[1].to_pylist() == [
        {
            "name": "weights",
            "path": "deep/weights.bin",
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "bytes": 3,
        }
    ]


def test_a_cancel_is_not_taken_back_by_a_signal(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as opened:
        started = job(tmp_path, opened)
        started.pause_point()
        started.progress(3, 10, "epoch 3")
        started.stop("cancelled")
        started.stop("interrupted")
        assert started.stop_reason == "cancelled"
        assert started.latest == Progress(3, 10, "epoch 3")
        with pytest.raises(StoppedError, match="stopped at 3 of 10"):
            started.pause_point()


def test_what_is_not_known_is_named_with_what_is(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as opened:
        started = job(tmp_path, opened)
        with pytest.raises(RecordError, match="table: 'metrics' is not known; accepted: metric, artifact"):
            started.emit("metrics", value=[1])
        with pytest.raises(LookupError, match="source: abc is not among this run's inputs"):
            started.input("abc")
