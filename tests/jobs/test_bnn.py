"""The study of Bayesian networks: what it plans is the paper's table 2, and what its numbers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_tools import check_fits, study_tables
from pydantic import ValidationError
from scipy import stats

from jobs import registry
from jobs.designs import blueprint, masked_layers
from jobs.kinds import bayes
from jobs.specs import spec_hash
from jobs.studies import bnn, bnn_results
from symcore.data.sources import SOURCES
from symcore.networks.mlp import MLPSpec
from symcore.posteriors.elrg import ELRGSpec
from symcore.posteriors.mean_field import MeanFieldSpec
from symcore.training import TrainingSpec

SMALL = bnn.Spec(
    network=MLPSpec(width=12, depth=1),
    training=TrainingSpec(epochs=4, weight_decay=0, learning_rate=3e-3),
    method=ELRGSpec(rank=1, temperature=0.1),
    networks=2,
    block=2,
    samples=3,
    outside="digits-noisy",
)


def metric(rows: list[tuple[str, int, str, int, float]]) -> pa.Table:
    names = ("run", "member", "name", "step", "value")
    schema = pa.schema([("run", pa.string()), *registry.tables()["metric"]])
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


@pytest.mark.parametrize("name", bnn.PRESETS)
def test_every_preset_is_valid_and_its_runs_differ_in_treatment_and_seeds_alone(name: str) -> None:
    preset = bnn.PRESETS[name]
    assert bnn.Spec.model_validate(preset.model_dump()) == preset
    runs = [run.spec.model_dump(exclude={"treatment", "seeds", "mask_seeds"}) for run in bnn.expand(preset)]
    assert all(run == runs[0] for run in runs)


def test_raising_the_number_of_networks_reuses_full_blocks() -> None:
    few, many = (
        {run.role: spec_hash(run.spec) for run in bnn.expand(SMALL.model_copy(update={"networks": n}))}
        for n in (4, 5)
    )
    assert few.items() < many.items()
    assert set(many) - set(few) == {"standard/bayes/2", "w/bayes/2"}


COUNTS = {
    "paper": (6_253_106, 6_170_786),
    "mlp16": (8_888_882, 8_724_642),
    "resnet20": (1_356_098, 1_143_858),
    "resnet110": (8_620_418, 7_371_378),
    "resnet20_layer": (5_468_436, 5_044_756),
}
"""Numbers that are trained, Lim et al. 2024's where its inputs have CIFAR's size and the classes are CIFAR-100's."""


@pytest.mark.parametrize("name", COUNTS)
def test_rows_have_the_papers_trained_numbers(name: str) -> None:
    preset = bnn.PRESETS[name]
    module = blueprint(preset.network, preset.data)
    norms = sum(p.numel() for path, p in module.named_parameters() if "norm" in path)
    random = sum(p.numel() for p in module.parameters()) - norms
    fixed = sum(layer.rows * layer.n_fix for layer in masked_layers(preset.network, preset.data, preset.w))
    method = preset.method
    assert (norms + method.copies * random, norms + method.copies * (random - fixed)) == COUNTS[name]


def test_the_papers_numbers_stand_beside_its_own_networks_alone() -> None:
    for name, preset in bnn.PRESETS.items():
        assert list(bnn._stated(preset)) == ([bnn.PAPER[name]] if name in bnn.PAPER else [])
    changed = {"training": bnn.PRESETS["mlp16"].training.model_copy(update={"epochs": 49})}
    assert not list(bnn._stated(bnn.PRESETS["mlp16"].model_copy(update=changed)))
    assert list(bnn._stated(bnn.PRESETS["mlp16"].model_copy(update={"networks": 3, "samples": 7})))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, pa.Table]]:
    return study_tables(bnn, SMALL, tmp_path_factory.mktemp("bnn"))


def test_networks_are_told(done: tuple[dict[str, str], dict[str, pa.Table]]) -> None:
    found = bnn.results(SMALL, *done)
    each = found["networks"].to_pandas()
    assert each.groupby("treatment")["network"].apply(list).to_dict() == {
        "standard": [0, 1],
        "w": [0, 1],
    }
    assert not each.isna().any().any()
    summary = found["summary"].to_pandas().set_index(["treatment", "quantity"])
    for treatment, rows in each.groupby("treatment"):
        for quantity in bnn_results.QUANTITIES:
            cell = summary.loc[(treatment, quantity)]
            assert cell["mean"] == pytest.approx(rows[quantity].mean())
            assert cell["mean_std"] == pytest.approx(rows[quantity].std(ddof=1))
    assert summary["p"].isna().groupby("treatment").all().to_dict() == {"standard": True, "w": False}
    assert summary["paper"].isna().all()
    curves = found["curves"].to_pandas()
    at_end = curves[(curves["epoch"] == SMALL.training.epochs) & (curves["name"] == "train/loss")]
    np.testing.assert_allclose(at_end["mean"], summary.xs("train_loss", level="quantity")["mean"])
    bins = found["reliability"].to_pandas()
    assert (bins.groupby("treatment")["images"].sum() == 2 * SOURCES["digits"].sizes["test"]).all()
    shares = found["entropies"].to_pandas().groupby(["treatment", "split"])["share"].sum()
    np.testing.assert_allclose(shares, 1)
    check_fits(bnn.headline({"summary": found["summary"].to_pylist()}))


