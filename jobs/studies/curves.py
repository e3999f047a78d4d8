"""Paths of low loss: straight lines, Bezier curves and layer-wise paths between trained networks, side by side.

Each treatment trains 2 * pairs networks from the same seeds, those of the linear mode connectivity study. Git Re-Basin,
and other methods where they are asked for, align the standard networks' pairs before any path is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from jobs.headline import Headline, Rows
from jobs.kinds import curve, interpolate, layerwise, train
from jobs.specs import PlannedRun, RunSpec, in_order, spec_hash
from jobs.studies import curves_results, lmc
from jobs.studies.aligned import ALL, PAPERS, AlignedSpec, TreatmentName
from jobs.studies.compared import SEEDS_APART
from symcore.landscape.layerwise import ORDERS, Order
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec


class Spec(AlignedSpec):
    """Barriers on straight, curved and layer-wise paths between trained networks, treatment beside treatment."""

    title: ClassVar[str] = "Paths of low loss"

    kind: Literal["curves"] = "curves"
    treatments: Annotated[tuple[TreatmentName, ...], in_order(ALL)] = PAPERS
    """What is compared: standard networks, the same aligned by Git Re-Basin or another method, other treatments; see the study lmc."""
    pairs: int = Field(default=5, ge=1, le=100)
    """Disjoint pairs of networks per treatment; each needs two networks."""
    bends: int = Field(default=1, ge=1, le=8)
    """Control points of each curve between the networks; 1 makes it quadratic."""
    bend: TrainingSpec = TrainingSpec(epochs=30)
    """How bends are trained."""
    orders: Annotated[tuple[Order, ...], in_order(ORDERS)] = ORDERS
    """Layers that move at a time: one alone, all from the input up to it, all from it up to the output."""
    points: interpolate.Points = 25
    """Points on each path, endpoints included; odd."""


TRAINED = ("data", "network", "w", "sigma", "training")
"""Settings that say which networks are trained."""
PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2),
        training=TrainingSpec(epochs=15),
        bend=TrainingSpec(epochs=15),
        pairs=2,
        points=11,
    ),
    "laptop": Spec(),
    "paper": Spec(
        **{name: getattr(lmc.PRESETS["paper"], name) for name in TRAINED}, bend=TrainingSpec(epochs=25)
    ),
}
"""Digits in seconds; digits at the demo's size; the networks of the paper's LMC experiment on MNIST."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for name in spec.treatment_settings() for run in _treated(spec, name)]


def _treated(spec: Spec, name: str) -> Iterator[PlannedRun]:
    """All runs of one kind of network."""
    if not spec.trains(name):
        return
    trained = spec.trained(name, range(2 * spec.pairs))
    yield PlannedRun(f"{name}/train/0", trained)
    if name in spec.treatments:
        yield from _paths(spec, name, trained)
    for made, matched in spec.aligned(name, trained, _pairs(spec)).items():
        yield PlannedRun(f"{made}/align/0", matched)
        yield from _paths(spec, made, trained, matched)


def _pairs(spec: Spec) -> tuple[tuple[int, int], ...]:
    return tuple((2 * pair, 2 * pair + 1) for pair in range(spec.pairs))


def _paths(
    spec: Spec, name: str, trained: train.Spec, matched: RunSpec | None = None
) -> Iterator[PlannedRun]:
    """The three kinds of paths of one treatment."""
    ends = {
        "data": spec.data,
        "source": spec_hash(trained),
        "alignment": spec_hash(matched) if matched else None,
        "pairs": _pairs(spec),
        "points": spec.points,
        "precision": spec.precision,
    }
    yield PlannedRun(f"{name}/path/0", interpolate.Spec.model_validate(ends))
    bent = {"bends": spec.bends, "training": spec.bend, "seed": spec.seed * SEEDS_APART}
    yield PlannedRun(f"{name}/curve/0", curve.Spec.model_validate(ends | bent))
    ordered = {"orders": spec.orders, "splits": interpolate.Spec.model_fields["splits"].default}
    yield PlannedRun(f"{name}/layers/0", layerwise.Spec.model_validate(ends | ordered))


RECORDS = ("path_point", "layer_point")


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: "summary", "pairs" and "paths" of straight and curved paths; "layers" and "layer_points".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "path_point" and "layer_point" with a `run` column.
    """
    found = curves_results.whole(tables["path_point"], roles, spec.pairs)
    points = curves_results.layer_points(tables["layer_point"], roles)
    return found | {"layers": curves_results.layers(points), "layer_points": points}


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: the highest rise of the test loss on each kind of path."""
    return curves_results.headline(tables["summary"], tables["layers"])
