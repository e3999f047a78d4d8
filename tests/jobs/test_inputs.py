"""A run says how far the download of its data set is, and can be stopped in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kind_tools import carried_out, trained

from jobs import inputs, registry
from jobs.job import Job, Progress
from jobs.spool import Spool
from symcore.data import sources
from symcore.data.published import OnBytes
from symcore.data.sources import Dataset
from symcore.treatments import Standard

STEPS = [(0, 0), (1_240_000, 0), (1_240_000, 1_648_877), (12_345_678, 170_498_071)]
NOTES = ["", ", 1.2 MB", ", 1.2 of 1.6 MB", ", 12 of 170 MB"]


def downloading(name: str, folder: Path, on_bytes: OnBytes) -> Dataset:
    for here, total in STEPS:
        on_bytes("all.tar.gz", here, total)
    return sources.load(name, folder)


def test_a_download_is_told_of_until_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "load", downloading)
    heard: list[Progress] = []
    with Spool(tmp_path / "records.spool") as opened:
        job = Job(
            tmp_path,
            opened,
            registry.tables(),
            device="cpu",
            data_folder=tmp_path,
            inputs={},
            on_progress=heard.append,
        )
        assert inputs.dataset(trained(Standard()), job).source.name == "digits"
    assert [told.note for told in heard] == [*(f"downloading all.tar.gz{note}" for note in NOTES), ""]
    assert {(told.done, told.total) for told in heard} == {(0, 1)}


def test_a_run_is_stopped_in_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "load", downloading)
    outcome = carried_out(trained(Standard()), tmp_path, {}, stop_at=0)
    assert (outcome.state, outcome.error, outcome.batches) == ("interrupted", "", 0)
    assert "stopped at 0 of 1" in (tmp_path / "log.txt").read_text()
