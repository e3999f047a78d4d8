"""How sharply the loss curves along the way from one network to another: a line per pair, its networks at the ends."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app import theme
from app.charts.ticks import decades, numeric

HEIGHT = 340
"""Pixels."""
ROOM = 1.25
"""How far a logarithmic scale reaches beyond the values, as a factor."""


def figure(points: pd.DataFrame, treatment: str, title: str) -> alt.LayerChart:
    """Hairlines join the points of a pair, the thick line is the mean over pairs; networks are dots, points between hollow diamonds.

    Args:
        points: Columns pair, alpha, shape ("circle" at networks, "diamond" between), value (above zero), error, told (where).
        treatment: Of the networks.
        title: What the values are, with their unit.
    """
    low, high = points["value"].min() / ROOM, points["value"].max() * ROOM
    x = alt.X(
        "alpha:Q",
        title="α (0 = network A, 1 = network B)",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", labelFlush=False),
    )
    ticks = alt.Axis(values=decades(low, high), format="~g", minExtent=38)
    y = alt.Y("value:Q", title=title, scale=numeric(low, high, log=True), axis=ticks)
    paint = theme.paint("role")
    told = [
        alt.Tooltip("told:N", title="at"),
        alt.Tooltip("value:Q", format=".4g"),
        alt.Tooltip("error:Q", title="error", format=".2g"),
    ]
    drawn = points.assign(role=theme.role(treatment))
    pair = alt.Chart(drawn).encode(x=x, y=y, color=paint, detail="pair:N")
    full, hollow = (
        alt.Chart(drawn[drawn["shape"] == shape]).encode(x=x, y=y, color=paint, tooltip=told)
        for shape in ("circle", "diamond")
    )
    mean = alt.Chart(_means(drawn)).encode(x=x, y=y, color=paint)
    layers = [
        pair.mark_line(strokeWidth=1, opacity=0.45, tooltip=None),
        mean.mark_line(strokeWidth=2.75, strokeCap="round", tooltip=None),
        hollow.mark_point(shape="diamond", size=40, filled=False, strokeWidth=1.5, opacity=0.9),
        full.mark_circle(size=60, opacity=theme.DOTS),
    ]
    spoken = f"{title} between two networks, for {theme.treatment(treatment).label}"
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=spoken))


def _means(points: pd.DataFrame) -> pd.DataFrame:
    """The mean at each alpha at which every pair has a value."""
    grouped = points.groupby(["alpha", "role"])["value"].agg(["mean", "size"]).reset_index()
    whole = grouped[grouped["size"] == points["pair"].nunique()]
    return whole.rename(columns={"mean": "value"}).drop(columns="size")
