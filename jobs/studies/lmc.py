"""The linear mode connectivity study (Lim et al. 2024, section 4.1): is there a barrier between trained networks?

Each treatment trains 2 * pairs networks from the same seeds; paths join disjoint pairs. Git Re-Basin aligns the
standard networks' pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from jobs.headline import Headline, Rows
from jobs.kinds import align, interpolate, train
from jobs.specs import PlannedRun, RunSpec, in_order, spec_hash
from jobs.studies import lmc_results
from jobs.studies.compared import ComparedSpec
from symcore.networks.mlp import MLPSpec
from symcore.training import Precision, TrainingSpec
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

TreatmentName = Literal["standard", "rebasin", "sigma", "w"]
ALL: tuple[TreatmentName, ...] = ("standard", "rebasin", "sigma", "w")
SEEDS_APART = 10_000
"""Seeds of one study stand next to each other; those of the next study seed begin this much later."""


class Spec(ComparedSpec):
    """Barriers on straight paths between independently trained networks, treatment beside treatment."""

    title: ClassVar[str] = "Linear mode connectivity"
    order: ClassVar[int] = 0

    kind: Literal["lmc"] = "lmc"
    treatments: Annotated[tuple[TreatmentName, ...], in_order(ALL)] = ALL
    """What is compared: standard networks, the same aligned by Git Re-Basin, sigma- and W-Asymmetric networks."""
    restarts: int = Field(default=1, ge=1, le=1000)
    """Git Re-Basin's ascents, of which the best is kept; the paper uses one."""
    training: TrainingSpec = TrainingSpec()
    """How networks are trained."""
    pairs: int = Field(default=5, ge=1, le=1000)
    """Disjoint pairs of networks per treatment; each needs two networks."""
    points: interpolate.Points = 25
    """Points on each path, endpoints included; odd."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds initialisation and shuffling of every network, the same for each treatment."""
    mask_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds masks, fixed weights and FiGLU's gates."""
    mask_per_pair: bool = False
    """Draw masks and gates anew for each pair; otherwise all networks of a treatment share them."""
    block: int = Field(default=5, ge=1, le=1000)
    """Pairs trained together as one run; raising `pairs` later reuses the full blocks."""
    precision: Precision = "float32"
    """Arithmetic of matrix products; tf32 is faster on a GPU."""


PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2),
        training=TrainingSpec(epochs=15),
        pairs=2,
        block=2,
    ),
    "laptop": Spec(),
    "paper": Spec(
        data="mnist",
        network=MLPSpec(width=512),
        w=WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
        sigma=SigmaAsymmetric(std=1),
        training=TrainingSpec(epochs=25),
    ),
}
"""Digits in seconds; digits as the demo runs it; MNIST as in the paper (appendix E.1 and the authors' code)."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for block in range(-(-spec.pairs // spec.block)) for run in _block(spec, block)]


def _block(spec: Spec, block: int) -> Iterator[PlannedRun]:
    """All treatments' runs of one block of pairs."""
    for name, treatment in spec.treatment_settings().items():
        aligned = name == "standard" and "rebasin" in spec.treatments
        if name not in spec.treatments and not aligned:
            continue
        trained = _train(spec, block, treatment)
        yield PlannedRun(f"{name}/train/{block}", trained)
        if name in spec.treatments:
            yield PlannedRun(f"{name}/path/{block}", _path(spec, trained))
        if aligned:
            matched = align.Spec(
                source=spec_hash(trained), pairs=_pairs(trained), restarts=spec.restarts, seed=spec.seed
            )
            yield PlannedRun(f"rebasin/align/{block}", matched)
            yield PlannedRun(f"rebasin/path/{block}", _path(spec, trained, matched))


def _train(spec: Spec, block: int, treatment: Treatment) -> train.Spec:
    pairs = range(block * spec.block, min((block + 1) * spec.block, spec.pairs))
    mask_seeds: tuple[int, ...] = ()
    if not isinstance(treatment, Standard):
        mask_seeds = (spec.mask_seed * SEEDS_APART,)
        if spec.mask_per_pair:
            mask_seeds = tuple(mask_seeds[0] + pair for pair in pairs for _ in range(2))
    return train.Spec.model_validate(
        {
            "data": spec.data,
            "network": spec.network,
            "treatment": treatment,
            "training": spec.training,
            "seeds": tuple(spec.seed * SEEDS_APART + 2 * pair + end for pair in pairs for end in range(2)),
            "mask_seeds": mask_seeds,
            "precision": spec.precision,
        }
    )


def _pairs(trained: train.Spec) -> tuple[tuple[int, int], ...]:
    return tuple((first, first + 1) for first in range(0, len(trained.seeds), 2))


def _path(spec: Spec, trained: train.Spec, matched: RunSpec | None = None) -> interpolate.Spec:
    return interpolate.Spec(
        data=spec.data,
        source=spec_hash(trained),
        alignment=spec_hash(matched) if matched else None,
        pairs=_pairs(trained),
        points=spec.points,
        precision=spec.precision,
    )


RECORDS = ("path_point",)
MEASURED_BY_PAPER = ("data", "network", "training", "w", "sigma")
"""Settings that must be the paper's for its numbers to compare; the others change which pairs, or how exactly."""


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Barriers, endpoints and curves of what is done so far: tables "summary", "pairs", "curves" and "paths".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "path_point" with a `run` column.
    """
    paths = lmc_results.paths(tables["path_point"], roles, spec.block)
    papers = PRESETS["paper"]
    comparable = all(getattr(spec, name) == getattr(papers, name) for name in MEASURED_BY_PAPER)
    return {
        "summary": lmc_results.summary(paths, lmc_results.PAPER if comparable else {}),
        "pairs": lmc_results.by_pair(paths),
        "curves": lmc_results.curves(paths),
        "paths": lmc_results.as_table(paths),
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: loss barriers and endpoints on the test images."""
    return lmc_results.headline(tables["summary"])
