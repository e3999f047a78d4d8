"""The studies of low paths and of valleys: what they plan, and what their numbers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from kind_tools import check_fits, study_tables
from pydantic import ValidationError

from jobs import registry
from jobs.headline import spread
from jobs.inputs import snapshot
from jobs.kinds import train, valley
from jobs.specs import RunSpec, spec_hash
from jobs.studies import curves, landscape, lmc, valleys, valleys_results
from symcore.data.sources import load as load_data
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import load
from symcore.training import TrainingSpec

STUDIES = {"curves": curves, "valleys": valleys}


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([("run", pa.string()), *registry.tables()[name]]))


def empty(study: Any) -> dict[str, pa.Table]:
    return {name: table(name, []) for name in study.RECORDS}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_every_run_comes_after_its_inputs(name: str, preset: str) -> None:
    made: set[str] = set()
    for run in STUDIES[name].expand(STUDIES[name].PRESETS[preset]):
        assert set(run.spec.inputs()) <= made
        made.add(spec_hash(run.spec))
    assert len(made) == {"curves": 3 * 4 + 4, "valleys": 3 * 3}[name]


def test_curves_join_the_networks_of_the_linear_study() -> None:
    """Of five pairs, so that neither training, alignment nor straight paths are carried out twice."""
    mine, theirs = ({run.role: spec_hash(run.spec) for run in s.expand(s.Spec())} for s in (curves, lmc))
    assert theirs.items() <= mine.items()


def test_slices_from_the_average_lead_to_the_end_of_training_that_went_on_from_it() -> None:
    """He, Huang and Yuan 2019, section 7.3 of their code's protocol on digits: averaged from epoch 30 of 60, then 60 more."""
    planned = {run.role: run.spec for run in valleys.expand(valleys.PRESETS["swa"])}
    for name in valleys.PRESETS["swa"].treatments:
        first, onward = (planned[f"{name}/{part}/0"] for part in ("averaged", "train"))
        slices, curved = (planned[f"{name}/{part}/0"] for part in ("valley", "curvature"))
        assert isinstance(first, train.Spec)
        assert isinstance(onward, train.Spec)
        assert isinstance(slices, valley.Spec)
        assert (onward.start, onward.averaged) == (spec_hash(first), 30)
        assert train.snapshot_epochs(first)[-30:] == list(range(30, 60))
        assert [first.training.rate(epoch) for epoch in (0, 20, 25, 30, 59)] == [1, 1, 0.75, 0.5, 0.5]
        assert {onward.training.rate(epoch) * onward.training.learning_rate for epoch in range(60)} == {2e-3}
        assert onward.training.optimizer == "sgd"
        assert (slices.source, slices.average_of, slices.averaged) == (
            spec_hash(onward),
            spec_hash(first),
            30,
        )
        assert curved.inputs() == (spec_hash(onward),)
        known: dict[str, RunSpec] = {spec_hash(run): run for run in planned.values()}
        train.check_inputs(onward, known)
        valley.check_inputs(slices, known)


def test_slices_without_an_average_need_no_run_that_is_averaged() -> None:
    spec = valleys.PRESETS["swa"].model_copy(update={"directions": ("sign",)})
    slices = [run.spec for run in valleys.expand(spec) if isinstance(run.spec, valley.Spec)]
    assert [run.average_of for run in slices] == [None] * 3


def test_more_eigenvalues_than_steps_are_refused() -> None:
    with pytest.raises(ValidationError, match="41 of 40 steps; accepted: 1 to 40") as caught:
        valleys.Spec(eigenvalues=41)
    assert caught.value.errors()[0]["loc"] == ("eigenvalues",)


def test_a_short_training_keeps_a_snapshot_an_epoch() -> None:
    short = {"training": TrainingSpec(epochs=3)}
    first, slices, *_ = (run.spec for run in valleys.expand(valleys.Spec(**short)))
    assert isinstance(first, train.Spec)
    assert isinstance(slices, valley.Spec)
    assert (first.snapshots, slices.averaged) == (3, 3)
    planned = {
        run.role: run.spec for run in landscape.expand(landscape.Spec(training=TrainingSpec(epochs=1)))
    }
    assert planned["w/train/0"].snapshots == 0
    assert "w/trajectory/0" not in planned


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_which_nothing_is_done_has_empty_tables_and_a_headline(name: str) -> None:
    study = STUDIES[name]
    found = study.results(study.Spec(), {}, empty(study))
    assert {key: rows.num_rows for key, rows in found.items()} == dict.fromkeys(found, 0)
    assert study.headline({key: rows.to_pylist() for key, rows in found.items()}).rows == ()


