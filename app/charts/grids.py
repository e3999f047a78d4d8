"""Heat maps over a grid of two settings: a number in every cell, what was not reached said in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels, legends

HEIGHT = 360
"""Pixels of a chart."""
PLOT = 290
"""Pixels of its plot."""
X_TITLE, Y_TITLE = "fixed weights of each row, times n_fix", "their standard deviation, times κ"


def heat_map(
    cells: pd.DataFrame,
    columns: Sequence[float],
    rows: Sequence[float],
    *,
    title: Sequence[str],
    log: bool,
    digits: str,
    told: Sequence[alt.Tooltip],
    high_is_good: bool = False,
) -> alt.LayerChart:
    """One square per cell that is done, coloured by its value; a cell without one is framed and has its words alone.

    Args:
        cells: Columns n_fix_factor, kappa_factor, value (NaN where there is none), text, and what `told` reads.
        columns: All factors of n_fix.
        rows: All factors of kappa, the least at the bottom.
        title: Of the colours, in lines, the last with the unit.
        log: Whether colours grow with the logarithm.
        digits: Format of the legend's numbers.
        told: Tooltips.
        high_is_good: Whether the highest values are drawn dark, which stands for what is good as on surfaces.
    """
    low, high = _domain(cells["value"], log=log)
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    names = {"x": cells["n_fix_factor"].map(_times), "y": cells["kappa_factor"].map(_times)}
    light = cells["value"] < middle if high_is_good else cells["value"] > middle
    placed = cells.assign(**names, dark=light, role="muted")
    axis: dict[str, Any] = {"grid": False, "labelAngle": 0}
    gaps: dict[str, Any] = {"paddingInner": 0.05, "paddingOuter": 0}
    x_scale = alt.Scale(domain=list(map(_times, columns)), **gaps)
    y_scale = alt.Scale(domain=list(map(_times, reversed(rows))), **gaps)
    x = alt.X("x:O", scale=x_scale, axis=alt.Axis(title=X_TITLE, **axis))
    y = alt.Y("y:O", scale=y_scale, axis=alt.Axis(title=Y_TITLE, **axis))
    kind = "log" if log else "linear"
    scale = alt.Scale(type=kind, scheme="viridis", domain=[low, high], nice=False, reverse=high_is_good)
    ticks = (
        sorted({float(f"{tick:.2g}") for tick in np.geomspace(low, high, 4).round()})
        if log
        else alt.Undefined
    )
    legend = legends.gradient(list(title), PLOT - 70, format=digits, tickCount=5, values=ticks)
    known, unknown = placed[placed["value"].notna()], placed[placed["value"].isna()]
    text = alt.Text("text:N")
    squares = alt.Chart(known).mark_rect(cornerRadius=3)
    frames = alt.Chart(unknown).encode(x=x, y=y, color=theme.paint("role"))
    layers = [
        squares.encode(x=x, y=y, fill=alt.Fill("value:Q", scale=scale, legend=legend), tooltip=list(told)),
        frames.mark_rect(cornerRadius=3, filled=False, strokeDash=[4, 3], strokeWidth=1).encode(
            tooltip=list(told)
        ),
        frames.mark_text(fontSize=labels.FONT, lineBreak="\n", tooltip=None).encode(text=text),
        *labels.on_colours(known, x, y, text, fontSize=labels.FONT, lineBreak="\n"),
    ]
    spoken = f"{' '.join(title)} over {X_TITLE} ({', '.join(map(_times, columns))}) and {Y_TITLE} ({', '.join(map(_times, rows))})"
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=spoken))


def _times(factor: float) -> str:
    return f"×{factor:g}"


def _domain(values: pd.Series, *, log: bool) -> tuple[float, float]:
    """The ends of the colour scale, which are not the same."""
    known = values.dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (1.0, 2.0)
    if high > low:
        return low, high
    return (low, low * 2) if log else (low, low + 1.0)
