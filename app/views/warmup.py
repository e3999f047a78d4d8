"""Results of a warm-up study: barriers after short and long warm-ups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import parts, wording
from app.charts.sweeps import Place
from app.views import lmc, sweeps
from app.views.sweeps import Results, exports

__all__ = ["BRIEF", "brief", "draw", "exports"]

BRIEF = f"{lmc.BRIEF}, by epochs of warm-up"
"""What the numbers of `brief` are."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    sweeps.draw(study, results, _places(study["spec"]), "Warm-up (epochs)")
    parts.note(
        "The learning rate grows by one factor after each epoch of the warm-up, and is constant after it. The paper compares "
        "1 and 20 epochs for ResNet20 on CIFAR-10, whose barriers stand beside the preset “paper”, and for graph networks on "
        "ogbn-arxiv: Git Re-Basin 0.249 ± 0.04 and 0.292 ± 0.04 nats, W-Asymmetric 0.075 ± 0.04 and 0.074 ± 0.02."
    )


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone."""
    del large
    sweeps.brief(results, _places(study["spec"]))


def _places(spec: Mapping[str, Any]) -> list[Place]:
    return [
        Place(epochs, key, wording.count(epochs, "epoch"))
        for epochs in spec["warmups"]
        for key in spec["treatments"]
    ]
