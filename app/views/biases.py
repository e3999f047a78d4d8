"""Results of a fixed biases study: barriers by how large the fixed biases are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.charts.sweeps import Place
from app.views import lmc
from app.views.sweeps import TABLES, Sweep

__all__ = ["BRIEF", "TABLES", "brief", "draw"]

BRIEF = f"{lmc.BRIEF}, by the largest fixed bias k"
"""What the numbers of `brief` are."""


def _places(spec: Mapping[str, Any]) -> list[Place]:
    fixed = [Place(bound, "fixed_biases", f"k = {bound:g}") for bound in spec["bounds"]]
    return [*(Place(None, key, "") for key in spec["treatments"]), *fixed]


SWEEP = Sweep(
    varied="Bound",
    unit="k",
    note=(
        "Hidden layers' biases are drawn from U[−k, k], shared by all networks, and not trained. One bias tells two neurons "
        "apart in a single direction only, and the rest of their weights can still change places. The paper does not state "
        "which biases of ResNet20 it fixes; here they are those of the norms, the only ones that hidden layers have. A low "
        "barrier between networks that have learnt nothing is no success: see their accuracy."
    ),
    places=_places,
)
brief, draw = SWEEP.brief, SWEEP.draw
