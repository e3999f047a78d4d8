"""A study with no server: it gives every treatment's paths, whatever interrupts it, on a machine with little installed."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from jobs import execution, offline, planning, registry, spool
from jobs.execution import Outcome
from jobs.job import Job, Progress
from jobs.progress_line import ProgressLine
from jobs.records import decode
from jobs.specs import canonical_json, spec_hash
from jobs.spool import Spool
from jobs.studies import lmc
from jobs.studies.aligned import PAPERS
from symcore import metrics, training
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec

SPEC = lmc.Spec(
    network=MLPSpec(width=8, depth=1), training=TrainingSpec(epochs=4, batch=128), pairs=2, block=2
)
NOT_THERE = (
    "duckdb",
    "streamlit",
    "altair",
    "pandas",
    "cyclopts",
    "rich",
    "pooch",
    "psutil",
    "httpx",
)
"""What a GPU node need not have."""
BARE = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {NOT_THERE} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from jobs.offline import command
sys.exit(command(sys.argv[1:]))
"""


class Interrupting(ProgressLine):
    """Sends the study a SIGTERM at one report of progress, counted from 1."""

    def __init__(self, stop: offline.Stop, at: int) -> None:
        super().__init__(io.StringIO())
        self.stop, self.at, self.reports = stop, at, 0

    def progress(self, role: str, progress: Progress) -> None:
        super().progress(role, progress)
        self.reports += 1
        if self.reports == self.at:
            self.stop.take(signal.SIGTERM)


def carry_out(out: Path, interrupt_at: int = 0, spec: lmc.Spec = SPEC) -> tuple[Outcome, int]:
    stop = offline.Stop()
    line = Interrupting(stop, interrupt_at)
    offline.prepare(spec, out, resume=True)
    outcome = offline.study(spec, offline.Place(out, out / "data", "cpu"), stop, line)
    return outcome, line.reports


def results(out: Path) -> dict[str, bytes]:
    """All that a study computed, byte for byte."""
    names = ("spec.json", "records.spool", "weights.safetensors", "permutations.safetensors")
    files = {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in out.glob("runs/*/*")
        if path.name in names
    }
    summaries = {
        path.parent.name: json.dumps(json.loads(path.read_text())["summary"]).encode()
        for path in out.glob("runs/*/outcome.json")
    }
    return files | summaries


def records(out: Path, table: str) -> tuple[dict[str, str], pa.Table]:
    """The run of each role, and all rows of one table with the run that they came from."""
    roles = {run["role"]: run["run"] for run in json.loads((out / "study.json").read_text())["runs"]}
    batches = []
    for run in roles.values():
        decoded = [decode(payload) for _, payload in spool.read(out / "runs" / run / "records.spool")]
        assert Outcome.read(out / "runs" / run).batches == len(decoded)
        batches += [
            b.append_column("run", pa.array([run] * b.num_rows)) for name, b in decoded if name == table
        ]
    return roles, pa.Table.from_batches(batches)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    outcome, _ = carry_out(out)
    assert outcome.state == "done"
    return out


def test_every_treatment_has_its_paths_and_the_study_its_numbers(undisturbed: Path) -> None:
    assert json.loads((undisturbed / "study.json").read_text())["study"] == SPEC.model_dump(mode="json")
    roles, points = records(undisturbed, "path_point")
    assert points.num_rows == 4 * 2 * SPEC.pairs * SPEC.points
    found = lmc.results(SPEC, roles, {"path_point": points})
    summary = found["summary"].filter(pa.compute.equal(found["summary"]["quantity"], "loss")).to_pylist()
    assert [(row["treatment"], row["split"]) for row in summary] == [
        (name, split) for name in PAPERS for split in ("test", "train")
    ]
    for row in summary:
        assert math.isfinite(row["barrier_midpoint_std"])
        assert row["barrier_maximum"] >= row["barrier_midpoint"]
    standard, aligned = summary[0], summary[2]
    assert aligned["endpoint"] == pytest.approx(standard["endpoint"], rel=1e-6)
    assert aligned["barrier_midpoint"] < standard["barrier_midpoint"]


