"""Histograms of predictive entropy on test images and on others, a panel per treatment on one scale."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from app import theme
from app.charts import panels, shares

SIDE, CAPTION = 200, 106
"""Pixels of a panel's height, and of what stands above and below it."""
PERCENT = 100.0


def height(treatments: int) -> int:
    """Pixels of a figure."""
    return -(-treatments // panels.COLUMNS) * (SIDE + CAPTION)


def outline(bins: pd.DataFrame) -> pd.DataFrame:
    """The upper edge of a histogram as points of a stepped line, down to zero at both ends.

    Args:
        bins: Columns lower, upper, share, in order; none of a treatment that is not done yet.

    Returns:
        Columns entropy, share: from each point the line goes on level, to the next point's entropy.
    """
    if bins.empty:
        return pd.DataFrame({"entropy": [], "share": []}, dtype=float)
    first, last = float(bins["lower"].iloc[0]), float(bins["upper"].iloc[-1])
    return pd.DataFrame({"entropy": [first, *bins["lower"], last], "share": [0.0, *bins["share"], 0.0]})


def figure(bins: pd.DataFrame, told: Mapping[str, str]) -> alt.VConcatChart:
    """Test images filled, the others as a line.

    Args:
        bins: Columns treatment, split ("test" or "outside"), lower, upper (nats), share (0 to 1).
        told: What is said above each treatment's panel below its name, in the order of the panels.
    """
    bins = bins.assign(role=bins["treatment"].map(theme.role), share=bins["share"] * PERCENT, floor=0.0)
    largest = float(bins["upper"].max())
    drawn = []
    for place, (key, said) in enumerate(told.items()):
        own = bins[bins["treatment"] == key]
        y = shares.upright(bins["share"], named=place % panels.COLUMNS == 0)
        heading = panels.above(theme.treatment(key).label, said)
        panel = _panel(own, key, y, largest)
        drawn.append((panel.properties(width=panels.width(len(told)), height=SIDE, title=heading),))
    names = ", ".join(theme.treatment(key).label for key in told)
    return panels.rows(drawn, f"images (%) by the entropy of their predictions (nats), for {names}")


def _panel(bins: pd.DataFrame, key: str, y: alt.Y, largest: float) -> alt.LayerChart:
    """The two histograms of treatment `key`, from nothing to the entropy of knowing nothing."""
    scale = alt.Scale(domain=[0, largest], nice=False)

    def x(field: str) -> alt.X:
        return alt.X(
            field, title="entropy (nats)", scale=scale, axis=alt.Axis(tickCount=5, format="~g", labelFlush=8)
        )

    inside, outside = (bins[bins["split"] == split] for split in ("test", "outside"))
    line = outline(outside).assign(role=theme.role(key))
    tips = [
        alt.Tooltip("lower:Q", title="entropy from", format=".2f"),
        alt.Tooltip("upper:Q", title="to", format=".2f"),
        alt.Tooltip("share:Q", title="test images (%)", format=".2f"),
    ]
    return alt.layer(
        alt.Chart(inside)
        .mark_rect(opacity=0.35)
        .encode(x=x("lower:Q"), x2="upper:Q", y=y, y2="floor:Q", color=theme.paint("role"), tooltip=tips),
        alt.Chart(line)
        .mark_line(interpolate="step-after", strokeWidth=2, tooltip=None)
        .encode(x=x("entropy:Q"), y=y, color=theme.paint("role")),
    )
