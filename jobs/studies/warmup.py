"""The warm-up study (Lim et al. 2024, appendix on ablations): does a longer warm-up make the barrier lower?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from jobs.headline import Headline, Rows
from jobs.specs import PlannedRun
from jobs.studies import lmc_gnn, lmc_resnet20, sweep_recipe
from jobs.studies.lmc_recipe import RECORDS, LMCSpec, PaperRow, compares
from jobs.studies.sweep_recipe import Barriers, Setting
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]

Epochs = Annotated[int, Field(ge=0, le=100_000)]


class Spec(LMCSpec):
    """Barriers after short and long warm-ups of the learning rate, treatment beside treatment."""

    title: ClassVar[str] = "Warm-up"
    paper: ClassVar[PaperRow] = lmc_resnet20.Spec.paper

    kind: Literal["warmup"] = "warmup"
    network: NetworkSpec = ResNetSpec()
    """Form of every network."""
    warmups: Annotated[
        tuple[Epochs, ...], Field(min_length=1, max_length=20), AfterValidator(sweep_recipe.ascending)
    ] = (1, 20)
    """Epochs of warm-up that are compared, in place of `training.warmup_epochs`."""

    @field_validator("warmups")
    @classmethod
    def _ends_before_the_fall(cls, warmups: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        training = info.data.get("training")
        if training and training.fall_epochs and warmups[-1] > training.fall_start:
            msg = (
                f"{warmups[-1]} epochs, and the learning rate falls from {training.fall_start} on "
                f"(training.fall_start); accepted: up to {training.fall_start}"
            )
            raise ValueError(msg)
        return warmups


PAPER: dict[str, dict[int, Barriers]] = {
    "paper": {
        1: {"rebasin": (4.2, 0.80), "w": (0.673, 0.29)},
        20: lmc_resnet20.Spec.paper.barriers,
    },
    "gnn": {
        1: {"activations": (0.249, 0.04)} | dict.fromkeys(("w", "w_figlu"), (0.075, 0.04)),
        20: {"activations": (0.292, 0.04)} | dict.fromkeys(("w", "w_figlu"), (0.074, 0.02)),
    },
}
"""By preset and epochs of warm-up; W-Asymmetric graph networks may be either, as in `lmc_gnn`."""


def _preset(of: LMCSpec, **changes: object) -> Spec:
    return Spec.model_validate(of.model_dump(exclude={"kind"}) | changes)


PRESETS: dict[str, Spec] = {
    "smoke": _preset(lmc_resnet20.PRESETS["smoke"], warmups=(1, 3)),
    "laptop": _preset(
        lmc_resnet20.PRESETS["laptop"], treatments=("standard", "rebasin", "w"), pairs=3, block=3
    ),
    "paper": _preset(lmc_resnet20.PRESETS["paper"]),
    "gnn": _preset(lmc_gnn.PRESETS["paper"], treatments=("standard", "activations", "w", "w_figlu")),
}
"""The networks of linear mode connectivity of ResNet20, on a laptop fewer of them, as each is trained twice; and of the paper's
graph networks on ogbn-arxiv, of which an epoch is one step.
"""


def settings(spec: Spec) -> list[Setting]:
    """One for each warm-up."""
    found = []
    for epochs in spec.warmups:
        own = _warmed(spec, epochs)
        rows = [
            barriers.get(epochs, {})
            for name, barriers in PAPER.items()
            if compares(own, _warmed(PRESETS[name], epochs))
        ]
        found.append(Setting(epochs, own, rows[0] if rows else {}))
    return found


def _warmed(spec: Spec, epochs: int) -> Spec:
    """The study of linear mode connectivity with such a warm-up."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"warmup_epochs": epochs})})


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return sweep_recipe.expand(settings(spec))


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `sweep_recipe.results`."""
    return sweep_recipe.results(settings(spec), roles, tables)


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per warm-up and treatment."""
    return sweep_recipe.headline(tables["summary"], "warm-up")
