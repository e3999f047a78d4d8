"""The distances study (Lim et al. 2024, appendix A): are networks without a barrier between them nearer to each other?

Networks, pairs and paths are those of a linear mode connectivity study with the same settings, whose finished runs are
reused; beside every path stands how far apart its ends are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import pyarrow as pa

from jobs.headline import Headline, Rows
from jobs.kinds import distance, interpolate
from jobs.specs import PlannedRun
from jobs.studies import distances_results, lmc, lmc_gnn, lmc_recipe, lmc_results
from jobs.studies.lmc_recipe import LMCSpec, PaperRow


class Spec(LMCSpec):
    """Distances between the trained networks of each pair, whole and layer by layer, beside the barriers between them."""

    title: ClassVar[str] = "Distances between networks"
    paper: ClassVar[PaperRow] = lmc.Spec.paper

    kind: Literal["distances"] = "distances"


SOURCES: dict[str, LMCSpec] = {**lmc.PRESETS, "gnn": lmc_gnn.PRESETS["paper"]}
"""Studies of linear mode connectivity by the preset that measures their networks."""
PRESETS: dict[str, Spec] = {
    name: Spec.model_validate(source.model_dump(exclude={"kind"})) for name, source in SOURCES.items()
}
"""The networks of the linear mode connectivity study's presets, and the paper's graph networks on ogbn-arxiv."""
PAPER = {"standard": 1.74e-4, "w": 1.59e-4, "w_figlu": 1.59e-4}
"""Distances per parameter of the paper's graph networks; W-Asymmetric ones may be either, as in `lmc_gnn`."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for planned in lmc_recipe.expand(spec) for run in _measured(planned)]


def _measured(planned: PlannedRun) -> Iterator[PlannedRun]:
    """A run of linear mode connectivity, and after one that evaluates paths one that measures their ends' distances."""
    yield planned
    if isinstance(path := planned.spec, interpolate.Spec):
        apart = distance.Spec(source=path.source, alignment=path.alignment, pairs=path.pairs)
        yield PlannedRun(planned.role.replace("/path/", "/distance/"), apart)


RECORDS = ("path_point", "path_calibrated", "weight_distance")


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far: tables "summary" (barriers and endpoints), "distances" (treatments), "pairs" and "layers".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "path_point", "path_calibrated" and "weight_distance" with a `run` column.
    """
    paths = lmc_results.paths(tables["path_point"], roles, spec.block, tables.get("path_calibrated"))
    rows = [name for name in ("paper", "gnn") if lmc_recipe.compares(spec, PRESETS[name])]
    papers = SOURCES[rows[0]].paper.barriers if rows else {}
    found = distances_results.measured(tables["weight_distance"], roles, spec.block)
    pairs = distances_results.by_pair(found, lmc_results.by_pair(paths))
    return {
        "summary": lmc_results.summary(paths, papers),
        "distances": distances_results.by_treatment(pairs, PAPER if "gnn" in rows else {}),
        "pairs": pairs,
        "layers": distances_results.by_layer(found),
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: how far apart its networks are, and the barriers and endpoints on the test images."""
    return distances_results.headline(tables["distances"], tables["summary"])
