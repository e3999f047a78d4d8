"""The last row of table 1 (Lim et al. 2024): linear mode connectivity of graph networks, on ogbn-arxiv in the paper.

The W-Asymmetric networks here keep GELU, as the paper says; those of the authors' code have FiGLU besides, which is
the treatment w_figlu. As in the paper, neurons are matched by the inner products of their activations, where the other
rows match them by their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa

from jobs.kinds import interpolate
from jobs.specs import DataName, in_order
from jobs.studies import lmc_recipe
from jobs.studies.lmc_recipe import ALL, RECORDS, LMCSpec, LMCTreatment, PaperRow, expand, headline
from symcore.align.activations import ActivationMatching
from symcore.networks.gnn import GNNSpec
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric

__all__ = ["PRESETS", "RECORDS", "Spec", "expand", "headline", "results"]


W_BARRIER = 0.095, 0.03
"""The paper's W-Asymmetric networks: its text describes those of w, its code makes those of w_figlu."""


class Spec(LMCSpec):
    """Barriers on straight paths between independently trained graph networks, treatment beside treatment."""

    title: ClassVar[str] = "Linear mode connectivity, graph networks"
    order: ClassVar[int] = 0
    paper: ClassVar[PaperRow] = PaperRow(
        "GNN on ogbn-arxiv",
        {
            "standard": (1.475, 0.24),
            "activations": (0.269, 0.02),
            "sigma": (0.901, 0.11),
            "w": W_BARRIER,
            "w_figlu": W_BARRIER,
        },
    )

    kind: Literal["lmc_gnn"] = "lmc_gnn"
    data: DataName = "cora"
    """Data set: a citation graph, which is downloaded."""
    network: GNNSpec = GNNSpec()
    """Form of every network."""
    treatments: Annotated[tuple[LMCTreatment, ...], in_order(ALL)] = ("standard", "activations", "sigma", "w")
    """What is compared: standard networks, the same aligned by activation matching, sigma- and W-Asymmetric networks, as in the paper; others as in the study lmc."""
    activations: ActivationMatching = ActivationMatching(similarity="product")
    """Settings of activation matching."""
    training: TrainingSpec = TrainingSpec(epochs=500, weight_decay=0, warmup_epochs=25, warmup_shape="linear")
    """How networks are trained: an epoch is one step on the whole graph."""
    sigma: SigmaAsymmetric = SigmaAsymmetric(std=0.01 / 16)
    """Settings of the sigma-Asymmetric networks; F's standard deviation is the paper's, 0.01 / sqrt(256)."""
    points: interpolate.Points = 3
    """Points on each path, endpoints included; odd."""


def _narrow(width: int, epochs: int, warmup: int) -> dict[str, object]:
    """What changes with the size: F's standard deviation goes with the width."""
    training = Spec().training.model_copy(update={"epochs": epochs, "warmup_epochs": warmup})
    return {
        "network": GNNSpec(width=width),
        "sigma": SigmaAsymmetric(std=0.01 / width**0.5),
        "training": training,
    }


PAPER = Spec(data="ogbn-arxiv", block=2)
CONTROLS: tuple[LMCTreatment, ...] = ("standard", "activations", "w", "w_figlu", "w0", "syre", "asym_init")
LINEAR: tuple[LMCTreatment, ...] = ("standard", "activations", "w")
"""What is compared of networks without a nonlinearity, which FiGLU would bring back."""
PRESETS: dict[str, Spec] = {
    "smoke": Spec().model_copy(update=_narrow(16, 20, 5) | {"pairs": 2, "block": 2}),
    "laptop": Spec().model_copy(update=_narrow(64, 100, 25) | {"points": 11}),
    "pubmed": Spec().model_copy(update=_narrow(64, 100, 25) | {"data": "pubmed", "block": 1}),
    "paper": PAPER,
    "controls": PAPER.model_copy(update={"treatments": CONTROLS}),
    "linear": PAPER.model_copy(update={"treatments": LINEAR, "network": GNNSpec(activation="none")}),
}
"""Cora in seconds, and in minutes; PubMed, seven times as large; ogbn-arxiv as in the paper (appendix E.1), for a GPU; what the
paper lacks to tell why W-Asymmetric networks have no barrier: FiGLU beside the masks, zeros fixed, offsets, the start alone;
and networks without a nonlinearity, which those with FiGLU nearly are at the start.
"""


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is done so far, beside the paper's numbers where they compare; see `lmc_recipe.results`."""
    return lmc_recipe.results(spec, roles, tables, PRESETS["paper"])