def test_a_path_begins_and_ends_at_the_networks_that_were_trained(undisturbed: Path) -> None:
    roles, metrics = records(undisturbed, "metric")
    _, points = records(undisturbed, "path_point")
    for name in ("standard", "sigma", "w"):
        final = {
            row["member"]: row["value"]
            for row in metrics.to_pylist()
            if (row["run"], row["name"]) == (roles[f"{name}/train/0"], "final/test/loss")
        }
        ends = {
            2 * row["pair"] + int(row["alpha"]): row["loss"]
            for row in points.to_pylist()
            if (row["run"], row["split"]) == (roles[f"{name}/path/0"], "test") and row["alpha"] in {0.0, 1.0}
        }
        assert ends == pytest.approx(final, rel=1e-6)
        assert len(final) == 2 * SPEC.pairs


def test_masks_per_pair_give_a_pair_what_it_gets_from_its_mask_seed_alone(tmp_path: Path) -> None:
    short = SPEC.model_copy(
        update={"treatments": ("sigma", "w"), "training": TrainingSpec(epochs=2, batch=256)}
    )
    curves = []
    for per_pair in (False, True):
        out = tmp_path / str(per_pair)
        spec = short.model_copy(update={"mask_per_pair": per_pair})
        assert carry_out(out, spec=spec)[0].state == "done"
        roles, points = records(out, "path_point")
        table = lmc.results(spec, roles, {"path_point": points})["paths"]
        curves.append(
            [table.filter(pa.compute.equal(table["pair"], pair))["value"].to_numpy() for pair in (0, 1)]
        )
    (shared_first, shared_second), (own_first, own_second) = curves
    np.testing.assert_allclose(own_first, shared_first, rtol=1e-4)
    assert np.abs(own_second - shared_second).max() > 0.01


def test_a_runs_folder_is_named_by_what_it_computed_and_says_where(undisturbed: Path) -> None:
    for run in planning.plan(SPEC):
        folder = undisturbed / "runs" / spec_hash(run.spec)
        assert (folder / "spec.json").read_text() == canonical_json(run.spec)
        told = json.loads((folder / "environment.json").read_text())
        assert told["threads"] == 1
        assert {"torch", "numpy", "pydantic"} <= set(told["packages"])
        assert told["device_name"]


@pytest.mark.parametrize("at", [1, 46])
def test_an_interrupted_study_goes_on_to_the_same_bytes(
    at: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training._Watch, "INTERVAL", 0.0)  # it looks up after every step
    interrupted, reports = carry_out(tmp_path, interrupt_at=at)
    assert reports >= at
    assert interrupted.state == "interrupted"
    assert carry_out(tmp_path)[0].state == "done"
    assert results(tmp_path) == results(undisturbed)
    assert not list(tmp_path.glob("runs/*/checkpoint*"))


def test_records_lost_with_the_disk_are_made_again(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training._Watch, "INTERVAL", 0.0)
    carry_out(tmp_path, interrupt_at=20)
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint.safetensors")
    (checkpoint.parent / "records.spool").write_bytes(b"")
    assert carry_out(tmp_path)[0].state == "done"
    assert "training begins again" in (checkpoint.parent / "log.txt").read_text()
    assert results(tmp_path) == results(undisturbed)


def test_a_damaged_checkpoint_is_left_behind(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training._Watch, "INTERVAL", 0.0)
    carry_out(tmp_path, interrupt_at=20)
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert carry_out(tmp_path)[0].state == "done"
    assert "training begins again" in (checkpoint.parent / "log.txt").read_text()
    assert results(tmp_path) == results(undisturbed)