def test_networks_of_later_blocks_come_after_those_of_earlier_ones() -> None:
    """Also where an earlier block is not done."""
    rows = [(run, member, "train/loss", 1, 0.5) for run in ("b", "c") for member in (0, 1)]
    roles = {"w/bayes/0": "a", "w/bayes/1": "b", "w/bayes/2": "c", "standard/bayes/0": "d"}
    assert bnn_results.named(metric(rows), roles, 2)["network"].to_pylist() == [2, 3, 4, 5]


def test_nothing_done_is_no_row() -> None:
    empty = {
        name: pa.schema([("run", pa.string()), *registry.tables()[name]]).empty_table()
        for name in bnn.RECORDS
    }
    found = bnn.results(SMALL, {}, empty)
    assert all(not table.num_rows for table in found.values())
    assert bnn.headline({"summary": []}).rows == ()


def test_one_network_has_no_spread_and_no_test() -> None:
    rows = [("a", 0, name, 2, 0.5) for name in (*bnn_results.FINAL.values(), "train/loss")]
    rows += [("b", 0, name, 2, 0.7) for name in (*bnn_results.FINAL.values(), "train/loss")]
    named = bnn_results.named(metric(rows), {"standard/bayes/0": "a", "w/bayes/0": "b"}, 1)
    summary = bnn_results.summary(bnn_results.networks(named, 2), {}).to_pandas()
    assert len(summary) == 2 * 8
    assert summary["mean_std"].isna().all()
    assert summary["p"].isna().all()


def test_a_network_that_still_learns_has_curves_and_no_row() -> None:
    rows = [("r", member, "test/accuracy", epoch, 0.1 * epoch) for member in (0, 1) for epoch in (1, 2)]
    named = bnn_results.named(metric(rows), {"w/bayes/0": "r"}, 2)
    assert not bnn_results.networks(named, 4).num_rows
    assert bnn_results.curves(named).to_pydict()["mean"] == pytest.approx([0.1, 0.2])


def test_a_difference_is_marked_only_where_it_stays_sure_after_correction() -> None:
    """Halfway accuracies differ by far more than they spread; calibration errors hardly."""
    rng = np.random.default_rng(0)
    values = {
        ("standard", "half_accuracy"): rng.normal(0.5, 0.01, 10),
        ("w", "half_accuracy"): rng.normal(0.6, 0.02, 10),
        ("standard", "ece"): rng.normal(0.05, 0.01, 10),
        ("w", "ece"): rng.normal(0.05, 0.01, 10),
    }
    found = bnn_results._significance(values)
    raw = [
        stats.ttest_ind(values["w", q], values["standard", q], equal_var=False).pvalue
        for q in ("half_accuracy", "ece")
    ]
    assert found["w", "half_accuracy"] == pytest.approx(2 * raw[0])
    assert found["w", "ece"] == pytest.approx(max(2 * raw[0], raw[1]))
    rows = [
        {"treatment": treatment, "label": treatment, "quantity": quantity, "mean": float(v.mean())}
        | {"mean_std": float(v.std()), "networks": 10, "p": found.get((treatment, quantity))}
        for (treatment, quantity), v in values.items()
    ]
    rows += [row | {"quantity": "test_loss", "p": None} for row in rows]
    said = dict(
        zip(bnn.headline({"summary": rows}).columns, bnn.headline({"summary": rows}).rows[1], strict=True)
    )
    assert said["accuracy\nhalfway"].endswith("*")
    assert not said["ECE"].endswith("*")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_order_and_raises_the_least_as_bonferroni_does(p: list[float]) -> None:
    corrected = bnn_results.holm(p)
    assert all(raw <= found <= 1 for raw, found in zip(p, corrected, strict=True))
    assert sorted(corrected) == [corrected[i] for i in np.argsort(p)]
    assert min(corrected) == min(1, len(p) * min(p))


def test_holms_correction_is_that_of_a_worked_example() -> None:
    assert bnn_results.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"outside": "cora"}, "outside", "no images that a network for digits could read"),
        ({"method": {"kind": "mean_field", "precision": 0}}, "method.precision", "greater than 0"),
        ({"network": {"kind": "gnn"}}, "network.kind", "a graph network reads the features of nodes"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        registry.study_spec({"kind": "bnn"} | change)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == field


def test_another_method_is_another_run() -> None:
    runs = [
        bnn.expand(SMALL.model_copy(update={"method": method}))[0].spec
        for method in (ELRGSpec(), MeanFieldSpec())
    ]
    assert spec_hash(runs[0]) != spec_hash(runs[1])
    assert all(isinstance(run, bayes.Spec) for run in runs)
