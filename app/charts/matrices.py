"""Charts of barrier matrices: a square for every pair of networks, treatments side by side on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from app import theme
from app.charts import labels, legends
from app.charts.quantities import Quantity

WIDTH = 955
"""Pixels that a figure may take, so that it fits beside the side bar on a window of 1280."""
AXIS, LEGEND, GAP = 52, 92, 22
"""Pixels beside the first matrix, beside the last, and between two."""
LARGEST = 300
"""Pixels of a matrix's side at most."""
ROOM = 96
"""Pixels above and below a matrix."""
READABLE = 26
"""Pixels of a square from which a number fits into it."""


def side(matrices: int) -> int:
    """Pixels of a matrix's side when so many stand beside each other."""
    return min(LARGEST, (WIDTH - AXIS - LEGEND - GAP * (matrices - 1)) // matrices)


def height(matrices: int) -> int:
    """Pixels of a figure."""
    return side(matrices) + ROOM


def domain(values: pd.Series) -> tuple[float, float]:
    """One scale for all matrices; it holds zero, where there is no barrier."""
    finite = values.dropna()
    low, high = min(0.0, finite.min()), max(0.0, finite.max())
    return (low, high) if high > low else (low, low + 1.0)


def figure(
    matrices: Mapping[str, pd.DataFrame], networks: int, quantity: Quantity, title: str
) -> alt.VConcatChart:
    """Every treatment's matrix, both halves filled; a dot on the diagonal is the network itself.

    Args:
        matrices: By treatment, columns a, b (from 0), value (in the unit of the barrier).
        networks: Networks per treatment.
        quantity: What the barriers are in.
        title: Of the colour scale, with its unit.
    """
    low, high = domain(pd.concat([frame["value"] for frame in matrices.values()]))
    scale = alt.Scale(scheme="viridis", domain=[low, high], nice=False)
    panels = [
        _matrix(
            key,
            frame,
            networks,
            quantity,
            alt.Fill("value:Q", scale=scale, legend=_legend(title, quantity, side(len(matrices)))),
            side(len(matrices)),
            (low, high),
            first=not place,
        )
        for place, (key, frame) in enumerate(matrices.items())
    ]
    spoken = f"{title} between every two of {networks} networks, for " + ", ".join(
        theme.treatment(key).label for key in matrices
    )
    row = alt.hconcat(*panels, spacing=GAP, bounds="flush").resolve_scale(fill="shared", color="shared")
    chart = alt.vconcat(row).properties(
        autosize=alt.AutoSizeParams(type="pad", contains="padding"), description=spoken
    )
    return theme.styled(chart)


def _matrix(
    key: str,
    frame: pd.DataFrame,
    networks: int,
    quantity: Quantity,
    fill: alt.Fill,
    pixels: int,
    ends: tuple[float, float],
    *,
    first: bool,
) -> alt.LayerChart:
    """One matrix; only the first says what the vertical axis is."""
    whole = pd.concat([frame, frame.rename(columns={"a": "b", "b": "a"})], ignore_index=True)
    whole = whole.assign(dark=whole["value"] > sum(ends) / 2)
    names = list(range(networks))
    shown = names if networks <= 15 else names[::5]
    look: dict[str, Any] = {"labelAngle": 0, "grid": False, "values": shown}
    axis = alt.Axis(title="network" if first else None, **look)
    below = alt.Axis(title="network", **look)
    x = alt.X("b:O", scale=alt.Scale(domain=names, paddingInner=0.04, paddingOuter=0), axis=below)
    y = alt.Y("a:O", scale=alt.Scale(domain=names, paddingInner=0.04, paddingOuter=0), axis=axis)
    told = [
        alt.Tooltip("a:O", title="network"),
        alt.Tooltip("b:O", title="and network"),
        alt.Tooltip("value:Q", title="barrier", format=f".{quantity.digits}f"),
    ]
    squares = alt.Chart(whole).mark_rect(cornerRadius=2).encode(x=x, y=y, fill=fill, tooltip=told)
    itself = alt.Chart(pd.DataFrame({"a": names, "b": names, "role": theme.role(key)}))
    dots = itself.mark_circle(size=30, opacity=0.9, tooltip=None).encode(x=x, y=y, color=theme.paint("role"))
    text = alt.Text("value:Q", format=f".{max(0, quantity.digits - 1)}f")
    numbers = labels.on_colours(whole, x, y, text) if pixels / networks >= READABLE else []
    layers = [squares, dots, *numbers]
    name = theme.treatment(key).label
    ink = alt.ExprRef(f"scale('color', '{theme.words(theme.role(key))}')")
    heading = alt.TitleParams(name, anchor="start", fontSize=12.5, fontWeight=600, color=ink, offset=8)
    return alt.layer(*layers).properties(width=pixels, height=pixels, title=heading)


def _legend(title: str, quantity: Quantity, pixels: int) -> alt.Legend:
    """What the colours are, in lines that fit beside the last matrix."""
    words, _, unit = title.rpartition(" (")
    *first, last, noun = words.split(" ")
    lines = [" ".join(first), f"{last} {noun}", f"({unit}"]
    return legends.gradient(lines, pixels - 48, format=f".{max(0, quantity.digits - 1)}f", tickCount=5)