def test_evaluating_a_path_stops_within_a_chunk_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reports of the first path come before a single pair is done; a stop there ends it there."""
    looks: list[int] = []
    pause, evaluate = Job.pause_point, metrics.Evaluator.__call__

    def look(self: Job) -> None:
        if "split" in self.latest.note:
            looks.append(len(evaluations))
            if evaluations:
                self.stop("interrupted")
        pause(self)

    evaluations: list[str] = []

    def count(self: metrics.Evaluator, *given: Any) -> Any:
        if looks:
            evaluations.append("path")
        return evaluate(self, *given)

    monkeypatch.setattr(metrics.Evaluator, "__call__", count)
    monkeypatch.setattr(Job, "pause_point", look)
    assert carry_out(tmp_path)[0].state == "interrupted"
    assert looks == [0, 1]


def test_the_command_stops_at_sigterm_and_resumes_with_little_installed(
    undisturbed: Path, tmp_path: Path
) -> None:
    spec, out = tmp_path / "spec.json", tmp_path / "out"
    spec.write_text(canonical_json(SPEC))
    arguments = [
        sys.executable,
        "-W",
        "error",
        "-c",
        BARE,
        "--offline",
        str(spec),
        str(out),
        "--device",
        "cpu",
    ]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(p.stat().st_size for p in out.glob("runs/*/records.spool")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "interrupted after" in said
    resumed = subprocess.run(
        [*arguments, "--resume", "--no-weights"], check=False, capture_output=True, text=True, timeout=120
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "w/path/0: " in resumed.stderr
    kept = {name: content for name, content in results(undisturbed).items() if "weights" not in name}
    assert results(out) == kept


@pytest.fixture(autouse=True)
def _keep_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(*arguments: str) -> int:
    return offline.command(["--offline", *arguments])


def test_nothing_is_begun_where_something_is_wrong(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.json"
    out = tmp_path / "out"

    def refused(text: str, *arguments: str) -> bool:
        assert command(*arguments) == 2
        return text in capsys.readouterr().err

    spec.write_text('{"kind": "lmc", "pairs": 0, "points": 4}')
    assert command(str(spec), str(out)) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "pairs: Input should be greater than or equal to 1; got 0"
    assert said[1].startswith("points: 4 is even")
    assert refused("no preset 'huge'; accepted: smoke, laptop, paper", "lmc:huge", str(out))
    assert refused("No such file or directory; accepted: a JSON file, or", "nowhere.json", str(out))
    assert refused("device: 'tpu'; accepted: auto, cpu", "lmc:smoke", str(out), "--device", "tpu")
    spec.write_text(canonical_json(planning.plan(SPEC)[1].spec))
    assert refused("accepted: a study, or a run with no inputs", str(spec), str(out))
    assert refused("threads: 0; accepted: a whole number from 1", "lmc:smoke", str(out), "--threads", "0")
    spec.write_bytes(b"\xff\xfe\x00")
    assert refused("is not text; accepted: a JSON file, or", str(spec), str(out))
    assert not out.exists()
    spec.write_text(canonical_json(SPEC))
    assert refused("Not a directory; accepted: a folder to write in", str(spec), str(spec))
    assert refused("Not a directory; accepted: a folder to write in", str(spec), str(spec / "out"))
    with offline.hold(undisturbed):
        assert refused("another worker is at work in", str(spec), str(undisturbed), "--resume")
    assert refused("give --resume", str(spec), str(undisturbed))
    assert refused("holds another study", "lmc:smoke", str(undisturbed), "--resume")
    assert refused("is not empty and holds no study", str(spec), str(tmp_path))


def test_a_failed_run_says_why_in_one_line_and_ends_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMLAB_CHECKPOINT_SECONDS", "soon")
    first = planning.plan(SPEC)[0].spec
    spec = tmp_path / "spec.json"
    spec.write_text(canonical_json(first))
    assert command(str(spec), str(tmp_path / "out"), "--device", "cpu") == 1
    outcome = Outcome.read(tmp_path / "out" / "runs" / spec_hash(first))
    assert outcome.state == "failed"
    assert outcome.error == "ValueError: SYMLAB_CHECKPOINT_SECONDS: 'soon'; accepted: a number above 0"
    assert "\n" not in outcome.error
    assert f"failed after 0:00:00: {outcome.error}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("role", "change", "error"),
    [
        (
            "standard/path/0",
            {"pairs": [[0, 1], [0, 4]]},
            "ValueError: pairs: [0, 4]; accepted: members 0 to 3",
        ),
        ("rebasin/align/0", {"pairs": [[9, 1]]}, "ValueError: pairs: [9, 1]; accepted: members 0 to 3"),
        (
            "standard/path/0",
            {"source": "0" * 32},
            f"LookupError: source: {'0' * 32} is not among this run's inputs",
        ),
    ],
)
def test_a_run_of_networks_that_do_not_exist_names_those_that_do(
    role: str, change: dict[str, Any], error: str, undisturbed: Path, tmp_path: Path
) -> None:
    planned = {run.role: run.spec for run in planning.plan(SPEC)}
    source = spec_hash(planned["standard/train/0"])
    spec = registry.run_spec(planned[role].model_dump(mode="json") | change)
    with Spool(tmp_path / "records.spool") as opened:
        inputs = {source: undisturbed / "runs" / source}
        job = Job(tmp_path, opened, registry.tables(), device="cpu", data_folder=tmp_path, inputs=inputs)
        outcome = execution.carry_out(spec, job)
    assert outcome.state == "failed"
    assert outcome.error.startswith(error)
