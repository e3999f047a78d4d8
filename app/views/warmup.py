"""Results of a warm-up study: barriers after short and long warm-ups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import wording
from app.charts.sweeps import Place
from app.views import lmc
from app.views.sweeps import TABLES, Sweep

__all__ = ["BRIEF", "TABLES", "brief", "draw"]

BRIEF = f"{lmc.BRIEF}, by epochs of warm-up"
"""What the numbers of `brief` are."""


def _places(spec: Mapping[str, Any]) -> list[Place]:
    warmups = [(epochs, wording.count(epochs, "epoch")) for epochs in spec["warmups"]]
    return [Place(epochs, key, heading) for epochs, heading in warmups for key in spec["treatments"]]


SWEEP = Sweep(
    varied="Warm-up",
    unit="epochs",
    note=(
        "The learning rate grows after each epoch of the warm-up, and is constant after it. The paper compares 1 and 20 epochs "
        "for ResNet20 on CIFAR-10, whose barriers stand beside the preset “paper”, and for graph networks on ogbn-arxiv, whose "
        "barriers stand beside the preset “gnn”; there its Git Re-Basin matches activations."
    ),
    places=_places,
)
brief, draw = SWEEP.brief, SWEEP.draw
