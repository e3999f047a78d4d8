"""What a lab promises its people: honest states, reuse of finished work, and ends that are ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import STUDY, TRAIN, FakeExecutor, eventually, finish, roles, state
from pydantic import ValidationError

from jobs import queries, service
from jobs.folder import LabUnusableError
from jobs.job import Progress
from jobs.kinds import align, interpolate
from jobs.planning import plan
from jobs.service import Service
from jobs.specs import spec_hash
from jobs.states import NotAllowedError, UnknownError
from jobs.study_clock import Share, study_fraction_and_eta


def test_a_run_starts_when_what_it_reads_is_done(lab: Service, executor: FakeExecutor) -> None:
    runs = roles(lab, lab.submit(STUDY))
    train, first, second = runs["standard/train/0"], runs["standard/path/0"], runs["rebasin/align/0"]
    eventually(lambda: executor.working() == [train])
    executor.of(train).end()
    eventually(lambda: sorted(executor.working()) == sorted([first, second]))
    assert state(lab, runs["rebasin/path/0"]) == "queued"
    executor.of(second).end()
    eventually(lambda: runs["rebasin/path/0"] in executor.working())


def test_a_run_of_networks_that_its_source_has_not_is_refused(lab: Service) -> None:
    lab.submit(TRAIN)
    wrong = align.Spec(source=spec_hash(TRAIN), pairs=((0, 99),))
    with pytest.raises(ValidationError, match="accepted: members 0 to"):
        lab.submit(wrong)
    assert queries.studies(lab.store).num_rows == 1


def test_no_more_runs_work_at_once_than_there_are_slots(tmp_path: Path) -> None:
    executor = FakeExecutor(count=1)
    with Service(tmp_path, executor=executor) as lab:
        study = lab.submit(STUDY.model_copy(update={"treatments": ("standard", "sigma", "w")}))
        finish(lab, executor, study)
    assert len(executor.started) == 6


def test_finished_work_is_reused_and_fresh_repeats_it(lab: Service, executor: FakeExecutor) -> None:
    first = lab.submit(STUDY)
    finish(lab, executor, first)
    again = lab.submit(STUDY)
    assert roles(lab, again) == roles(lab, first)
    assert all(run["reused"] for run in queries.study(lab.store, again)["runs"])
    assert queries.study(lab.store, again)["state"] == "done"
    fresh = lab.submit(STUDY, fresh=True)
    assert not set(roles(lab, fresh).values()) & set(roles(lab, first).values())


def test_more_pairs_reuse_the_blocks_that_are_there(lab: Service, executor: FakeExecutor) -> None:
    finish(lab, executor, lab.submit(STUDY))
    more = queries.study(lab.store, lab.submit(STUDY.model_copy(update={"pairs": 2})))["runs"]
    assert {run["role"] for run in more if run["reused"]} == set(roles(lab, lab.submit(STUDY)))
    assert {run["role"].rpartition("/")[2] for run in more if not run["reused"]} == {"1"}


def test_a_run_whose_files_are_gone_is_run_again_only_for_those_who_read_it(
    lab: Service, executor: FakeExecutor
) -> None:
    study = lab.submit(STUDY)
    train = roles(lab, study)["standard/train/0"]
    eventually(lambda: executor.working() == [train])
    lab.store.ingest(train, 0, [("artifact", _artifact("weights.safetensors"))]).result()
    executor.of(train).end()
    finish(lab, executor, study)
    assert roles(lab, lab.submit(STUDY)) == roles(lab, study)
    changed = roles(lab, lab.submit(STUDY.model_copy(update={"points": 5})))
    assert changed["standard/train/0"] != train
    assert changed["rebasin/align/0"] == roles(lab, study)["rebasin/align/0"]


def test_two_studies_share_a_run_and_one_of_them_cannot_cancel_it(
    lab: Service, executor: FakeExecutor
) -> None:
    one, other = lab.submit(STUDY), lab.submit(STUDY.model_copy(update={"points": 5}))
    shared = roles(lab, one)["standard/train/0"]
    assert roles(lab, other)["standard/train/0"] == shared
    eventually(lambda: executor.working() == [shared])
    ended = lab.cancel([one])
    assert set(ended) == set(roles(lab, one).values()) - set(roles(lab, other).values())
    assert state(lab, shared) == "running"
    assert set(lab.cancel([other])) == set(roles(lab, other).values())
    eventually(lambda: state(lab, shared) == "cancelled")
    lab.resume([one])
    assert shared not in lab.cancel([other]), "the other study waits for it again"


def test_a_failed_run_fails_those_that_read_it_and_they_name_it(lab: Service, executor: FakeExecutor) -> None:
    runs = roles(lab, lab.submit(STUDY))
    train = runs["standard/train/0"]
    eventually(lambda: executor.working() == [train])
    executor.of(train).end("failed", error="ValueError: n_fix: 9")
    eventually(lambda: {state(lab, run) for run in runs.values()} == {"failed"})
    assert queries.run(lab.store, train)["error"] == "ValueError: n_fix: 9"
    assert train in queries.run(lab.store, runs["standard/path/0"])["error"]
    assert queries.run(lab.store, runs["rebasin/path/0"])["error"].startswith("source: its input, run r")


def test_resuming_a_run_resumes_what_it_reads(lab: Service, executor: FakeExecutor) -> None:
    study = lab.submit(STUDY)
    runs = roles(lab, study)
    eventually(executor.working)
    executor.of(runs["standard/train/0"]).end("failed", error="no")
    eventually(lambda: {state(lab, run) for run in runs.values()} == {"failed"})
    resumed = lab.resume([runs["rebasin/path/0"]])
    assert set(resumed) == {runs["rebasin/path/0"], runs["rebasin/align/0"], runs["standard/train/0"]}
    lab.resume([study])
    finish(lab, executor, study)
    assert executor.of(runs["standard/train/0"]).attempt == 2


def test_delete_hides_and_purge_removes(lab: Service, executor: FakeExecutor) -> None:
    study = lab.submit(STUDY)
    runs = list(roles(lab, study).values())
    with pytest.raises(NotAllowedError, match="cancel it before deleting"):
        lab.delete([study])
    assert queries.count_runs(lab.store) == 4
    finish(lab, executor, study)
    kept = lab.submit(STUDY.model_copy(update={"treatments": ("standard",)}))
    shared = set(roles(lab, kept).values())
    assert set(lab.delete([study])) == set(runs) - shared
    assert queries.count_runs(lab.store) == len(shared)
    assert queries.studies(lab.store)["study"].to_pylist() == [kept]
    assert all(lab.run_folder(run).exists() for run in runs)
    purged = lab.purge()
    assert purged.runs == len(runs) - len(shared)
    assert purged.bytes > 0
    assert {run for run in runs if lab.run_folder(run).exists()} == shared
    assert lab.purge().runs == 0
    with pytest.raises(UnknownError):
        lab.resume([study])
    assert set(roles(lab, lab.submit(STUDY)).values()) & set(runs) == shared


def test_nothing_is_queued_of_a_spec_with_a_wrong_field(lab: Service) -> None:
    with pytest.raises(ValidationError, match="pairs"):
        lab.submit({"kind": "lmc", "pairs": 0})
    reader = align.Spec(source="0" * 32, pairs=((0, 1),))
    with pytest.raises(NotAllowedError, match=r"source: 0{32}"):
        lab.submit(reader)
    assert lab.store.read("SELECT * FROM run").num_rows == lab.store.read("SELECT * FROM study").num_rows == 0


def test_a_single_run_finds_what_it_reads_by_its_hash(lab: Service, executor: FakeExecutor) -> None:
    finish(lab, executor, lab.submit(TRAIN))
    study = lab.submit(align.Spec(source=spec_hash(TRAIN), pairs=((0, 1),)))
    finish(lab, executor, study)
    assert lab.results(study) == {}


def test_a_single_run_that_reads_another_shows_how_far_it_is(lab: Service, executor: FakeExecutor) -> None:
    finish(lab, executor, lab.submit(TRAIN))
    study = lab.submit(_path(spec_hash(TRAIN)))
    assert lab.study_progress(study).fraction == 0.0
    [cost] = lab._clock._costs[study].values()
    assert cost > 0
    finish(lab, executor, study)
    assert lab.study_progress(study).fraction == 1.0


def test_a_study_keeps_the_order_of_its_plan_when_its_runs_are_reused(
    lab: Service, executor: FakeExecutor
) -> None:
    planned = [spec_hash(run.spec) for run in plan(STUDY)]
    first = lab.submit(STUDY)
    finish(lab, executor, first)
    again = lab.submit(STUDY)
    for study in (first, again):
        assert [lab.ledger.runs[run].hash for run in lab.ledger.studies[study].runs] == planned
    before = list(lab.ledger.runs)
    lab.ledger.load()
    assert list(lab.ledger.runs) == before


def test_only_its_owner_can_enter_a_lab(tmp_path: Path) -> None:
    with Service(tmp_path / "deep" / "lab", executor=FakeExecutor()) as lab:
        modes = [path.stat().st_mode & 0o777 for path in (lab.folder, lab.lab.runs)]
    assert modes == [0o700, 0o700]


def test_a_folder_has_one_owner(lab: Service) -> None:
    lab.announce("http://127.0.0.1:1")
    with pytest.raises(LabUnusableError, match=r"already served .* at http://127.0.0.1:1 \(process \d+\)"):
        Service(lab.folder, executor=FakeExecutor()).open()


def test_the_process_has_one_lab_that_pages_find(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="symlab up"):
        service.current()
    lab = service.start(tmp_path, executor=FakeExecutor())
    try:
        assert service.current() is lab
        assert lab.ready() == {"ready": True, "store": True, "writer": True, "dispatcher": True}
        with pytest.raises(NotAllowedError):
            service.start(tmp_path / "other", executor=FakeExecutor())
    finally:
        service.stop()
    with pytest.raises(LookupError):
        service.current()


def test_progress_comes_with_rate_and_time_left(lab: Service, executor: FakeExecutor) -> None:
    study = lab.submit(TRAIN)
    [run] = roles(lab, study).values()
    eventually(executor.working)
    assert lab.progress(run) is None
    lab.dispatcher.beat(run, 1, Progress(0, 10, "epoch 0"))
    pace = lab.dispatcher._live[run].pace
    pace._reports[0] = (pace._reports[0][0] - 2.0, pace._reports[0][1])
    lab.dispatcher.beat(run, 1, Progress(4, 10, "epoch 4"))
    found = lab.progress(run)
    assert found is not None
    assert (found.done, found.total, found.note, found.fraction) == (4, 10, "epoch 4", 0.4)
    assert found.rate == pytest.approx(2.0, rel=0.1)
    assert found.eta == pytest.approx(3.0, rel=0.1)
    whole = lab.study_progress(study)
    assert whole.fraction == pytest.approx(0.4)
    assert whole.notes == {"train": "epoch 4"}


def test_time_left_of_a_study_is_work_left_at_the_speed_so_far() -> None:
    done, half, waiting = Share(10, 1.0, 5.0), Share(10, 0.5, 2.5), Share(20, 0.0, 0.0)
    fraction, eta = study_fraction_and_eta([done, half, waiting], slots=1)
    assert fraction == pytest.approx(15 / 40)
    assert eta == pytest.approx(25 * 0.5)
    assert study_fraction_and_eta([done, half, waiting], slots=2)[1] == pytest.approx(25 * 0.5 / 2)
    assert study_fraction_and_eta([waiting], slots=1) == (0.0, None)
    assert study_fraction_and_eta([done], slots=1) == (1.0, 0.0)


def _path(source: str) -> interpolate.Spec:
    return interpolate.Spec(
        data=TRAIN.data, data_checksum=TRAIN.data_checksum, source=source, pairs=((0, 1),), points=3
    )


def _artifact(path: str) -> object:
    import pyarrow as pa

    return pa.record_batch({"name": ["weights"], "path": [path], "sha256": ["0"], "bytes": [1]})
