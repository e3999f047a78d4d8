"""The chart of measured symmetry: how far each transformation of the weights moves a network's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels, tables
from symcore.symmetry.inspector import EPSILON, TRANSFORMATIONS

LEAST = 400
"""Pixels of the chart's height at least."""
LANE = 15
"""Pixels between two treatments' lanes at least, so that their names do not touch."""
NAMES = {
    "swap": "two neurons swapped",
    "permutation": "all neurons permuted",
    "sign": "signs of neurons changed",
    "rescale": "neurons rescaled",
    "scale": "one layer scaled",
    "shift": "one layer's rows shifted",
}
"""Transformations in words, from top to bottom."""
DOES = {
    "swap": "two neurons of one layer change places",
    "permutation": "the neurons of every layer change places at random",
    "sign": "neurons that could change sign, as before tanh, do so at random",
    "rescale": "what goes into a neuron × s, what comes out ÷ s; s from ¼ to ½ or 2 to 4, each neuron its own",
    "scale": "all weights of a layer before a norm × s; s from ¼ to ½ or 2 to 4",
    "shift": "one row vector is added to all rows of a layer before a norm",
}
"""What each does to the weights."""
UNITS = (
    "Relative changes, ‖f′(x) − f(x)‖ / ‖f(x)‖: 1 is as much as the outputs themselves, 10⁻¹⁶ is rounding. A dash: the network "
    "has no place for it."
)
"""What the table's numbers are, as HTML."""
LOWEST = 1e-17
"""Left end of the axis; changes below it, exact zeros among them, are drawn there."""
HIGHEST, WORDS = 1e3, 5.0
"""Right end of the axis, and where the treatments' names begin, right of all dots."""
POWERS = {1e-16: "10⁻¹⁶", 1e-12: "10⁻¹²", 1e-8: "10⁻⁸", 1e-4: "10⁻⁴", 1.0: "1"}
"""Ticks of the axis, and how they are written."""
WHICH = "round(log(datum.value) / LN10 / 4) + 4"
"""The place of a tick among them, for Vega."""
ROOM = 0.62
"""Height of the lanes of a transformation together, in rows."""
TOP = -0.85
"""Upper end of the vertical axis, in rows, which leaves room for the name of the dashed rule."""


def height(treatments: int) -> int:
    """Pixels of the chart of so many treatments."""
    rows = len(TRANSFORMATIONS) - 0.5 - TOP
    return max(LEAST, round(rows * LANE * (treatments - 1) / ROOM))


def told(draws: int, probes: int) -> str:
    """What a dot is, and the dashed line, as HTML."""
    return (
        f"A dot is one of {draws} random transformations: ‖f′(x) − f(x)‖ / ‖f(x)‖ over {probes} normal inputs, in float64, "
        "before training. At the dashed line the outputs are the same but for rounding: the network has that symmetry. "
        "Where they do not change at all the dot stands at the left end."
    )


def table(changes: pd.DataFrame, order: Sequence[str]) -> str:
    """A row per transformation that was tried, as HTML: what it does, and each treatment's median and greatest change.

    Args:
        changes: Columns treatment, transformation, draw, change.
        order: Treatments from left to right.
    """
    found = changes.groupby(["transformation", "treatment"])["change"].agg(["median", "max"]).to_dict("index")
    heads = "".join(
        f'<th class="number" scope="col">{tables.swatch(key)}{escape(theme.treatment(key).label)}'
        "<small>median, greatest change</small></th>"
        for key in order
    )
    lines = [f'<tr><th scope="col">Transformation<small>&nbsp;</small></th>{heads}</tr>']
    for name in (name for name in TRANSFORMATIONS if name in set(changes["transformation"])):
        cells = "".join(f'<td class="number">{_cell(found.get((name, key)))}</td>' for key in order)
        said = f'{escape(NAMES[name].capitalize())}<small class="does">{escape(DOES[name])}</small>'
        lines.append(f'<tr><th scope="row">{said}</th>{cells}</tr>')
    content = f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody>"
    return f'<div class="lab-table-frame"><table class="lab-table">{content}</table></div>'


