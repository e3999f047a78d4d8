"""Charts of distances between networks: against the barrier between them, and layer by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt
import pandas as pd

from app import theme

HEIGHT = 362
"""Pixels of the chart of pairs, which has a legend above it."""
ROW = 34
"""Pixels of a layer's row."""
LANES = 0.6
"""Height of the lanes of a layer together, in rows."""


def layers_height(layers: int) -> int:
    """Pixels of the chart of so many layers."""
    return ROW * layers + 100


def against_barriers(pairs: pd.DataFrame, title: str) -> alt.LayerChart:
    """A dot per pair: how far apart its networks are, and the barrier between them.

    Args:
        pairs: Columns treatment, pair, value (the distance), barrier (nats).
        title: What the distance is, with its unit.
    """
    shown = pairs.dropna(subset=["value", "barrier"])
    shown = shown.assign(role=shown["treatment"].map(theme.role), label=_labels(shown))
    x_scale = alt.Scale(zero=False, padding=14, nice=False)
    x = alt.X("value:Q", title=title, scale=x_scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("barrier:Q", title="midpoint test loss barrier (nats)", scale=alt.Scale(padding=14, nice=False))
    told = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("pair:O", title="pair"),
        alt.Tooltip("value:Q", title="distance", format=".4g"),
        alt.Tooltip("barrier:Q", title="barrier", format=".3f"),
    ]
    zero = alt.Chart(pd.DataFrame({"barrier": [0.0]})).mark_rule(
        strokeDash=[4, 3], strokeWidth=1, tooltip=None
    )
    dots = alt.Chart(shown).mark_circle(size=52, opacity=theme.DOTS)
    layers = [
        zero.encode(y=y, color=theme.fixed("rule")),
        dots.encode(x=x, y=y, color=theme.paint("role"), tooltip=told),
    ]
    spoken = f"{title} against the barrier, one dot per pair, for {', '.join(dict.fromkeys(shown['label']))}"
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=spoken))


def by_layer(values: pd.DataFrame, order: Sequence[str], title: str) -> alt.LayerChart:
    """The mean over pairs and one standard deviation of every layer, a lane per treatment.

    Args:
        values: Columns treatment, layer, pair, value; layers in the order of the network.
        order: Treatments from top to bottom.
        title: What the distance is, with its unit.
    """
    names = list(dict.fromkeys(values["layer"]))
    means = (
        values.groupby(["treatment", "layer"], sort=False)["value"].agg(["mean", "std", "size"]).reset_index()
    )
    step = LANES / max(1, len(order) - 1)
    lane = means["treatment"].map(list(order).index) - (len(order) - 1) / 2
    spread = means["std"].fillna(0.0)
    means = means.assign(
        y=means["layer"].map(names.index) + lane * step,
        low=means["mean"] - spread,
        high=means["mean"] + spread,
        role=means["treatment"].map(theme.role),
        label=_labels(means),
    )
    x = alt.X("mean:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    rows = alt.Axis(
        title=None,
        grid=False,
        values=list(range(len(names))),
        tickCount=len(names),
        labelExpr=f"{json.dumps(names)}[datum.value]",
        minExtent=120,
        labelLimit=190,
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[len(names) - 0.5, -0.5], nice=False, zero=False), axis=rows)
    told = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("layer:N", title="layer"),
        alt.Tooltip("mean:Q", title="mean", format=".4g"),
        alt.Tooltip("std:Q", title="standard deviation", format=".2g"),
        alt.Tooltip("size:Q", title="pairs"),
    ]
    between = alt.Chart(pd.DataFrame({"y": [row + 0.5 for row in range(len(names) - 1)]}))
    drawn = alt.Chart(means).encode(y=y, color=theme.paint("role"))
    layers = [
        between.mark_rule(strokeWidth=1, opacity=0.25, tooltip=None).encode(y=y, color=theme.fixed("rule")),
        drawn.mark_rule(strokeWidth=1.5, tooltip=None).encode(x="low:Q", x2="high:Q"),
        drawn.mark_circle(size=62, opacity=1).encode(x=x, tooltip=told),
    ]
    spoken = f"{title} of each layer, mean over pairs, for {', '.join(dict.fromkeys(means['label']))}"
    return theme.styled(alt.layer(*layers).properties(height=layers_height(len(names)), description=spoken))


def _labels(frame: pd.DataFrame) -> pd.Series:
    return frame["treatment"].map(lambda key: theme.treatment(key).label)
