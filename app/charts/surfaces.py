"""Charts of loss surfaces: planes of weights side by side, all on one colour scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels, legends
from app.charts.quantities import LOSS, QUANTITIES, Quantity
from symcore.landscape.surfaces import rounds
from symcore.metrics import Array

WIDTH = 955
"""Pixels that a figure may take, so that it fits beside the side bar on a window of 1280."""
ACROSS = 4
"""Surfaces beside each other at most; those of further treatments stand on another line."""
LARGEST = 300
"""Pixels of a surface's side at most."""
AXIS, LEGEND, GAP, CAPTION = 62, 74, 28, 112
"""Pixels beside the first surface, beside the last, between two, and above and below each."""
FLUSH = 8
"""Pixels from a surface's edge within which an axis label is moved inside, off the label of the next surface."""
DRAWN = 101
"""Cells along a side that are drawn at most; of a finer surface every second or fourth is."""
CHANCE = 2.0
"""The colours of a loss end at that of guessing times this: what lies above tells no more."""


@dataclass(frozen=True)
class Window:
    """What is drawn of a plane: axes run from `low` to `high` in so many cells, the second one lifted."""

    low: float
    high: float
    points: int
    lift: float = 0.0
    """How much higher than the first the second axis begins."""

    @property
    def ends(self) -> tuple[float, float]:
        """Where the first axis begins and ends, at the outer edges of cells."""
        half = 0.5 * (self.high - self.low) / (self.points - 1)
        return self.low - half, self.high + half

    def at(self, index: Array) -> Array:
        """The position of a column, fractions included; that of a row is higher by `lift`."""
        found: Array = self.low + (self.high - self.low) / (self.points - 1) * index
        return found


def window(plane: str, reach: float, points: int) -> Window:
    """What is evaluated of a kind of plane: `reach` is a random plane's span, or the margin of another."""
    if plane == "random":
        return Window(-reach, reach, points)
    return Window(-reach, 1 + reach, points, lift=-0.5 if plane == "trajectory" else 0.0)


def arrays(cells: pd.DataFrame, window: Window) -> dict[str, np.ndarray]:
    """Arrays x [column], y [row], loss and accuracy [row, column] of a surface, as stored; NaN where it is not known yet."""
    positions = window.at(np.arange(window.points))
    found = {"x": positions, "y": positions + window.lift}
    for quantity in QUANTITIES:
        found[quantity] = np.full((window.points, window.points), np.nan)
        found[quantity][cells["row"], cells["column"]] = cells[quantity]
    return found


REACH = {"random": "span", "through": "margin", "trajectory": "margin"}
"""The setting that says how far a kind of plane reaches."""


@dataclass(frozen=True)
class Axes:
    """How the axes of a kind of plane are called, with their unit."""

    x: str
    y: str


AXES = {
    "random": Axes("first direction (filter norms)", "second direction (filter norms)"),
    "through": Axes("from a to b (distances a–b)", "towards c (distances a–b)"),
    "trajectory": Axes("first component (distances start–end)", "second component (same unit)"),
}


@dataclass(frozen=True)
class Colours:
    """The one scale of all surfaces in a figure; values beyond its ends are drawn as the ends."""

    low: float
    high: float
    log: bool
    clipped: bool
    """Whether something lies above `high`."""


def colours(values: pd.Series, quantity: Quantity, classes: int, *, log: bool) -> Colours:
    """A scale for all values: loss up to twice that of guessing, accuracy up to 100 %.

    Args:
        values: Of every surface in the figure, in the unit of `quantity`.
        quantity: What they are.
        classes: Classes of the data set, which say what guessing costs.
        log: Logarithmic.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if quantity is not LOSS:
        return Colours(low, 100.0, log=False, clipped=False)
    top = min(high, CHANCE * math.log(classes))
    if log:
        low = max(low, 1e-6 * top)
    return Colours(low if log else 0.0, max(top, low * 1.01), log=log, clipped=high > top)


SIDES = ("left", "right", "bottom", "top")
"""Columns of a cell's rectangle."""


