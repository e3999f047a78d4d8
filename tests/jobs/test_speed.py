"""The training speed study: its grid is the factors', and a network that did not get there is never a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from jobs import registry
from jobs.kinds import train
from jobs.specs import canonical_json, spec_hash
from jobs.studies import speed, speed_results
from symcore.data.sources import load
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import Standard, WAsymmetric

SMOKE = speed.PRESETS["smoke"]


def test_every_cell_is_the_factors_times_the_studys_own_settings() -> None:
    spec = speed.Spec(
        w=WAsymmetric(n_fix=(8, 16, 16, 64), kappa=(1, 1, 0.5, 0.25)),
        n_fix_factors=(3, 0.5),
        kappa_factors=(2,),
    )
    planned = {run.role: run.spec for run in speed.expand(spec)}
    assert list(planned) == ["standard/train/0", "w/train/n_fix*0.5 kappa*2", "w/train/n_fix*3 kappa*2"]
    assert [planned[role].treatment for role in planned] == [
        Standard(),
        WAsymmetric(n_fix=(4, 8, 8, 32), kappa=(2, 2, 1, 0.5)),
        WAsymmetric(n_fix=(24, 48, 48, 128), kappa=(2, 2, 1, 0.5)),  # 3 * 64 of 128
    ]
    assert len({run.seeds for run in planned.values()}) == 1


def test_the_paper_preset_is_the_papers_setting() -> None:
    paper = speed.PRESETS["paper"]
    (one,) = (c for c in speed.cells(paper) if (c.n_fix_factor, c.kappa_factor) == (1, 1))
    assert one.treatment.n_fix is not None
    assert (one.treatment.n_fix[0], one.treatment.n_fix[-1]) == (12, 8)
    assert set(one.treatment.kappa or ()) == {2.0}
    assert (paper.network, paper.data, paper.accuracy) == (ResNetSpec(depth=20, width=1), "cifar-10", 0.7)


def test_only_the_train_split_asks_for_more_than_every_run_records() -> None:
    of = {
        split: speed.expand(SMOKE.model_copy(update={"split": split}))[0].spec for split in ("train", "test")
    }
    assert [of[split].train_accuracy for split in ("train", "test")] == [True, False]
    assert spec_hash(of["train"]) != spec_hash(of["test"])
    assert "train_accuracy" not in canonical_json(of["test"])
    assert train.Spec.model_validate(of["train"].model_dump(mode="json")) == of["train"]


def test_accuracy_on_training_images_is_recorded_where_it_is_wanted_and_changes_nothing(
    tmp_path: Path,
) -> None:
    digits = load("digits", tmp_path)
    design = Design(MLPSpec(width=16, depth=1), Standard(), (8, 8), 10, seeds=(0, 1))
    told: dict[bool, dict[int, dict[str, Any]]] = {True: {}, False: {}}
    ends = [
        fit(
            Trainer(build(design), digits, TrainingSpec(epochs=2)),
            train_accuracy=wanted,
            hooks=Hooks(on_epoch=told[wanted].__setitem__),
        )
        for wanted in (True, False)
    ]
    for name, weights in ends[0].parameters.items():
        assert (weights == ends[1].parameters[name]).all()
    assert set(told[True][2]) - set(told[False][2]) == {"train/accuracy"}
    assert (told[True][2]["train/accuracy"] > 0.3).all()


def metric(run: str, accuracies: Sequence[Sequence[float]]) -> pa.Table:
    """A run's records: accuracies by member and epoch."""
    rows = [
        {"run": run, "member": member, "name": "train/accuracy", "step": step, "value": value}
        for member, curve in enumerate(accuracies)
        for step, value in enumerate(curve, start=1)
    ]
    rows += [
        {"run": run, "member": member, "name": f"final/{name}", "step": len(curve), "value": 0.25 * member}
        for member, curve in enumerate(accuracies)
        for name in speed_results.FINAL.values()
    ]
    return pa.Table.from_pylist(rows[::-1])


