"""The loss along slices through networks: a panel per direction, all on one vertical scale, a line per treatment."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from app import theme
from app.charts.panels import COLUMNS, EXTENT, above, rows, width
from app.charts.quantities import LOSS, Quantity
from app.charts.ticks import decades, numeric

SIDE, CAPTION = 190, 90
"""Pixels of a panel's height, and of what stands above and below it."""
FLUSH = 8
"""Pixels from a panel's edge within which an axis label is moved inside, off the label of the next panel."""
HAIRLINES = 12
"""Slices per treatment and panel that are drawn one by one; means are over all."""
LOWEST = 1e-6
"""Nats below which a logarithmic scale does not reach."""


def height(panels: int) -> int:
    """Pixels of a figure."""
    return -(-panels // COLUMNS) * (SIDE + CAPTION)


def domain(values: pd.Series, quantity: Quantity, *, log: bool) -> tuple[float, float]:
    """One scale for all panels."""
    low, high = float(values.min()), float(values.max())
    if quantity is not LOSS:
        return low - 0.02 * (100 - low) - 0.1, 100.0
    if not log:
        return min(0.0, low), high * 1.05 or 1.0
    low = max(low, LOWEST)
    return 0.8 * low, max(high, 1.1 * low) * 1.25


def figure(
    points: pd.DataFrame,
    panels: Mapping[str, tuple[str, str]],
    quantity: Quantity,
    split: str,
    *,
    log: bool,
) -> alt.VConcatChart:
    """Panels in rows of three; hairlines are single slices, thick lines their means.

    Args:
        points: Columns treatment, direction, member, draw, position, value (in the unit of `quantity`).
        panels: By direction, what is said above it and the unit of its positions.
        quantity: What the values are.
        split: The images they were measured on.
        log: Logarithmic vertical scale, for a loss.
    """
    points = points.assign(role=points["treatment"].map(theme.role))
    low, high = domain(points["value"], quantity, log=log)
    scale, marks = numeric(low, high, log=log), decades(low, high) if log else []
    ticks = alt.Axis(
        tickCount=len(marks) or 5,
        values=marks or alt.Undefined,
        format="~g",
        minExtent=EXTENT,
        title=quantity.title(split),
    )
    drawn = []
    for place, (key, (heading, title)) in enumerate(panels.items()):
        y = alt.Y("value:Q", scale=scale, title=None, axis=None if place % COLUMNS else ticks)
        drawn.append((_panel(points[points["direction"] == key], heading, title, y, quantity),))
    spoken = f"{quantity.title(split)} along slices through networks: " + "; ".join(
        heading for heading, _ in panels.values()
    )
    return rows(drawn, spoken)


def _panel(points: pd.DataFrame, heading: str, title: str, y: alt.Y, quantity: Quantity) -> alt.LayerChart:
    """One direction; only the first panel of a row says what the vertical axis is."""
    means = points.groupby(["treatment", "role", "position"], sort=False)["value"].mean().reset_index()
    means = means.assign(label=means["treatment"].map(lambda key: theme.treatment(key).label))
    reach = float(points["position"].abs().max()) if len(points) else 1.0
    across = alt.Scale(domain=[-reach, reach], nice=False)
    x = alt.X(
        "position:Q", title=f"position ({title})", scale=across, axis=alt.Axis(tickCount=5, labelFlush=FLUSH)
    )
    tips = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("position:Q", format=".2f"),
        alt.Tooltip("value:Q", title=f"mean {quantity.key}", format=f".{quantity.digits}f"),
    ]
    middle = alt.Chart(pd.DataFrame({"position": [0.0]}))
    single = alt.Chart(hairlines(points)).encode(
        x=x, y=y, color=theme.paint("role"), detail=["treatment:N", "member:N", "draw:N"]
    )
    mean = alt.Chart(means).encode(x=x, y=y, color=theme.paint("role"))
    layers = [
        middle.mark_rule(strokeDash=[4, 3], strokeWidth=1, tooltip=None).encode(
            x=x, color=theme.fixed("rule")
        ),
        single.mark_line(strokeWidth=0.8, opacity=0.4, clip=True, tooltip=None),
        mean.mark_line(strokeWidth=2.5, strokeCap="round", clip=True, tooltip=None).encode(
            detail="treatment:N"
        ),
        mean.mark_circle(size=70, opacity=0).encode(tooltip=tips),
    ]
    return alt.layer(*layers, width=width(COLUMNS), height=SIDE, title=above(heading))


def hairlines(points: pd.DataFrame) -> pd.DataFrame:
    """The points of at most `HAIRLINES` slices per treatment."""
    named = points["member"].astype(str) + "/" + points["draw"].astype(str)
    rank = named.groupby(points["treatment"], sort=False).transform(lambda names: pd.factorize(names)[0])
    return points[rank < HAIRLINES]