def extents(cells: pd.DataFrame, window: Window) -> pd.DataFrame:
    """The rectangle that each cell stands for: large while those beside it are not known, and then its own.

    Args:
        cells: Columns row, column, and others, of one surface.
        window: Where rows and columns lie.

    Returns:
        The cells that are drawn, coarse ones first, with columns left, right, bottom and top beside their own.
    """
    levels = _drawn(window.points)
    round_of = np.full((window.points, window.points), len(levels))
    for place, level in enumerate(levels):
        round_of[tuple(level.T)] = place
    own = round_of[cells["row"], cells["column"]]
    known = np.bincount(own, minlength=len(levels))
    whole = [*(known[place] == len(level) for place, level in enumerate(levels)), False].index(False)
    parts = []
    for place in range(len(levels)):
        chosen = (own == place) if place >= whole else (own <= place) & (place == whole - 1)
        lattice = np.unique(np.concatenate(levels[: place + 1]))
        edges = window.at(np.concatenate([[-0.5], (lattice[1:] + lattice[:-1]) / 2, [window.points - 0.5]]))
        part = cells[chosen].sort_values(["row", "column"])
        column, row = (np.searchsorted(lattice, part[name]) for name in ("column", "row"))
        sides = {
            "left": edges[column],
            "right": edges[column + 1],
            "bottom": edges[row] + window.lift,
            "top": edges[row + 1] + window.lift,
        }
        parts.append(part.assign(**sides))
    return pd.concat(parts, ignore_index=True)


def _drawn(points: int) -> list[np.ndarray]:
    """The rounds of a surface that are drawn: all, or as many as have at most `DRAWN` cells along a side."""
    levels = rounds(points, points)
    sides = [len(np.unique(np.concatenate(levels[: place + 1])[:, 0])) for place in range(len(levels))]
    return [level for level, side in zip(levels, sides, strict=True) if side <= DRAWN]


def contour(xs: Array, ys: Array, values: Array, level: float) -> Array:
    """Where a surface crosses a level, as line segments: each square of four cells is two triangles with flat faces.

    Args:
        xs: Positions of the columns, [column].
        ys: Positions of the rows, [row].
        values: The surface, [row, column].
        level: The height.

    Returns:
        Both ends (x, y) of each segment, [segment, 2, 2].
    """
    points = np.stack([*np.meshgrid(xs, ys), values], axis=-1)
    corners = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    triangles = [
        np.stack([corners[i] for i in three], axis=2).reshape(-1, 3, 3) for three in ((0, 1, 2), (0, 2, 3))
    ]
    start = np.concatenate(triangles)  # [triangle, edge, (x, y, value)]
    end = np.roll(start, -1, axis=1)
    crossed = (start[..., 2] > level) != (end[..., 2] > level)
    rise = np.where(crossed, end[..., 2] - start[..., 2], 1.0)
    share = (level - start[..., 2]) / rise
    at = start[..., :2] + share[..., None] * (end - start)[..., :2]
    return at[crossed].reshape(-1, 2, 2)  # a triangle's edges are crossed by twos


STEPS = (1, 2, 5)
"""Contour lines of a loss lie at these times powers of ten."""
ACCURACIES = [20.0, 40.0, 60.0, 80.0, 90.0, 95.0, 99.0]
"""Contour lines of an accuracy, in %."""


def levels(scale: Colours, quantity: Quantity) -> list[float]:
    """Heights of the contour lines: round numbers inside the scale."""
    if quantity is not LOSS:
        return [level for level in ACCURACIES if scale.low < level < scale.high]
    lowest = scale.low if scale.log else 0.02 * scale.high
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(scale.high)) + 1)
    found = [step * 10.0**power for power in powers for step in STEPS]
    return [level for level in found if lowest < level < scale.high]


def _contours(drawn: pd.DataFrame, look: Look) -> pd.DataFrame:
    """Contour lines of a surface without gaps, columns x, y, x2, y2; none while there are gaps."""
    grid = drawn.pivot_table(index="y", columns="x", values=look.quantity.key, dropna=False)
    segments = [np.empty((0, 2, 2))]
    if min(grid.shape) > 1 and np.isfinite(grid.to_numpy()).all():
        xs, ys = grid.columns.to_numpy(), grid.index.to_numpy()
        heights = levels(look.scale, look.quantity)
        segments += [contour(xs, ys, grid.to_numpy(), height) for height in heights]
    return pd.DataFrame(np.concatenate(segments).reshape(-1, 4), columns=["x", "y", "x2", "y2"])


@dataclass(frozen=True)
class Look:
    """What all surfaces of a figure share."""

    quantity: Quantity
    split: str
    scale: Colours
    side: int
    """Pixels."""


