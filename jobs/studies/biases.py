"""The fixed biases study (Lim et al. 2024, appendix E.3): do fixed biases, in place of fixed weights, remove the barrier?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

import pyarrow as pa
from pydantic import AfterValidator, Field

from jobs.headline import Headline, Rows
from jobs.specs import PlannedRun, in_order
from jobs.studies import lmc_resnet20, sweep_recipe
from jobs.studies.lmc_recipe import RECORDS, LMCSpec, PaperRow, compares
from jobs.studies.sweep_recipe import Setting
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.treatments import FixedBiases

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]

Reference = Literal["standard", "rebasin", "sigma", "w"]
Bound = Annotated[float, Field(gt=0, le=1e3)]


class Spec(LMCSpec):
    """Barriers between networks whose hidden biases are fixed, by how large these are."""

    title: ClassVar[str] = "Fixed biases"
    paper: ClassVar[PaperRow] = lmc_resnet20.Spec.paper

    kind: Literal["biases"] = "biases"
    network: NetworkSpec = ResNetSpec()
    """Form of every network."""
    treatments: Annotated[tuple[Reference, ...], in_order(get_args(Reference))] = ("standard", "w")
    """What stands beside the networks with fixed biases."""
    bounds: Annotated[
        tuple[Bound, ...], Field(min_length=1, max_length=20), AfterValidator(sweep_recipe.ascending)
    ] = (1.0, 3.0, 9.0, 27.0)
    """Largest biases k that are compared, in place of `fixed_biases.bound`; biases are drawn from U[-k, k]."""


PAPER = {1.0: (5.81, 3.67), 3.0: (3.76, 0.38), 9.0: (4.62, 1.03), 27.0: (10.6, 4.29)}
"""Barriers of ResNet20 on CIFAR-10 by k."""
PRESETS: dict[str, Spec] = {
    name: Spec.model_validate(lmc_resnet20.PRESETS[name].model_dump(exclude={"kind", "treatments"}))
    for name in ("smoke", "laptop", "paper")
}
"""The networks of the presets of linear mode connectivity of ResNet20."""


def settings(spec: Spec) -> list[Setting]:
    """What does not depend on k, then one for each k."""
    comparable = compares(spec, PRESETS["paper"])
    found = [Setting(None, spec, spec.paper.barriers if comparable else {})]
    for bound in spec.bounds:
        change = {"treatments": ("fixed_biases",), "fixed_biases": FixedBiases(bound=bound)}
        paper = {"fixed_biases": PAPER[bound]} if comparable and bound in PAPER else {}
        found.append(Setting(bound, spec.model_copy(update=change), paper))
    return found


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return sweep_recipe.expand(settings(spec))


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `sweep_recipe.results`."""
    return sweep_recipe.results(settings(spec), roles, tables)


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment, and one per k."""
    return sweep_recipe.headline(tables["summary"], "k")