def test_rises_are_above_the_first_network() -> None:
    rows = [
        {
            "run": "r",
            "pair": 0,
            "order": "single",
            "layer": 0,
            "name": "readout",
            "alpha": alpha,
            "split": "test",
        }
        | {"loss": loss, "accuracy": accuracy}
        for alpha, loss, accuracy in ((0.0, 1.0, 0.9), (0.5, 3.0, 0.8), (1.0, 7.0, 0.5))
    ]
    tables = empty(curves) | {"layer_point": table("layer_point", rows)}
    found = curves.results(curves.Spec(), {"w/layers/0": "r", "standard/layers/0": "other"}, tables)
    rises = {row["quantity"]: row for row in found["layers"].to_pylist()}
    assert (rises["loss"]["rise_midway"], rises["loss"]["rise_end"]) == (2, 6)
    assert rises["accuracy"]["rise_midway"] == pytest.approx(0.1)
    assert rises["accuracy"]["rise_end"] == pytest.approx(0.4)
    assert rises["loss"]["treatment"] == "w"


def slice_of(direction: str, losses: Any, split: str = "train") -> list[dict[str, Any]]:
    positions = np.linspace(-2, 2, len(losses))
    names = {"run": "r", "member": 0, "direction": direction, "draw": 0, "split": split}
    return [
        names | {"position": p, "loss": loss, "accuracy": 1.0}
        for p, loss in zip(positions, losses, strict=True)
    ]


def test_an_asymmetry_says_to_which_side_the_loss_rises_faster() -> None:
    """Slopes 3 ahead and 1 behind give 3; turned round a third; a slice that only falls none."""
    at = np.linspace(-2, 2, 41)
    steep = np.where(at > 0, 3 * at, -at)
    rows = slice_of("gaussian", steep) + slice_of("sign", steep[::-1]) + slice_of("average", 5 - at)
    points = valleys_results.slices(table("valley_point", rows), {"w/valley/0": "r"})
    found = {row["direction"]: row for row in valleys_results.valleys(points).to_pylist()}
    assert found["gaussian"]["asymmetry"] == pytest.approx(3)
    assert found["sign"]["asymmetry"] == pytest.approx(1 / 3)
    assert found["average"]["asymmetry"] is None
    assert (found["average"]["middle"], found["average"]["end"]) == (5, pytest.approx(4))
    assert found["gaussian"]["ratio_25"] == pytest.approx(3)
    (row,) = valleys_results.summary(
        valleys_results.valleys(points),
        valleys_results.CURVATURE.empty_table(),
        valleys_results.NETWORKS.empty_table(),
    ).to_pylist()
    assert row["train_average_gain"] == pytest.approx(-1)
    assert row["sign_asymmetry"] == pytest.approx(1 / 3)
    assert row["network_trace"] is None


SMALL: dict[str, Any] = {"network": MLPSpec(width=16, depth=1), "training": TrainingSpec(epochs=4)}
FEW_SLICES = SMALL | {
    "networks": 2,
    "snapshots": 2,
    "averaged": 2,
    "points": 9,
    "steps": 6,
    "probes": 4,
    "treatments": ("w",),
}


def test_a_small_study_of_curves_runs_from_end_to_end(tmp_path: Path) -> None:
    spec = curves.Spec(
        **SMALL, bend=TrainingSpec(epochs=4), pairs=2, points=5, treatments=("standard", "rebasin")
    )
    found = curves.results(spec, *study_tables(curves, spec, tmp_path))
    summary = found["summary"].to_pylist()
    assert len(summary) == 2 * 2 * 2 * 2  # treatments, forms, splits, quantities
    assert {row["pairs"] for row in summary} == {2}
    assert found["layer_points"].num_rows == 2 * 3 * 2 * 2 * 2 * 5
    said = curves.headline({name: rows.to_pylist() for name, rows in found.items()})
    assert [row[0] for row in said.rows] == ["Standard", "Git Re-Basin"]
    told = dict(zip(said.columns, said.rows[0], strict=True))
    ends = {
        row["quantity"]: row for row in summary if (row["treatment"], row["split"]) == ("standard", "test")
    }
    for quantity, row in ends.items():
        assert told[f"endpoint\n{quantity}"] == spread(row["endpoint"], row["endpoint_std"])
    check_fits(said)


