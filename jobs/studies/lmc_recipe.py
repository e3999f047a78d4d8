"""Linear mode connectivity (Lim et al. 2024, section 4.1), for any form of network: one study for each row of table 1.

Each treatment trains 2 * pairs networks from the same seeds; paths join disjoint pairs. Git Re-Basin, and other methods
where they are asked for, align the standard networks' pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator

from jobs.designs import check_repair
from jobs.headline import Headline, Rows
from jobs.kinds import interpolate, train
from jobs.specs import PlannedRun, RunSpec, in_order, spec_hash
from jobs.studies import lmc_results
from jobs.studies.aligned import ALL as METHODS_TOO
from jobs.studies.aligned import PAPERS, AlignedSpec, TreatmentName
from symcore.align.methods import Method
from symcore.align.weights import WeightMatching
from symcore.settings import is_stored

LMCTreatment = Literal[TreatmentName, "rebasin_repair"]
ALL: tuple[LMCTreatment, ...] = (*METHODS_TOO[:2], "rebasin_repair", *METHODS_TOO[2:])
"""In the order in which people see them, REPAIR after what it repairs."""


@dataclass(frozen=True)
class PaperRow:
    """A row of Lim et al. 2024, table 1."""

    name: str
    """Networks and data set, as people read it."""
    barriers: Mapping[str, tuple[float, float]]
    """Midpoint test-loss barriers by treatment, mean and spread over at least 5 pairs (nats)."""


class LMCSpec(AlignedSpec):
    """Base of the rows; each has its network, and the paper's row that its preset "paper" repeats."""

    paper: ClassVar[PaperRow]

    treatments: Annotated[tuple[LMCTreatment, ...], in_order(ALL)] = PAPERS
    """What is compared: standard networks, the same aligned by Git Re-Basin, sigma- and W-Asymmetric networks, as in the paper; Git Re-Basin's paths repaired (rebasin_repair); standard ones aligned without sign flips (rebasin_unsigned), by activation matching, straight-through estimation, Sinkhorn re-basin, or into one order for all (cycle); W-Asymmetric ones with FiGLU besides (w_figlu), with zeros fixed (w0), with small offsets (syre), only the start W-Asymmetric (asym_init), or fixed biases."""
    pairs: int = Field(default=5, ge=1, le=1000)
    """Disjoint pairs of networks per treatment; each needs two networks."""
    points: interpolate.Points = 25
    """Points on each path, endpoints included; odd."""
    mask_per_pair: bool = False
    """Draw masks, what is fixed and gates anew for each pair; otherwise all networks of a treatment share them."""
    block: int = Field(default=5, ge=1, le=1000)
    """Pairs trained together as one run; raising `pairs` later reuses the full blocks."""
    temperature: bool = False
    """Also measure the loss at each point's best softmax temperature, fitted on val images; where there are none, on the half of the test images that is not measured with it."""

    @model_validator(mode="after")
    def _can_be_repaired(self, info: ValidationInfo) -> Self:
        if "rebasin_repair" in self.treatments and not is_stored(info):
            check_repair(type(self), ("treatments",), self.network, self.data)
        return self

    def methods(self) -> dict[TreatmentName, Method]:
        """The methods that are used; what is repaired is aligned first."""
        repaired: dict[TreatmentName, Method] = {"rebasin": WeightMatching(restarts=self.restarts)}
        return (repaired if "rebasin_repair" in self.treatments else {}) | super().methods()


def expand(spec: LMCSpec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for block in range(-(-spec.pairs // spec.block)) for run in _block(spec, block)]


def _block(spec: LMCSpec, block: int) -> Iterator[PlannedRun]:
    """All treatments' runs of one block of pairs."""
    for name in spec.treatment_settings():
        if not spec.trains(name):
            continue
        trained = _train(spec, block, name)
        yield PlannedRun(f"{name}/train/{block}", trained)
        if name in spec.treatments:
            yield PlannedRun(f"{name}/path/{block}", _path(spec, trained))
        for made, matched in spec.aligned(name, trained, _pairs(trained)).items():
            yield PlannedRun(f"{made}/align/{block}", matched)
            if made in spec.treatments:
                yield PlannedRun(f"{made}/path/{block}", _path(spec, trained, matched))
            if made == "rebasin" and "rebasin_repair" in spec.treatments:
                repaired = _path(spec, trained, matched, repair=True)
                yield PlannedRun(f"rebasin_repair/path/{block}", repaired)


def _train(spec: LMCSpec, block: int, name: str) -> train.Spec:
    pairs = range(block * spec.block, min((block + 1) * spec.block, spec.pairs))
    masks = [pair for pair in pairs for _ in range(2)] if spec.mask_per_pair else [0]
    return spec.trained(name, range(2 * pairs.start, 2 * pairs.stop), masks)


def _pairs(trained: train.Spec) -> tuple[tuple[int, int], ...]:
    return tuple((first, first + 1) for first in range(0, len(trained.seeds), 2))


def _path(
    spec: LMCSpec, trained: train.Spec, matched: RunSpec | None = None, *, repair: bool = False
) -> interpolate.Spec:
    return interpolate.Spec(
        data=spec.data,
        source=spec_hash(trained),
        alignment=spec_hash(matched) if matched else None,
        pairs=_pairs(trained),
        points=spec.points,
        precision=spec.precision,
        repair=repair,
        temperature=spec.temperature,
    )


RECORDS = ("path_point", "path_calibrated")
MEASURED_BY_PAPER = ("data", "network", "training", "sigma_learning_rate", "w", "sigma", "activations")
"""Settings that must be the paper's for its numbers to compare; the others change which pairs, or how exactly."""


def compares(spec: LMCSpec, paper: LMCSpec) -> bool:
    """Whether networks are made and trained as the paper's."""
    return all(getattr(spec, name) == getattr(paper, name) for name in MEASURED_BY_PAPER)


def results(
    spec: LMCSpec, roles: Mapping[str, str], tables: Mapping[str, pa.Table], paper: LMCSpec
) -> dict[str, pa.Table]:
    """Barriers, endpoints and curves of what is done so far: tables "summary", "pairs", "curves" and "paths".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "path_point" and "path_calibrated" with a `run` column.
        paper: the paper's settings; its numbers stand beside those that are measured with them.
    """
    paths = lmc_results.paths(tables["path_point"], roles, spec.block, tables.get("path_calibrated"))
    return {
        "summary": lmc_results.summary(paths, spec.paper.barriers if compares(spec, paper) else {}),
        "pairs": lmc_results.by_pair(paths),
        "curves": lmc_results.curves(paths),
        "paths": lmc_results.as_table(paths),
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: loss barriers and endpoints on the test images."""
    return lmc_results.headline(tables["summary"])
