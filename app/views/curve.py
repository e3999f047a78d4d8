"""A curve run's results: loss and accuracy on the Bezier curves that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import parts
from app.views import curves, interpolate
from app.views.interpolate import TABLES

__all__ = ["TABLES", "draw"]


def draw(run: Mapping[str, Any]) -> None:
    """The points of the curves."""
    interpolate.charts(run, "on the Bezier curves", "Bezier curve")
    parts.note(curves.bent(run["spec"]["bends"], run["spec"]["training"]["epochs"]))