def test_a_small_study_of_valleys_runs_from_end_to_end(tmp_path: Path) -> None:
    spec = valleys.Spec(**FEW_SLICES, draws=1, images=100)
    found = valleys.results(spec, *study_tables(valleys, spec, tmp_path))
    (row,) = found["summary"].to_pylist()
    assert (row["networks"], row["midpoints"], row["averages"]) == (2, 1, 2)
    assert found["slices"].num_rows == 2 * 6 * 2 * 9
    assert found["curvature"].num_rows == 3 * (5 + 1)
    tops = [row for row in found["curvature"].to_pylist() if row["rank"] == 1]
    assert [(row["a"], row["b"], row["alpha"]) for row in tops] == [(0, 0, 0.0), (1, 1, 0.0), (0, 1, 0.5)]
    said = valleys.headline({name: rows.to_pylist() for name, rows in found.items()})
    assert [cells[0] for cells in said.rows] == ["W-Asymmetric"]
    networks = found["networks"].to_pylist()
    assert [network["network"] for network in networks] == [0, 1]
    for quantity in ("loss", "accuracy"):
        reached = [network[f"test_{quantity}"] for network in networks]
        told = dict(zip(said.columns, said.rows[0], strict=True))[f"networks'\n{quantity}"]
        assert told == spread(float(np.mean(reached)), float(np.std(reached, ddof=1)))
    check_fits(said)


def test_a_small_study_goes_on_from_the_average(tmp_path: Path) -> None:
    """Its networks are those at the end of all training, and the slice begins where the further training did."""
    spec = valleys.Spec(**FEW_SLICES, onward_epochs=2, directions=("average",), images=0)
    roles, tables = study_tables(valleys, spec, tmp_path)
    found = valleys.results(spec, roles, tables)
    reached = {row["network"]: row["test_loss"] for row in found["networks"].to_pylist()}
    slices = [row for row in found["valleys"].to_pylist() if row["split"] == "test"]
    assert {row["member"]: row["end"] for row in slices} == pytest.approx(reached, rel=1e-4)
    averaged = load(tmp_path / roles["w/averaged/0"] / "weights.safetensors")
    kept = [tmp_path / roles["w/averaged/0"] / snapshot(epoch) for epoch in (0, 2)]
    each = [averaged.effective(), *(load(path).effective() for path in kept)]
    swa = {name: sum(one[name] for one in each) / 3 for name in each[0]}
    loss, _ = Evaluator(averaged.network, load_data("digits", tmp_path))(swa, averaged.buffers, "test")
    assert [row["middle"] for row in slices] == pytest.approx(loss, rel=1e-4)


def test_a_slice_that_leads_to_a_network_has_the_accuracies_of_both_ends() -> None:
    rows = slice_of("average", np.linspace(1, 0, 41))
    rows = [row | {"accuracy": 0.5 + row["position"] / 4} for row in rows]
    points = valleys_results.slices(table("valley_point", rows), {"w/valley/0": "r"})
    (row,) = valleys_results.valleys(points).to_pylist()
    assert (row["middle_accuracy"], row["end_accuracy"]) == pytest.approx((0.5, 0.75))


def test_networks_are_known_when_training_is_over() -> None:
    at_work = [{"run": "r", "step": 1, "member": 0, "name": "test/loss", "value": 1.0}]
    values = {"train/loss": 0.1, "train/accuracy": 1.0, "test/loss": 0.2, "test/accuracy": 0.9}
    over = [
        {"run": "r", "step": 2, "member": member, "name": f"final/{name}", "value": value}
        for member in (1, 0)
        for name, value in values.items()
    ]
    roles = {"w/train/0": "r"}
    assert valleys_results.networks(table("metric", at_work), roles).num_rows == 0
    found = valleys_results.networks(table("metric", at_work + over), roles).to_pylist()
    assert [row["network"] for row in found] == [0, 1]
    assert {name.replace("/", "_"): value for name, value in values.items()}.items() <= found[0].items()
