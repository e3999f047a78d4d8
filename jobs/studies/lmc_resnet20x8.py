"""The third row of table 1 (Lim et al. 2024): linear mode connectivity of ResNet20 at 8 times the width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from jobs.studies import lmc_recipe
from jobs.studies.lmc_recipe import RECORDS, LMCSpec, PaperRow, expand, headline
from jobs.studies.lmc_resnet20 import ADAM, SIGMA_RATE, paper_training
from symcore.networks.resnet import ResNetSpec

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]


class WideResNetSpec(ResNetSpec):
    """A residual network for small images (Lim et al. 2024, appendix E.1), 8 times as wide unless another width is given."""

    width: float = Field(default=8.0, gt=0, le=64)
    """Factor of the 16, 32 and 64 channels of the stages, a multiple of 1/16."""

    @model_validator(mode="before")
    @classmethod
    def _take_any(cls, given: Any) -> Any:  # noqa: ANN401 - what came from outside
        """Another study's network is one of any width."""
        return given.model_dump() if type(given) is ResNetSpec else given


class Spec(LMCSpec):
    """Barriers on straight paths between independently trained wide residual networks, treatment beside treatment."""

    title: ClassVar[str] = "Linear mode connectivity, ResNet20 8 times as wide"
    order: ClassVar[int] = 0
    paper: ClassVar[PaperRow] = PaperRow(
        "ResNet20, 8 times as wide, on CIFAR-10",
        {"standard": (2.640, 0.24), "rebasin": (0.509, 0.45), "sigma": (1.492, 0.15), "w": (0.031, 0.05)},
    )

    kind: Literal["lmc_resnet20x8"] = "lmc_resnet20x8"
    network: WideResNetSpec = WideResNetSpec()
    """Form of every network."""


PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=WideResNetSpec(depth=8, width=1),
        training=ADAM.model_copy(update={"epochs": 2, "warmup_epochs": 1}),
        sigma_learning_rate=SIGMA_RATE,
        pairs=1,
        points=5,
    ),
    "laptop": Spec(
        network=WideResNetSpec(depth=8, width=2),
        training=ADAM.model_copy(update={"epochs": 20, "warmup_epochs": 4}),
        sigma_learning_rate=SIGMA_RATE,
    ),
    "paper": Spec(
        data="cifar-10",
        training=paper_training(50),
        sigma_learning_rate=SIGMA_RATE,
        block=1,
    ),
}
"""A ResNet8 on digits in seconds; 8 times the width of the laptop's narrow one in minutes; the paper's (appendix E.1)."""


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `lmc_recipe.results`."""
    return lmc_recipe.results(spec, roles, tables, PRESETS["paper"])
