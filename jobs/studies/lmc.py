"""The first row of table 1 (Lim et al. 2024): linear mode connectivity of MLPs, on MNIST in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pyarrow as pa

from jobs.studies import lmc_recipe
from jobs.studies.aligned import TreatmentName
from jobs.studies.lmc_recipe import RECORDS, LMCSpec, PaperRow, expand, headline
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, WAsymmetric

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]


class Spec(LMCSpec):
    """Barriers on straight paths between independently trained networks, treatment beside treatment."""

    title: ClassVar[str] = "Linear mode connectivity"
    order: ClassVar[int] = 0
    paper: ClassVar[PaperRow] = PaperRow(
        "MLP on MNIST",
        {"standard": (0.188, 0.12), "rebasin": (-0.006, 0.0), "sigma": (0.117, 0.01), "w": (-0.012, 0.0)},
    )

    kind: Literal["lmc"] = "lmc"


PAPER = Spec(
    data="mnist",
    network=MLPSpec(width=512),
    w=WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
    sigma=SigmaAsymmetric(std=1),
    training=TrainingSpec(epochs=25),
)
CONTROLS: tuple[TreatmentName, ...] = ("standard", "rebasin", "w", "w0", "syre", "asym_init")
PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2),
        training=TrainingSpec(epochs=15),
        pairs=2,
        block=2,
    ),
    "laptop": Spec(),
    "paper": PAPER,
    "controls": PAPER.model_copy(update={"treatments": CONTROLS, "restarts": 10}),
}
"""Digits in seconds; digits as the demo runs it; MNIST as in the paper (appendix E.1 and the authors' code); what the paper
lacks to tell why W-Asymmetric networks have no barrier: zeros fixed, offsets, the start alone, a longer search.
"""


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `lmc_recipe.results`."""
    return lmc_recipe.results(spec, roles, tables, PRESETS["paper"])
