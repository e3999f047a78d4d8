"""Studies that vary one setting plan a study of linear mode connectivity for each value, and tell their numbers apart."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from kind_tools import check_fits
from pydantic import ValidationError

from jobs import registry
from jobs.kinds import train
from jobs.specs import spec_hash
from jobs.studies import biases, lmc_gnn, lmc_recipe, lmc_resnet20, warmup
from symcore.treatments import FixedBiases

STUDIES = [warmup, biases]
FALLING = {"epochs": 50, "fall_epochs": 20, "fall_start": 30}
named = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.Spec.title)


def trained(study: ModuleType, spec: Any) -> dict[str, train.Spec]:
    return {run.role: run.spec for run in study.expand(spec) if isinstance(run.spec, train.Spec)}


@named
def test_every_role_is_played_once_and_inputs_come_before_what_reads_them(study: ModuleType) -> None:
    for preset in study.PRESETS.values():
        planned = study.expand(preset)
        assert len({run.role for run in planned}) == len(planned)
        known: set[str] = set()
        for run in planned:
            assert set(run.spec.inputs()) <= known
            known.add(spec_hash(run.spec))


def test_a_warm_up_is_all_that_its_settings_differ_in() -> None:
    spec = warmup.PRESETS["smoke"]
    runs = trained(warmup, spec)
    for short, long in ((f"{name}/train/0/1", f"{name}/train/0/3") for name in ("standard", "sigma", "w")):
        assert (runs[short].training.warmup_epochs, runs[long].training.warmup_epochs) == (1, 3)
        same = {"warmup_epochs": 3}
        assert runs[short].training.model_copy(update=same) == runs[long].training
        assert runs[short].seeds == runs[long].seeds


def test_the_paper_preset_trains_the_networks_of_table_1_at_the_papers_warm_up() -> None:
    table_1 = {run.role: spec_hash(run.spec) for run in lmc_recipe.expand(lmc_resnet20.PRESETS["paper"])}
    planned = {run.role: spec_hash(run.spec) for run in warmup.expand(warmup.PRESETS["paper"])}
    assert all(planned[f"{role}/20"] == known for role, known in table_1.items())


def test_graph_networks_stand_beside_the_papers_and_differ_from_table_1_in_their_warm_up_alone() -> None:
    """Lim et al. 2024, ablations; an epoch is a step."""
    spec = warmup.PRESETS["gnn"]
    stated = {setting.value: setting.paper for setting in warmup.settings(spec)}
    assert [stated[epochs]["activations"] for epochs in (1, 20)] == [(0.249, 0.04), (0.292, 0.04)]
    assert [stated[epochs]["w"] for epochs in (1, 20)] == [(0.075, 0.04), (0.074, 0.02)]
    table_1 = trained(lmc_gnn, lmc_gnn.PRESETS["paper"])
    for role, run in trained(warmup, spec).items():
        name, _, epochs = role.rpartition("/")
        assert run.training.warmup_epochs == int(epochs)
        same = {"warmup_epochs": 25}
        known = table_1.get(name)
        if known is None:
            assert name.startswith("w_figlu/")
        else:
            update = {"training": run.training.model_copy(update=same)}
            assert spec_hash(run.model_copy(update=update)) == spec_hash(known)
    elsewhere = spec.model_copy(update={"data": "cora"})
    assert not any(setting.paper for setting in warmup.settings(elsewhere))


def test_each_bound_is_a_run_of_its_own_beside_what_has_none() -> None:
    spec = biases.PRESETS["paper"]
    runs = trained(biases, spec)
    assert list(runs) == [
        "standard/train/0",
        "w/train/0",
        *(f"fixed_biases/train/0/{k}" for k in (1, 3, 9, 27)),
    ]
    for k in (1, 3, 9, 27):
        assert runs[f"fixed_biases/train/0/{k}"].treatment == FixedBiases(bound=k)
    reused = {spec_hash(run.spec) for run in lmc_recipe.expand(lmc_resnet20.PRESETS["paper"])}
    assert {spec_hash(runs[role]) for role in ("standard/train/0", "w/train/0")} <= reused


def points(rise: Callable[[str], float], roles: dict[str, str]) -> pa.Table:
    """Two pairs' paths of each run, whose midpoints rise by what `rise` says of the run's role, and a bit."""
    rows = [
        {
            "run": run,
            "pair": pair,
            "alpha": alpha,
            "split": split,
            "loss": 1.0 + (rise(role) + (-0.5 if pair else 0.5)) * (alpha == 0.5),
            "accuracy": 0.75,
        }
        for role, run in roles.items()
        for pair in range(2)
        for alpha in (0.0, 0.5, 1.0)
        for split in ("train", "test")
    ]
    return pa.Table.from_pylist(rows[::-1])


@named
def test_every_number_stands_at_its_setting_beside_the_papers(study: ModuleType) -> None:
    spec = study.PRESETS["paper"]
    roles = {run.role: f"r{n}" for n, run in enumerate(study.expand(spec)) if "/path/" in run.role}
    heights = {role: float(n) for n, role in enumerate(roles)}
    found = study.results(spec, roles, {"path_point": points(heights.__getitem__, roles)})
    test = [
        row for row in found["summary"].to_pylist() if (row["split"], row["quantity"]) == ("test", "loss")
    ]
    assert len(test) == len(roles)
    for row in test:
        ending = "" if row["value"] is None else f"/{row['value']:g}"
        assert row["barrier_midpoint"] == pytest.approx(heights[f"{row['treatment']}/path/0{ending}"])
        assert (row["pairs"], row["endpoint"]) == (2, 1.0)
    papers = {(row["value"], row["treatment"]): row["paper_barrier_midpoint"] for row in test}
    expected = {
        "warmup": {
            (1, "rebasin"): 4.2,
            (1, "w"): 0.673,
            (1, "standard"): None,
            (20, "w"): 0.934,
            (20, "standard"): 3.287,
        },
        "biases": {(1, "fixed_biases"): 5.81, (27, "fixed_biases"): 10.6, (None, "w"): 0.934},
    }[spec.kind]
    assert {place: papers[place] for place in expected} == expected
    told = study.headline({name: table.to_pylist() for name, table in found.items()})
    assert len(told.rows) == len(roles)
    assert all("±" in cells[-2] and "±" in cells[-3] for cells in told.rows)
    check_fits(told)


@named
def test_losses_at_fitted_temperatures_stand_at_their_settings(study: ModuleType) -> None:
    spec = study.PRESETS["smoke"]
    roles = {run.role: f"r{n}" for n, run in enumerate(study.expand(spec)) if "/path/" in run.role}
    heights = {role: float(n) for n, role in enumerate(roles)}
    measured = points(heights.__getitem__, roles)
    calibrated = points(lambda role: heights[role] / 2, roles)
    found = study.results(spec, roles, {"path_point": measured, "path_calibrated": calibrated})
    barriers = {
        quantity: {
            (row["value"], row["treatment"]): row["barrier_midpoint"]
            for row in found["summary"].to_pylist()
            if (row["split"], row["quantity"]) == ("test", quantity)
        }
        for quantity in ("loss", "calibrated loss")
    }
    assert len(barriers["loss"]) == len(roles)
    assert barriers["calibrated loss"] == pytest.approx(
        {place: height / 2 for place, height in barriers["loss"].items()}
    )


@named
def test_other_networks_do_not_stand_beside_the_papers(study: ModuleType) -> None:
    assert not any(setting.paper for setting in study.settings(study.PRESETS["laptop"]))


@named
def test_nothing_done_is_no_row(study: ModuleType) -> None:
    spec = study.PRESETS["smoke"]
    found = study.results(spec, {}, {"path_point": points(len, {"w/path/0": "r"}).slice(0, 0)})
    assert {name: table.num_rows for name, table in found.items()} == {"summary": 0, "pairs": 0}
    assert study.headline({name: table.to_pylist() for name, table in found.items()}).rows == ()


@named
def test_it_is_found_and_its_presets_are_valid(study: ModuleType) -> None:
    kind = study.Spec.model_fields["kind"].default
    assert registry.studies()[kind].Spec is study.Spec
    for preset in study.PRESETS.values():
        assert study.Spec.model_validate(preset.model_dump()) == preset


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"kind": "warmup", "warmups": [1, 1]}, "warmups"),
        ({"kind": "biases", "bounds": [3, 3.0]}, "bounds"),
    ],
)
def test_a_value_stands_once(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match="accepted: each value once") as caught:
        registry.study_spec(given)
    assert caught.value.errors()[0]["loc"] == (field,)


def test_no_warm_up_reaches_into_the_fall_of_the_learning_rate() -> None:
    given = {"kind": "warmup", "warmups": [1, 31], "training": FALLING}
    with pytest.raises(ValidationError, match=r"accepted: up to 30") as caught:
        registry.study_spec(given)
    assert caught.value.errors()[0]["loc"] == ("warmups",)
    assert registry.study_spec(given | {"warmups": [1, 30]})
