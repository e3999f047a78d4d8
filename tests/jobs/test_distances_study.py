"""The distances study measures the pairs of a linear mode connectivity study, and adds parameters up to layers and networks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from kind_tools import check_fits

from jobs import registry
from jobs.kinds.distance import Spec as DistanceSpec
from jobs.kinds.interpolate import Spec as PathSpec
from jobs.specs import spec_hash
from jobs.studies import distances, distances_results, lmc_recipe

SMOKE = distances.PRESETS["smoke"]


@pytest.mark.parametrize("preset", distances.PRESETS)
def test_every_run_of_linear_mode_connectivity_is_reused_and_each_path_measured(preset: str) -> None:
    planned = {run.role: run.spec for run in distances.expand(distances.PRESETS[preset])}
    shared = {run.role: spec_hash(run.spec) for run in lmc_recipe.expand(distances.SOURCES[preset])}
    assert {role: spec_hash(planned[role]) for role in shared} == shared
    measured = {role: spec for role, spec in planned.items() if isinstance(spec, DistanceSpec)}
    assert set(planned) == set(shared) | set(measured)
    for role, spec in measured.items():
        path = planned[role.replace("/distance/", "/path/")]
        assert isinstance(path, PathSpec)
        assert (spec.source, spec.alignment, spec.pairs) == (path.source, path.alignment, path.pairs)


def test_inputs_come_before_what_reads_them() -> None:
    known: set[str] = set()
    for run in distances.expand(SMOKE):
        assert set(run.spec.inputs()) <= known
        known.add(spec_hash(run.spec))


def records(vectors: dict[str, np.ndarray]) -> pa.Table:
    """Distances of run "r" between the two rows of every parameter, [pair, network, entry]."""
    rows = [
        {
            "run": "r",
            "pair": pair,
            "parameter": name,
            "entries": entries,
            "count": a.size,
            "distance": float(np.linalg.norm(a - b)),
            "norm_a": float(np.linalg.norm(a)),
            "norm_b": float(np.linalg.norm(b)),
        }
        for name, both in vectors.items()
        for pair, (a, b) in enumerate(both)
        for entries in ("all", "trainable")
    ]
    return pa.Table.from_pylist(rows[::-1])


def paths() -> pa.Table:
    rows = [
        {
            "run": "p",
            "pair": pair,
            "alpha": alpha,
            "split": split,
            "loss": 1.0 + pair * (alpha == 0.5),
            "accuracy": 0.5,
        }
        for pair in range(2)
        for alpha in (0.0, 0.5, 1.0)
        for split in ("train", "test")
    ]
    return pa.Table.from_pylist(rows)


@pytest.fixture
def vectors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    sizes = {"hidden.weight": 12, "hidden.bias": 3, "readout.weight": 6}
    return {name: random.standard_normal((2, 2, size)) for name, size in sizes.items()}


def test_whole_networks_and_layers_are_what_their_concatenated_weights_say(
    vectors: dict[str, np.ndarray],
) -> None:
    roles = {"w/distance/0": "r", "w/path/0": "p"}
    found = distances.results(SMOKE, roles, {"weight_distance": records(vectors), "path_point": paths()})
    for table, names in (
        ("pairs", ["hidden.weight", "hidden.bias", "readout.weight"]),
        ("layers", ["hidden.weight", "hidden.bias"]),
    ):
        for row in found[table].to_pylist():
            if row.get("layer") == "readout":
                continue
            a, b = np.concatenate([vectors[name][row["pair"]] for name in names], axis=1)
            apart = np.linalg.norm(a - b)
            assert (row["treatment"], row["count"]) == ("w", a.size)
            assert row["distance"] == pytest.approx(apart)
            assert row["per_parameter"] == pytest.approx(apart / a.size)
            assert row["relative"] == pytest.approx(apart / np.sqrt((a @ a + b @ b) / 2))
    assert set(found["layers"]["layer"].to_pylist()) == {"hidden", "readout"}
    assert {(row["pair"], row["barrier_midpoint"]) for row in found["pairs"].to_pylist()} == {
        (0, 0.0),
        (1, 1.0),
    }
    own = [row["relative"] for row in found["pairs"].to_pylist() if row["entries"] == "trainable"]
    summary = next(row for row in found["distances"].to_pylist() if row["entries"] == "trainable")
    assert (summary["pairs"], summary["relative"]) == (2, pytest.approx(np.mean(own)))
    assert summary["relative_std"] == pytest.approx(np.std(own, ddof=1))
    told = distances.headline({name: table.to_pylist() for name, table in found.items()})
    assert told.rows[0][0] == "W-Asymmetric"
    assert told.rows[0][3:] == ("0.500 ± 0.707", "1.000 ± 0.000", "0.500 ± 0.000", "2")
    check_fits(told)


@pytest.mark.parametrize(
    ("preset", "per_parameter", "barrier"),
    [("gnn", 1.59e-4, 0.095), ("paper", None, -0.012), ("smoke", None, None)],
)
def test_the_papers_numbers_stand_beside_those_of_its_networks(
    vectors: dict[str, np.ndarray], preset: str, per_parameter: float | None, barrier: float | None
) -> None:
    """Lim et al. 2024, appendix A: distances are over the trained entries of graph networks."""
    given = {"weight_distance": records(vectors), "path_point": paths()}
    found = distances.results(distances.PRESETS[preset], {"w/distance/0": "r", "w/path/0": "p"}, given)
    stated = {row["entries"]: row["paper_per_parameter"] for row in found["distances"].to_pylist()}
    assert stated == {"trainable": per_parameter, "all": None}
    (loss,) = [
        row for row in found["summary"].to_pylist() if (row["split"], row["quantity"]) == ("test", "loss")
    ]
    assert loss["paper_barrier_midpoint"] == barrier


def test_a_layer_that_is_fixed_whole_has_no_distance() -> None:
    row = {"treatment": "w", "label": "W", "entries": "trainable", "pair": 0, "parameter": "conv.weight"}
    found = distances_results.by_layer([row | {"count": 0, "distance": 0.0, "norm_a": 0.0, "norm_b": 0.0}])
    assert found["relative"].to_pylist() == found["per_parameter"].to_pylist() == [None]


def test_nothing_done_is_no_row(vectors: dict[str, np.ndarray]) -> None:
    empty = {"weight_distance": records(vectors).slice(0, 0), "path_point": paths().slice(0, 0)}
    found = distances.results(SMOKE, {}, empty)
    assert {name: table.num_rows for name, table in found.items()} == dict.fromkeys(found, 0)
    assert distances.headline({name: table.to_pylist() for name, table in found.items()}).rows == ()


def test_it_is_found_and_its_presets_are_valid() -> None:
    assert registry.studies()["distances"].Spec is distances.Spec
    for preset in distances.PRESETS.values():
        assert distances.Spec.model_validate(preset.model_dump()) == preset


def test_barriers_at_fitted_temperatures_stand_in_the_summary(vectors: dict[str, np.ndarray]) -> None:
    halved = pa.Table.from_pylist([row | {"loss": row["loss"] / 2} for row in paths().to_pylist()])
    tables = {"weight_distance": records(vectors), "path_point": paths(), "path_calibrated": halved}
    assert set(distances.RECORDS) == set(tables)
    found = distances.results(SMOKE, {"w/distance/0": "r", "w/path/0": "p"}, tables)
    barriers = {
        row["quantity"]: row["barrier_midpoint"]
        for row in found["summary"].to_pylist()
        if row["split"] == "test"
    }
    assert barriers == {"loss": 0.5, "accuracy": 0.0, "calibrated loss": 0.25}
