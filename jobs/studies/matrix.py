"""The barrier matrix: is there a barrier between any two of several networks, before and after alignment?

Each treatment trains its networks from the same seeds; paths join all pairs. Git Re-Basin, and other methods where they
are asked for, align the standard networks, the second of each pair to the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from jobs.headline import Headline, Rows
from jobs.kinds import interpolate, train
from jobs.specs import PlannedRun, RunSpec, in_order, spec_hash
from jobs.studies import lmc_results
from jobs.studies.aligned import ALL, PAPERS, AlignedSpec, TreatmentName
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, WAsymmetric


class Spec(AlignedSpec):
    """Barriers between all pairs of several networks, treatment beside treatment."""

    title: ClassVar[str] = "Barrier matrix"
    order: ClassVar[int] = 1

    kind: Literal["matrix"] = "matrix"
    treatments: Annotated[tuple[TreatmentName, ...], in_order(ALL)] = PAPERS
    """What is compared: standard networks, the same aligned by Git Re-Basin, sigma- and W-Asymmetric networks, as in the paper; standard ones aligned without sign flips (rebasin_unsigned), by activation matching, straight-through estimation, Sinkhorn re-basin, or into one order for all (cycle); W-Asymmetric ones with FiGLU besides (w_figlu), with zeros fixed (w0), with small offsets (syre), only the start W-Asymmetric (asym_init), or fixed biases."""
    networks: int = Field(default=6, ge=2, le=30)
    """Networks per treatment; every pair of them is joined by a path."""
    points: interpolate.Points = 25
    """Points on each path, endpoints included; odd."""


PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2), training=TrainingSpec(epochs=15), networks=4, points=11
    ),
    "laptop": Spec(),
    "paper": Spec(
        data="mnist",
        network=MLPSpec(width=512),
        w=WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
        sigma=SigmaAsymmetric(std=1),
        training=TrainingSpec(epochs=25),
        networks=10,
    ),
}
"""Digits in seconds; digits as the demo of the LMC study trains them; the paper's networks on MNIST (appendix E.1)."""


def pairs(networks: int) -> tuple[tuple[int, int], ...]:
    """All pairs (a, b) with a < b, in the order in which runs number them."""
    return tuple(combinations(range(networks), 2))


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for name in spec.treatment_settings() for run in _treated(spec, name)]


def _treated(spec: Spec, name: str) -> Iterator[PlannedRun]:
    """All runs of one kind of network."""
    if not spec.trains(name):
        return
    trained = spec.trained(name, range(spec.networks))
    yield PlannedRun(f"{name}/train/0", trained)
    if name in spec.treatments:
        yield PlannedRun(f"{name}/path/0", _paths(spec, trained))
    for made, matched in spec.aligned(name, trained, pairs(spec.networks)).items():
        yield PlannedRun(f"{made}/align/0", matched)
        yield PlannedRun(f"{made}/path/0", _paths(spec, trained, matched))


def _paths(spec: Spec, trained: train.Spec, matched: RunSpec | None = None) -> interpolate.Spec:
    return interpolate.Spec(
        data=spec.data,
        source=spec_hash(trained),
        alignment=spec_hash(matched) if matched else None,
        pairs=pairs(spec.networks),
        points=spec.points,
        precision=spec.precision,
    )


RECORDS = ("path_point",)


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: tables "summary" (treatments) and "pairs", whose networks a and b are named.

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "path_point" with a `run` column.
    """
    paths = lmc_results.paths(tables["path_point"], roles, block=0)
    found = lmc_results.by_pair(paths)
    ends = pairs(spec.networks)
    numbers = found["pair"].to_pylist()
    for place, name in enumerate(("a", "b")):
        found = found.add_column(place, name, pa.array([ends[n][place] for n in numbers], pa.int64()))
    return {"summary": lmc_results.summary(paths, {}), "pairs": found}


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: loss barriers over all pairs, and endpoints, on the test images."""
    found = lmc_results.headline(tables["summary"])
    caption = (
        "Test set. Barriers are rises of the loss, mean ± sample standard deviation over\n"
        "all pairs, which share networks; endpoints are counted once for each pair."
    )
    return Headline(found.columns, found.rows, caption)
