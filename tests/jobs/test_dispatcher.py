"""What becomes of workers that are slow, silent, killed or left alone: states that are true, and no record lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fakes import STUDY, TRAIN, FakeExecutor, FakeProcess, eventually, finish, metric_batch, roles, state

from jobs import queries
from jobs.dispatcher import StaleAttemptError
from jobs.execution import Outcome
from jobs.executors.local import LocalProcess
from jobs.job import Progress
from jobs.service import Service
from jobs.states import State


def test_cancelling_asks_first_and_kills_after_the_grace(tmp_path: Path) -> None:
    executor = FakeExecutor(obeys=False)
    with Service(tmp_path, executor=executor, grace=0.3) as lab:
        [run] = roles(lab, lab.submit(TRAIN)).values()
        eventually(executor.working)
        assert lab.cancel([run]) == [run]
        assert state(lab, run) == "cancelling"
        assert lab.dispatcher.beat(run, 1) == "cancel"
        assert not executor.of(run).killed
        eventually(lambda: state(lab, run) == "cancelled")
        assert executor.of(run).killed
        assert lab.cancel([run]) == []


def test_a_run_that_finishes_before_it_hears_of_its_cancelling_is_done(
    lab: Service, executor: FakeExecutor
) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    executor.of(run).obeys = False
    lab.cancel([run])
    executor.of(run).end("done", summary={"test/loss": 0.5})
    eventually(lambda: state(lab, run) == "done")
    assert queries.run(lab.store, run)["summary"] == {"test/loss": 0.5}


def test_a_silent_worker_is_lost_until_it_speaks_again(tmp_path: Path) -> None:
    executor = FakeExecutor()
    with Service(tmp_path, executor=executor, lease=0.2) as lab:
        [run] = roles(lab, lab.submit(TRAIN)).values()
        eventually(lambda: state(lab, run) == "lost")
        assert f"process {executor.of(run).pid}" in queries.run(lab.store, run)["error"]
        assert lab.dispatcher.beat(run, 1, Progress(1, 4)) == "continue"
        assert state(lab, run) == "running"
        executor.of(run).end()
        eventually(lambda: state(lab, run) == "done")


def test_a_dead_worker_is_replaced_until_nothing_comes_of_it(lab: Service, executor: FakeExecutor) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    for attempt in range(1, 5):
        eventually(lambda attempt=attempt: executor.working() and executor.of(run).attempt == attempt)
        executor.of(run).kill()
    eventually(lambda: executor.working() and executor.of(run).attempt == 5)
    executor.of(run).record(metric_batch(1))  # something came of it: the count begins again
    executor.of(run).kill()
    for attempt in range(6, 11):
        eventually(lambda attempt=attempt: executor.working() and executor.of(run).attempt == attempt)
        (lab.run_folder(run) / "log.txt").write_text("Killed for its memory\n")
        executor.of(run).kill()
    eventually(lambda: state(lab, run) == "failed")
    error = queries.run(lab.store, run)["error"]
    assert "5 times in a row" in error
    assert "Killed for its memory" in error
    assert [event["type"] for event in queries.run(lab.store, run)["events"]].count("lost") == 10
    lab.resume([run])
    eventually(executor.working, "a person may try again")


def test_an_older_attempt_has_no_say(lab: Service, executor: FakeExecutor) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    executor.of(run).kill()
    eventually(lambda: executor.of(run).attempt == 2)
    with pytest.raises(StaleAttemptError):
        lab.dispatcher.beat(run, 1)
    with pytest.raises(StaleAttemptError):
        lab.dispatcher.finish(run, 1, Outcome(state="done", batches=0))
    assert state(lab, run) == "running"


def test_what_a_worker_spooled_counts_even_if_it_told_nobody(lab: Service, executor: FakeExecutor) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    process = executor.of(run)
    process.record(metric_batch(1), metric_batch(2))
    process.end()
    eventually(lambda: state(lab, run) == "done")
    assert queries.metrics(lab.store, [run])["step"].to_pylist() == [1, 2, 1, 2]


def test_a_run_whose_records_did_not_arrive_whole_is_not_done(lab: Service, executor: FakeExecutor) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    with lab.ledger.lock:  # the dispatcher looks when all of this has happened
        executor.of(run).record(metric_batch(1), metric_batch(2))
        executor.of(run).end()
        spool = lab.run_folder(run) / "records.spool"
        spool.write_bytes(spool.read_bytes()[:-3])
    eventually(lambda: state(lab, run) == "failed")
    assert "1 of 2 batches" in queries.run(lab.store, run)["error"]


def test_a_run_resumed_before_its_worker_has_left_waits_for_it(lab: Service, executor: FakeExecutor) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    leaving = executor.of(run)
    leaving.obeys = False
    lab.dispatcher.grace = 30.0
    lab.cancel([run])
    lab.dispatcher.finish(run, 1, Outcome(state="cancelled", batches=0))
    lab.resume([run])
    others = [TRAIN.model_copy(update={"seeds": (seed,)}) for seed in (7, 8)]
    [second], [third] = (roles(lab, lab.submit(spec)).values() for spec in others)
    eventually(lambda: second in executor.working())
    time.sleep(0.3)
    assert executor.of(run) is leaving
    assert third not in executor.working()
    leaving.running = False
    eventually(lambda: executor.of(run).attempt == 2)
    for each in (run, second):
        executor.of(each).end()
    eventually(lambda: third in executor.working())
    executor.of(third).end()
    eventually(lambda: len(lab.dispatcher._free) == executor.count, "a slot is lost")


def test_a_worker_that_stays_silent_is_ended_and_its_run_goes_on(tmp_path: Path) -> None:
    executor = FakeExecutor(obeys=False)
    with Service(tmp_path, executor=executor, lease=0.1, grace=0.2) as lab:
        [run] = roles(lab, lab.submit(TRAIN)).values()
        eventually(executor.working)
        mute = executor.of(run)
        eventually(lambda: executor.of(run).attempt == 2)
        assert mute.killed
        lab.dispatcher.beat(run, 2)
        types = [event["type"] for event in queries.run(lab.store, run)["events"]]
        assert types[:5] == ["queued", "running", "lost", "queued", "running"]


def _no_outcome_for_us(process: FakeProcess) -> None:
    process.end()
    (process.folder / "outcome.json").unlink()
    (process.folder / "outcome.json").mkdir()


def _no_spool_for_us(process: FakeProcess) -> None:
    (process.folder / "records.spool").mkdir()
    process.running = False


def _no_signal_for_us(process: FakeProcess) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    process.obeys = False
    process.kill = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_no_outcome_for_us, "IsADirectoryError"),
        (_no_spool_for_us, "Is a directory"),
        (_no_signal_for_us, "PermissionError"),
    ],
)
def test_what_goes_wrong_with_one_worker_fails_its_run_and_no_other(
    lab: Service, executor: FakeExecutor, fault: Callable[[FakeProcess], None], said: str
) -> None:
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    process = executor.of(run)
    with lab.ledger.lock:
        fault(process)
        if process.running:
            lab.cancel([run])
    eventually(lambda: state(lab, run) == "failed")
    error = queries.run(lab.store, run)["error"]
    assert said in error
    assert "\n" not in error
    process.running = False
    eventually(lambda: len(lab.dispatcher._free) == executor.count)
    finish(lab, executor, lab.submit(TRAIN.model_copy(update={"seeds": (7,)})))
    assert lab.dispatcher.alive


def test_a_checkpoint_that_is_renamed_meanwhile_is_no_error(
    lab: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.settling import progress_mark

    (tmp_path / "checkpoint").touch()
    listed = [tmp_path / "checkpoint.partial", tmp_path / "checkpoint"]
    monkeypatch.setattr(Path, "glob", lambda _path, _pattern: iter(listed))
    before = progress_mark(lab.store, "r1", tmp_path)
    os.utime(tmp_path / "checkpoint", (1, 1))
    assert progress_mark(lab.store, "r1", tmp_path) != before


def test_a_process_is_known_again_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    me = LocalProcess.of(os.getpid())
    told = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: told(process) + 3600.0)
    assert me.alive()
    assert not LocalProcess(me.pid, "another time").alive()
    assert not LocalProcess.of(2**22 + 1).alive()


def test_a_stopped_lab_goes_on_where_it_was(tmp_path: Path) -> None:
    executor = FakeExecutor()
    with Service(tmp_path, executor=executor) as lab:
        study = lab.submit(STUDY)
        eventually(executor.working)
        train = executor.of(roles(lab, study)["standard/train/0"])
        train.record(metric_batch(1))
    assert not train.running
    assert not train.killed
    with Service(tmp_path, executor=executor) as lab:
        finish(lab, executor, study)
        assert executor.of(train.folder.name).attempt == 2
        events = [event["type"] for event in queries.run(lab.store, train.folder.name)["events"]]
        assert events == ["queued", "running", "queued", "running", "done"]


def _crash(lab: Service) -> None:
    """End a lab as a kill does: workers hear nothing, no state is written."""
    lab.dispatcher._live.clear()
    lab.close()


def test_a_restarted_lab_adopts_workers_that_live(tmp_path: Path) -> None:
    executor = FakeExecutor()
    lab = Service(tmp_path, executor=executor).open()
    [run] = roles(lab, lab.submit(TRAIN)).values()
    eventually(executor.working)
    _crash(lab)
    with Service(tmp_path, executor=executor) as lab:
        assert state(lab, run) == "running"
        assert lab.dispatcher.beat(run, 1, Progress(1, 2)) == "continue"
        assert len(executor.started) == 1
        executor.of(run).end()
        eventually(lambda: state(lab, run) == "done")


def test_a_restarted_lab_reads_how_workers_ended_meanwhile(tmp_path: Path) -> None:
    executor = FakeExecutor()
    lab = Service(tmp_path, executor=executor).open()
    [done] = roles(lab, lab.submit(TRAIN)).values()
    [dead] = roles(lab, lab.submit(TRAIN.model_copy(update={"seeds": (7, 8)}))).values()
    eventually(lambda: len(executor.working()) == 2)
    _crash(lab)
    executor.of(done).record(metric_batch(1))
    executor.of(done).end(summary={"test/loss": 0.5})
    executor.of(dead).record(metric_batch(1))
    executor.of(dead).kill()
    with Service(tmp_path, executor=executor) as lab:
        assert state(lab, done) == "done"
        assert queries.run(lab.store, done)["summary"] == {"test/loss": 0.5}
        assert lab.store.acknowledged(done) == lab.store.acknowledged(dead) == 1
        eventually(lambda: executor.working() == [dead])
        assert executor.of(dead).attempt == 2


def test_every_state_but_done_can_be_left() -> None:
    from jobs.states import FINISHED, MOVES

    assert set(MOVES) == set(State)
    assert {state for state, following in MOVES.items() if not following} == {State.DONE}
    assert {state for state in State if not MOVES[state] - {State.QUEUED}} - {State.QUEUED} == FINISHED