def side(columns: int) -> int:
    """Pixels of a surface's side when so many are compared."""
    across = min(columns, ACROSS)
    return min(LARGEST, (WIDTH - AXIS - LEGEND - GAP * (across - 1)) // across)


def height(rows: int, columns: int) -> int:
    """Pixels of a figure of so many rows of so many surfaces."""
    return height_of([columns] * rows)


def height_of(counts: Sequence[int]) -> int:
    """Pixels of a figure whose rows have so many surfaces each."""
    return sum(-(-count // ACROSS) for count in counts) * (side(max(counts)) + CAPTION)


@dataclass(frozen=True)
class Surface:
    """One surface of a figure."""

    treatment: str
    plane: str
    """A kind of plane, a key of `AXES`."""
    window: Window
    cells: pd.DataFrame
    """Columns row, column, x, y, loss (nats), accuracy (%)."""
    marks: pd.DataFrame
    """Columns name, x, y, loss, accuracy: networks, and the midpoints between them."""
    snapshots: pd.DataFrame | None = None
    """Columns epoch, x, y, error, loss, accuracy of a training run, whose end is the network; none on other planes."""
    name: str = ""
    """What stands above it, if not its treatment's name."""
    ends: tuple[float, float] | None = None
    """Where its first axis begins and ends, beside surfaces of other spans; none: with its cells."""


def on_one_span(surfaces: Sequence[Surface]) -> list[Surface]:
    """Surfaces of one kind of plane on the same axes, which hold the widest of them."""
    starts, stops = zip(*(surface.window.ends for surface in surfaces), strict=True)
    return [replace(surface, ends=(min(starts), max(stops))) for surface in surfaces]


def figure(rows: dict[str, list[Surface]], look: Look) -> alt.VConcatChart:
    """Surfaces in rows, every one on the same colour scale, whose legend stands once.

    Args:
        rows: Surfaces beside each other by what is said above them.
        look: What they share.
    """
    drawn = []
    for heading, surfaces in rows.items():
        panels = [_panel(surface, look, first=not place % ACROSS) for place, surface in enumerate(surfaces)]
        for start in range(0, len(panels), ACROSS):
            title = alt.TitleParams("" if start else heading, anchor="start", **TITLE)
            line = panels[start : start + ACROSS]
            drawn.append(alt.hconcat(*line, spacing=GAP, bounds="flush", title=title))
    whole = alt.vconcat(
        *drawn,
        spacing=26,
        autosize=alt.AutoSizeParams(type="pad", contains="padding"),
        description=f"{look.quantity.title(look.split)} on planes of weights: " + "; ".join(rows),
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(fill="shared", color="shared")),
    )
    return theme.styled(whole)


POINT = {"x": alt.X("x:Q"), "y": alt.Y("y:Q")}
SEGMENT = POINT | {"x2": alt.X2("x2:Q"), "y2": alt.Y2("y2:Q")}
TITLE = {"fontSize": 13, "fontWeight": 600, "color": alt.ExprRef("scale('color', 'ink')"), "offset": 10}


def _panel(surface: Surface, look: Look, *, first: bool) -> alt.LayerChart:
    """Cells, contour lines and networks of one surface; only the first of a line says what the vertical axis is."""
    window, words = surface.window, AXES[surface.plane]
    drawn = extents(surface.cells, window)
    start, stop = surface.ends or window.ends
    across, up = (
        alt.Scale(domain=[start + lift, stop + lift], nice=False, zero=False) for lift in (0.0, window.lift)
    )
    axis: dict[str, Any] = {"tickCount": 5, "grid": False, "labelFlush": FLUSH}
    vertical = alt.Axis(**axis, title=words.y) if first else None
    x = alt.X("left:Q", scale=across, axis=alt.Axis(**axis, title=words.x))
    y = alt.Y("bottom:Q", scale=up, axis=vertical)
    lines = _contours(drawn, look)
    contours = alt.Chart(lines).mark_rule(color="white", strokeWidth=0.8, opacity=0.45, tooltip=None)
    layers = [
        _cells(drawn, look, (stop - start) / look.side).encode(x=x, y=y),
        contours.encode(**SEGMENT),
        *_run(surface),
        *_marks(surface),
    ]
    name = surface.name or theme.treatment(surface.treatment).label
    ink = alt.ExprRef(f"scale('color', '{theme.words(theme.role(surface.treatment))}')")
    title = alt.TitleParams(
        name, anchor="start", frame="group", fontSize=12.5, fontWeight=600, color=ink, offset=6
    )
    return alt.layer(*layers, width=look.side, height=look.side, title=title)


def _cells(drawn: pd.DataFrame, look: Look, pixel: float) -> alt.Chart:
    """Coloured rectangles; each reaches a pixel under the next, so that no seams show between them."""
    overlapping = drawn.assign(right=drawn["right"] + pixel, top=drawn["top"] + pixel)
    overlapping = overlapping[[*SIDES, "x", "y", *QUANTITIES]]
    colour = alt.Fill(f"{look.quantity.key}:Q", scale=_scale(look), legend=_legend(look))
    told = [alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f"), *_told()]
    return (
        alt.Chart(overlapping)
        .mark_rect(clip=True)
        .encode(x2=alt.X2("right:Q"), y2=alt.Y2("top:Q"), fill=colour, tooltip=told)
    )


def _scale(look: Look) -> alt.Scale:
    """What is good is dark: a low loss, a high accuracy."""
    kind, ends = ("log" if look.scale.log else "linear"), [look.scale.low, look.scale.high]
    reverse = look.quantity is not LOSS
    return alt.Scale(scheme="viridis", domain=ends, type=kind, clamp=True, nice=False, reverse=reverse)


def _legend(look: Look) -> alt.Legend:
    """The colours' legend, which says where they end although values go on."""
    scale, quantity = look.scale, look.quantity
    title = [f"{look.split} {quantity.key}", f"({quantity.unit})"]
    told = alt.Undefined
    if scale.clipped:
        title.append(f"clipped at {scale.high:.2g}")
        told = f"datum.value >= {scale.high} ? '≥ ' + datum.label : datum.label"
    return legends.gradient(title, look.side, labelExpr=told, values=_ticks(look), format=".2~r")


def _ticks(look: Look) -> list[float]:
    """Both ends of the scale, and the heights of the contour lines that are not too near to them."""
    scale = look.scale
    forth = math.log if scale.log else float
    low, high = forth(scale.low), forth(scale.high)
    room = 0.07 * (high - low)
    between = [level for level in levels(scale, look.quantity) if low + room < forth(level) < high - room]
    return [scale.low, *between, scale.high]


def _told() -> list[alt.Tooltip]:
    """Both quantities, whichever is drawn."""
    loss = alt.Tooltip("loss:Q", title="loss (nats)", format=".4f")
    return [loss, alt.Tooltip("accuracy:Q", title="accuracy (%)", format=".1f")]


def _marks(surface: Surface) -> list[alt.Chart]:
    """The networks; where they are several, with their names, the points midway and the lines that join them."""
    marks = surface.marks.assign(role=theme.role(surface.treatment))
    networks, midpoints = (marks[marks["name"].str.len() == length] for length in (1, 2))
    told = [alt.Tooltip("told:N", title="at"), *_told()]
    dots = alt.Chart(networks.assign(told="network " + networks["name"]))
    dots = dots.mark_circle(size=80, opacity=1, stroke=theme.LIGHT.paper, strokeWidth=1.75)
    dots = dots.encode(**POINT, color=theme.paint("role"), tooltip=told)
    if midpoints.empty:
        return [dots]
    at = marks.set_index("name")[["x", "y"]]
    ends = [[*at.loc[name[0]], *at.loc[name[1]]] for name in midpoints["name"]]
    edges = alt.Chart(pd.DataFrame(ends, columns=["x", "y", "x2", "y2"]))
    rule = edges.mark_rule(color=theme.LIGHT.paper, strokeDash=[3, 3], opacity=0.75, tooltip=None)
    pairs = midpoints["name"]
    midway = alt.Chart(midpoints.assign(told="midway " + pairs.str[0] + "–" + pairs.str[1]))
    midway = midway.mark_point(shape="diamond", size=46, filled=True, opacity=1, color=theme.LIGHT.paper)
    return [
        rule.encode(**SEGMENT),
        midway.encode(**POINT, tooltip=told),
        dots,
        *_names(networks),
    ]


def _run(surface: Surface) -> list[alt.Chart]:
    """The way of a training run to its end, on which every snapshot is a dot with its own loss."""
    if surface.snapshots is None or surface.snapshots.empty or surface.marks.empty:
        return []
    end = surface.marks[["x", "y"]].iloc[:1]
    way = pd.concat([surface.snapshots.sort_values("epoch")[["x", "y"]], end], ignore_index=True)
    line = alt.Chart(way.reset_index(names="place")).mark_line(
        color=theme.LIGHT.paper, strokeWidth=1.75, tooltip=None
    )
    told = [
        alt.Tooltip("epoch:Q", title="after epoch"),
        *_told(),
        alt.Tooltip("error:Q", title="off the plane", format=".1%"),
    ]
    dots = alt.Chart(surface.snapshots).mark_circle(size=30, opacity=1, color=theme.LIGHT.paper)
    return [line.encode(**POINT, order="place:Q"), dots.encode(**POINT, tooltip=told)]


def _names(networks: pd.DataFrame) -> list[alt.Chart]:
    """White letters beside the networks, over a dark halo, since any colour may lie behind them."""
    named = alt.Chart(networks).encode(**POINT, text=alt.Text("name:N"))
    look: dict[str, Any] = {
        "fontSize": labels.FONT + 1,
        "fontWeight": 700,
        "dx": 11,
        "dy": -9,
        "tooltip": None,
    }
    dark = theme.LIGHT.ink
    halo = named.mark_text(**look, color=dark, stroke=dark, strokeWidth=3.5, strokeOpacity=0.7)
    return [halo, named.mark_text(**look, color=theme.LIGHT.paper)]
