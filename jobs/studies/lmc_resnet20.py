"""The second row of table 1 (Lim et al. 2024): linear mode connectivity of ResNet20, on CIFAR-10 in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pyarrow as pa

from jobs.studies import lmc, lmc_recipe
from jobs.studies.lmc_recipe import RECORDS, LMCSpec, PaperRow, expand, headline
from symcore.networks.resnet import ResNetSpec
from symcore.training import TrainingSpec

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]

ADAM = TrainingSpec(learning_rate=1e-2, weight_decay=0, warmup_epochs=12)
"""As the paper trains ResNets: Adam, whose learning rate grows from 1e-4 to 1e-2 over a fifth of the epochs."""
SIGMA_RATE = 1e-3
"""Learning rate of the paper's sigma-Asymmetric ResNets, which are not stable at 1e-2."""


class Spec(LMCSpec):
    """Barriers on straight paths between independently trained residual networks, treatment beside treatment."""

    title: ClassVar[str] = "Linear mode connectivity, ResNet20"
    order: ClassVar[int] = 0
    paper: ClassVar[PaperRow] = PaperRow(
        "ResNet20 on CIFAR-10",
        {"standard": (3.287, 0.32), "rebasin": (2.041, 0.21), "sigma": (2.521, 0.46), "w": (0.934, 0.72)},
    )

    kind: Literal["lmc_resnet20"] = "lmc_resnet20"
    network: ResNetSpec = ResNetSpec()
    """Form of every network."""


def paper_training(epochs: int) -> TrainingSpec:
    """Lim et al. 2024, appendix E.1, with augmentation drawn for each image, where the authors' code draws it for a batch."""
    changes = {"epochs": epochs, "batch": 128, "warmup_epochs": 20, "augment": "crop_flip"}
    return ADAM.model_copy(update=changes)


NARROW = ResNetSpec(depth=8, width=0.25)
PAPER = Spec(data="cifar-10", training=paper_training(100), sigma_learning_rate=SIGMA_RATE)
PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=NARROW,
        training=ADAM.model_copy(update={"epochs": 5, "warmup_epochs": 1}),
        sigma_learning_rate=SIGMA_RATE,
        pairs=2,
        block=2,
    ),
    "laptop": Spec(network=NARROW, training=ADAM, sigma_learning_rate=SIGMA_RATE),
    "paper": PAPER,
    "controls": PAPER.model_copy(update={"treatments": lmc.CONTROLS, "restarts": 10}),
}
"""A narrow ResNet8 on digits in seconds, and in minutes; ResNet20 on CIFAR-10 as in the paper (appendix E.1); what the paper
lacks to tell why W-Asymmetric networks have no barrier, as for MLPs.
"""


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `lmc_recipe.results`."""
    return lmc_recipe.results(spec, roles, tables, PRESETS["paper"])
