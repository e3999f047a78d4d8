"""The barrier matrix joins every pair of networks once, aligned or not, and tells which pair a number belongs to."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from jobs import registry
from jobs.kinds.align import Spec as AlignSpec
from jobs.kinds.interpolate import Spec as PathSpec
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import spec_hash
from jobs.studies import matrix

SMOKE = matrix.PRESETS["smoke"]


def test_every_pair_is_joined_once_by_each_treatment() -> None:
    planned = {run.role: run.spec for run in matrix.expand(SMOKE)}
    assert set(planned) == {
        *(f"{name}/train/0" for name in ("standard", "sigma", "w")),
        *(f"{name}/path/0" for name in ("standard", "rebasin", "sigma", "w")),
        "rebasin/align/0",
    }
    for role, spec in planned.items():
        if isinstance(spec, TrainSpec):
            assert len(spec.seeds) == SMOKE.networks
        else:
            assert isinstance(spec, AlignSpec | PathSpec)
            assert spec.pairs == tuple(combinations(range(SMOKE.networks), 2)), role
    assert planned["rebasin/path/0"].alignment == spec_hash(planned["rebasin/align/0"])
    assert planned["rebasin/path/0"].source == planned["standard/path/0"].source


def test_rebasin_alone_trains_standard_networks_and_joins_them_aligned() -> None:
    roles = [run.role for run in matrix.expand(SMOKE.model_copy(update={"treatments": ("rebasin",)}))]
    assert roles == ["standard/train/0", "rebasin/align/0", "rebasin/path/0"]


def test_inputs_come_before_what_reads_them() -> None:
    known: set[str] = set()
    for run in matrix.expand(SMOKE):
        assert set(run.spec.inputs()) <= known
        known.add(spec_hash(run.spec))


def points(networks: int) -> pa.Table:
    """Paths whose midpoint rises by 10 a + b above two ends at 1, for one run "r"."""
    rows = [
        {"run": "r", "pair": n, "alpha": alpha, "split": "test", "loss": 1.0 + (alpha == 0.5) * (10 * a + b), "accuracy": 0.5}
        for n, (a, b) in enumerate(combinations(range(networks), 2))
        for alpha in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_a_number_stands_at_its_pair() -> None:
    spec = SMOKE.model_copy(update={"networks": 4})
    found = matrix.results(spec, {"w/path/0": "r"}, {"path_point": points(4)})
    rows = [row for row in found["pairs"].to_pylist() if row["quantity"] == "loss"]
    assert {(row["a"], row["b"]): row["barrier_midpoint"] for row in rows} == {
        (a, b): pytest.approx(10 * a + b) for a, b in combinations(range(4), 2)
    }
    (summary,) = (row for row in found["summary"].to_pylist() if row["quantity"] == "loss")
    expected = [10 * a + b for a, b in combinations(range(4), 2)]
    assert summary["barrier_midpoint"] == pytest.approx(np.mean(expected))
    assert summary["barrier_midpoint_std"] == pytest.approx(np.std(expected, ddof=1))
    told = matrix.headline({name: table.to_pylist() for name, table in found.items()})
    assert told.rows[0][0] == "W-Asymmetric"
    assert told.rows[0][-1] == "6"


def test_nothing_done_is_no_row() -> None:
    found = matrix.results(SMOKE, {}, {"path_point": points(2).slice(0, 0)})
    assert found["pairs"].num_rows == found["summary"].num_rows == 0
    assert matrix.headline({name: table.to_pylist() for name, table in found.items()}).rows == ()


def test_it_is_found_and_its_presets_are_valid() -> None:
    assert registry.studies()["matrix"].Spec is matrix.Spec
    for preset in matrix.PRESETS.values():
        assert matrix.Spec.model_validate(preset.model_dump()) == preset