def _cell(found: Mapping[str, float] | None) -> str:
    """Median and greatest of a treatment's draws; a dash where it has no place for the transformation."""
    if found is None:
        return tables.MISSING
    return f'{found["median"]:.2g}<span class="spread">, {found["max"]:.2g}</span>'


def placed(changes: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """The dots with their places: a row per transformation, in it a lane per treatment.

    Args:
        changes: Columns treatment, transformation, draw, change.
        order: Treatments from top to bottom.

    Returns:
        These with y, at (change where it can be drawn), role, words (roles), label and told (the transformation).
    """
    names = [name for name in TRANSFORMATIONS if name in set(changes["transformation"])]
    row = changes["transformation"].map(names.index)
    lane = changes["treatment"].map(list(order).index)
    step = ROOM / max(1, len(order) - 1)
    return changes.assign(
        y=row + (lane - (len(order) - 1) / 2) * step,
        at=changes["change"].clip(LOWEST, HIGHEST),
        role=changes["treatment"].map(theme.role),
        words=changes["treatment"].map(lambda key: theme.words(theme.role(key))),
        label=changes["treatment"].map(lambda key: theme.treatment(key).label),
        told=changes["transformation"].map(NAMES),
    )


def dots(changes: pd.DataFrame, order: Sequence[str]) -> alt.LayerChart:
    """A dot per draw on a logarithmic axis, and a rule where float64's rounding is.

    Args:
        changes: Columns treatment, transformation, draw, change.
        order: Treatments from top to bottom.
    """
    points = placed(changes, order)
    names = [NAMES[name] for name in TRANSFORMATIONS if name in set(changes["transformation"])]
    ticks = alt.Axis(
        values=list(POWERS), labelExpr=f"{json.dumps(list(POWERS.values()))}[{WHICH}]", grid=True
    )
    scale = alt.Scale(type="log", domain=[LOWEST, HIGHEST], nice=False)
    x = alt.X("at:Q", title="relative change of the outputs", scale=scale, axis=ticks)
    rows = alt.Axis(
        title=None,
        grid=False,
        values=list(range(len(names))),
        tickCount=len(names),
        labelExpr=f"{json.dumps(names)}[datum.value]",
        minExtent=150,
        labelLimit=180,
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[len(names) - 0.5, TOP], nice=False, zero=False), axis=rows)
    told = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("told:N", title="transformation"),
        alt.Tooltip("draw:O", title="draw"),
        alt.Tooltip("change:Q", title="change", format=".2e"),
    ]
    names_of_lanes = points.drop_duplicates(["transformation", "treatment"]).assign(at=WORDS)
    floor = pd.DataFrame({"at": [EPSILON], "y": [TOP], "told": ["rounding of float64"]})
    between = alt.Chart(pd.DataFrame({"y": np.arange(len(names) - 1) + 0.5}))
    layers = [
        between.mark_rule(strokeWidth=1, opacity=0.35, tooltip=None).encode(y=y, color=theme.fixed("rule")),
        alt.Chart(floor)
        .mark_rule(strokeDash=[4, 3], strokeWidth=1.25, tooltip=None)
        .encode(x=x, color=theme.fixed("muted")),
        alt.Chart(floor)
        .mark_text(align="left", baseline="top", dx=6, fontSize=labels.FONT, tooltip=None)
        .encode(x=x, y=y, text="told:N", color=theme.fixed("muted")),
        alt.Chart(points)
        .mark_circle(size=52, opacity=theme.DOTS)
        .encode(x=x, y=y, color=theme.paint("role"), tooltip=told),
        alt.Chart(names_of_lanes)
        .mark_text(align="left", dx=8, baseline="middle", fontSize=labels.FONT, tooltip=None)
        .encode(x=x, y=y, text="label:N", color=theme.paint("words")),
    ]
    spoken = f"Relative change of the outputs, one dot per draw, for {', '.join(points['label'].unique())}"
    return theme.styled(
        alt.layer(*layers).properties(height=height(len(order)), description=spoken, padding=labels.PADDING)
    )