def found(accuracies: Sequence[Sequence[float]], accuracy: float = 0.97) -> dict[str, pa.Table]:
    spec = SMOKE.model_copy(update={"accuracy": accuracy})
    role = next(iter(speed.cells(spec))).role
    return speed.results(spec, {"standard/train/0": "r0", role: "r1"}, {"metric": metric("r1", accuracies)})


def test_the_first_epoch_at_the_accuracy_counts() -> None:
    tables = found([[0.5, 0.98, 0.9], [0.97, 0.1, 0.1], [0.1, 0.2, float("nan")]])
    assert tables["networks"]["epochs"].to_pylist() == [2, 1, None]
    (row,) = tables["summary"].to_pylist()
    assert (row["treatment"], row["n_fix_factor"], row["kappa_factor"]) == ("w", 0.5, 1.0)
    assert (row["networks"], row["reached"]) == (3, 2)
    assert (row["epochs_median"], row["epochs_least"], row["epochs_most"], row["epochs_given"]) == (
        2,
        1,
        None,
        3,
    )
    assert row["final_test_loss"] == pytest.approx(0.25)
    assert row["final_test_loss_std"] == pytest.approx(0.25)
    told = speed.headline({name: table.to_pylist() for name, table in tables.items()})
    assert told.rows == (("W-Asymmetric", "×0.5", "×1", "2", "2 of 3", "0.250 ± 0.250", "0.250 ± 0.250"),)


def test_too_few_that_got_there_are_told_as_more_than_the_epochs_given() -> None:
    tables = found([[0.1, 0.2], [0.97, 0.1], [0.1, 0.2]])
    assert tables["summary"]["epochs_median"].to_pylist() == [None]
    told = speed.headline({name: table.to_pylist() for name, table in tables.items()})
    assert told.rows[0][3:5] == ("> 2", "1 of 3")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(0, 9))
def test_a_known_median_does_not_depend_on_how_late_the_late_ones_are(epochs: list[int], late: int) -> None:
    ordered = sorted(epochs)
    kept = ordered[: max(0, len(ordered) - late)]
    censored: list[int | None] = [*kept, *([None] * (len(ordered) - len(kept)))]
    told = speed_results.censored_median(censored)
    if len(kept) > len(ordered) / 2:
        assert told == np.median(ordered)
    else:
        assert told is None


def test_a_run_on_its_way_has_no_row() -> None:
    going_on = metric("r1", [[0.5, 0.98]]).filter(pa.compute.field("name") == "train/accuracy")
    role = next(iter(speed.cells(SMOKE))).role
    tables = speed.results(SMOKE, {role: "r1"}, {"metric": going_on})
    assert tables["summary"].num_rows == tables["networks"].num_rows == 0
    assert speed.headline({name: table.to_pylist() for name, table in tables.items()}).rows == ()


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"split": "val"}, ("split",), "digits has no val images; accepted: train, test"),
        ({"n_fix_factors": [1, 1.0]}, ("n_fix_factors",), "accepted: each factor once"),
        ({"kappa_factors": [1, 0]}, ("kappa_factors", 1), "greater than 0"),
        ({"w": {"n_fix": [65, 16, 16, 64]}}, ("w", "n_fix"), "accepted: 0 to 64"),
        ({"w": {"kappa": [0, 0, 0, 0]}, "n_fix_factors": [2]}, ("n_fix_factors",), "at 2 times n_fix"),
        ({"accuracy": 1.5}, ("accuracy",), "less than or equal to 1"),
    ],
)
def test_a_wrong_field_names_itself_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.study_spec({"kind": "speed"} | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


def test_it_is_found_and_its_presets_are_valid() -> None:
    assert registry.studies()["speed"].Spec is speed.Spec
    for preset in speed.PRESETS.values():
        assert speed.Spec.model_validate(preset.model_dump()) == preset
