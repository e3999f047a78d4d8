"""Direct labels that do not collide: each beside its line, off the other lines and off each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app import theme

FONT = 12.5
"""Pixels."""
GAP = 17.0
"""Pixels between the base lines of two labels."""
ROOM = 12.0
"""Pixels between a line and the middle of its label."""

PADDING = {"left": 5, "top": 5, "bottom": 5, "right": 16}
"""Pixels around a chart whose words reach its right edge; they may be wider than a browser says at first."""
LIST, ROW = 1.05, 22.0
"""Where a list of labels begins, as a share of the plot's width, and pixels between two of its lines."""

MARGIN = 0.68
"""Where labels begin that stand beside their line, as a share of the plot's width."""


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in the order of `wanted`, at least `gap` apart, with the least sum of squared moves.

    Pool-adjacent-violators: labels that would overlap form a block that is centred on what its members want.

    Args:
        wanted: Where each label would like to be, in any order, in the units of the axis.
        gap: Least distance between two labels, same units.
        low: Least position of a label.
        high: Greatest position of a label; passed only when the labels need more than the range.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # sum of what members want less their place in the stack, members
    for rank, i in enumerate(order):
        total, members = wanted[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / members:
            above = blocks.pop()
            total, members = total + above[0], members + above[1]
        blocks.append((total, members))
    ceiling = max(low, high - (len(wanted) - 1) * gap)
    starts = [min(max(total / members, low), ceiling) for total, members in blocks for _ in range(members)]
    placed = [0.0] * len(wanted)
    for rank, (i, start) in enumerate(zip(order, starts, strict=True)):
        placed[i] = start + rank * gap
    return placed


@dataclass(frozen=True)
class Plot:
    """The rectangle that lines are drawn in, to turn data into pixels: x runs over [0, 1]."""

    low: float
    high: float
    width: float
    height: float

    def pixels(self, value: float) -> float:
        """Height above the lower edge."""
        return (value - self.low) / (self.high - self.low) * self.height

    def value(self, pixels: float) -> float:
        """What lies at a height above the lower edge."""
        return self.low + pixels / self.height * (self.high - self.low)


@dataclass(frozen=True)
class Box:
    """A label's rectangle in pixels, from the left and lower edge; `anchor` is where its line is touched."""

    left: float
    right: float
    middle: float
    anchor: float | None = None

    def meets(self, other: Box) -> bool:
        """Whether two labels overlap."""
        across = self.left < other.right and other.left < self.right
        return across and abs(self.middle - other.middle) < GAP - 1e-9

    def crossings(self, xs: np.ndarray, ys: np.ndarray) -> int:
        """How many samples of a line lie under the label."""
        return int(((xs > self.left) & (xs < self.right) & (np.abs(ys - self.middle) < GAP / 2)).sum())


def middle(line: np.ndarray) -> float:
    """The value of a line, [point], halfway."""
    return float(np.interp(0.5, np.linspace(0, 1, len(line)), line))


def _candidates(plot: Plot, text: str, peak: float) -> list[Box]:
    """Places for a label, the best first: at the middle over or under its line, then right of the middle."""
    width = 0.56 * FONT * len(text) + 8
    centre, margin = plot.width / 2, MARGIN * plot.width
    steps = [ROOM, -ROOM, ROOM + GAP, -ROOM - GAP, ROOM + 2 * GAP]
    over = [Box(centre - width / 2, centre + width / 2, peak + step) for step in steps]
    shifts = sorted(np.arange(-6, 7) * (GAP / 2), key=abs)
    beside = [Box(margin, margin + width, peak + float(shift), anchor=peak) for shift in shifts]
    return [box for box in over + beside if GAP / 2 <= box.middle <= plot.height - GAP / 2]


def _reversed(box: Box, higher: Box) -> bool:
    """Whether a label in the middle stands above that of a higher line, so that each seems to name the other."""
    return box.anchor is None and higher.anchor is None and box.middle > higher.middle


def place(lines: dict[str, np.ndarray], texts: dict[str, str], plot: Plot) -> dict[str, Box]:
    """A place for the label of each line.

    Args:
        lines: Values of each line at evenly spaced x, [point].
        texts: What each label says.
        plot: Where the lines are drawn.

    Returns:
        A box per line; no two meet or stand in the wrong order while there is room, and lines pass beside them.
    """
    fine = np.linspace(0, 1, 400)
    drawn = {}
    for key, line in lines.items():
        heights = [plot.pixels(value) for value in line]
        drawn[key] = fine * plot.width, np.interp(fine, np.linspace(0, 1, len(line)), heights)
    placed: dict[str, Box] = {}
    peaks = {key: plot.pixels(middle(line)) for key, line in lines.items()}
    for key in sorted(peaks, key=lambda key: -peaks[key]):
        boxes = _candidates(plot, texts[key], peaks[key])

        def cost(rank: int, boxes: list[Box] = boxes) -> tuple[int, int, int]:
            box = boxes[rank]
            wrong = sum(box.meets(other) or _reversed(box, other) for other in placed.values())
            return wrong, sum(box.crossings(xs, ys) for xs, ys in drawn.values()), rank

        placed[key] = boxes[min(range(len(boxes)), key=cost)]
    return _untangled(placed)


def _untangled(placed: dict[str, Box]) -> dict[str, Box]:
    """The labels beside their lines in the order of these, so that no two leaders cross."""
    led = {key: box for key, box in placed.items() if box.anchor is not None}
    heights = sorted(box.middle for box in led.values())
    order = sorted(led, key=lambda key: (led[key].anchor, led[key].middle))
    return placed | {key: replace(led[key], middle=at) for key, at in zip(order, heights, strict=True)}


def collide(boxes: Iterable[Box]) -> bool:
    """Whether any two labels overlap."""
    return any(one.meets(other) for one, other in combinations(boxes, 2))


def listed(lines: dict[str, np.ndarray], plot: Plot) -> dict[str, Box]:
    """Labels in a list right of the plot from the line that is highest in the middle down, where they have no room in it."""
    order = sorted(lines, key=lambda key: -middle(lines[key]))
    left, top = LIST * plot.width, plot.height - GAP
    return {
        key: Box(left, left, top - rank * ROW, anchor=plot.pixels(middle(lines[key])))
        for rank, key in enumerate(order)
    }


def words(placed: pd.DataFrame, x: alt.X, *, align: str, dx: float = 0) -> list[alt.Chart]:
    """Text layers, twice over: first a halo of the paper's colour, so that hairlines may pass behind the words.

    Args:
        placed: Columns y, label, words (a role of `theme.ROLES`) and the column that `x` reads.
        x: Horizontal channel.
        align: Of the text about its position, "left" or "center".
        dx: Pixels that it stands right of that.
    """
    text = alt.Chart(placed.assign(halo="paper")).encode(
        x=x, y="y:Q", text="label:N", color=theme.paint("words")
    )
    look: dict[str, Any] = {
        "fontSize": FONT,
        "fontWeight": 600,
        "align": align,
        "dx": dx,
        "baseline": "middle",
        "tooltip": None,
    }
    halo = alt.Stroke("halo:N", scale=theme.scale(), legend=None)
    under = text.mark_text(**look, strokeWidth=5, strokeJoin="round", strokeOpacity=0.85).encode(stroke=halo)
    return [under, text.mark_text(**look)]


def on_colours(squares: pd.DataFrame, x: alt.X, y: alt.Y, text: alt.Text, **own: Any) -> list[alt.Chart]:  # noqa: ANN401
    """Words in coloured squares: those that are `dark`, on light colours, and light ones on dark colours.

    Args:
        squares: A row per square, with the column "dark" and those that the channels read.
        x: Horizontal channel.
        y: Vertical channel.
        text: What they say.
        own: Further options of the mark.
    """
    layers = []
    for dark, colour in ((True, theme.LIGHT.ink), (False, theme.LIGHT.paper)):
        shown = alt.Chart(squares[squares["dark"] == dark])
        layers.append(
            shown.mark_text(**{"fontSize": 10.5, "color": colour, "tooltip": None} | own).encode(
                x=x, y=y, text=text
            )
        )
    return layers
