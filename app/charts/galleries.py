"""Pictures of layers side by side, each over its name and what is told of it: one figure, on the page and as a file."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from app import theme
from app.charts import labels, masks
from app.charts.masks import Picture

WIDTH = 955
"""Pixels that a figure may take, so that it fits beside the side bar on a window of 1280."""
NARROWEST, GAP = 190, 24
"""Pixels that a picture has at least for itself and its words, and between two."""
KEY_ROOM = 150
"""Pixels of a colour and its meaning."""
TOP, LINE, DESCENT, UNDER = 40, 17, 5, 21
"""Pixels of the colours' meaning with the room below it, of a line of words, below the base of the last, and below it."""
AROUND = 22
"""Pixels that a page needs for a figure beside its own."""
LETTER = 6.4
"""Pixels of a letter of a picture's words, about."""


@dataclass(frozen=True)
class Placed:
    """A picture in a figure, over its name and what is told of it."""

    picture: Picture
    left: int
    """Pixels from the figure's left edge."""
    top: int
    """Pixels from its upper edge."""

    @property
    def wide(self) -> int:
        """Pixels that it takes of its line."""
        return max(NARROWEST, self.picture.pixels.shape[1])

    @property
    def words(self) -> list[str]:
        """Lines of what is told of it."""
        return textwrap.wrap(self.picture.told, int(self.wide / LETTER), break_long_words=False)

    @property
    def end(self) -> int:
        """Pixels from the figure's upper edge to the end of its words."""
        return self.top + len(self.picture.pixels) + LINE * (1 + len(self.words)) + DESCENT


def height(pictures: Sequence[Picture]) -> int:
    """Pixels of a figure's place."""
    return max(one.end for one in placed(pictures)) + AROUND


def figure(pictures: Sequence[Picture]) -> alt.LayerChart:
    """Pictures side by side in as many lines as they need, each over its name and what is told of it."""
    shown = list(placed(pictures))
    drawn = [*_key(), *_images(shown), *_words(shown)]
    told = "; ".join(picture.name for picture in pictures)
    width = max(KEY_ROOM * len(masks.KEY), *(one.left + one.wide for one in shown))
    high = max(one.end for one in shown)
    return theme.styled(alt.layer(*drawn, width=width, height=high, description=f"Fixed weights of {told}"))


PLACE = {"x": alt.X("x:Q", scale=None, axis=None), "y": alt.Y("y:Q", scale=None, axis=None)}
"""Positions in pixels."""


def placed(pictures: Sequence[Picture]) -> Iterator[Placed]:
    """Where each picture stands; a line ends before the picture that would not fit in it."""
    left, top, bottom = 0, TOP, TOP
    for picture in pictures:
        one = Placed(picture, left, top)
        if one.left + one.wide > WIDTH:
            one = Placed(picture, 0, bottom + UNDER)
        left, top, bottom = one.left + one.wide + GAP, one.top, max(bottom, one.end)
        yield one


def _key() -> list[alt.Chart]:
    """What the colours mean, in one line above the pictures."""
    frame = pd.DataFrame(
        {"x": 6 + KEY_ROOM * place, "y": 8, "fill": _css(colour, opacity), "words": meaning, "role": "muted"}
        for place, (meaning, colour, opacity) in enumerate(masks.KEY)
    )
    squares = alt.Chart(frame[["x", "y", "fill"]]).mark_square(size=120, opacity=1, aria=False)
    fill = alt.Fill("fill:N", scale=None, legend=None)
    return [squares.encode(**PLACE, fill=fill), _text(frame.assign(x=frame["x"] + 12), "normal")]


def _css(colour: tuple[int, int, int], opacity: float) -> str:
    red, green, blue = colour
    return f"rgba({red}, {green}, {blue}, {opacity})"


def _images(shown: Sequence[Placed]) -> list[alt.Chart]:
    """The pictures, a layer for each size; what is not in their pixels is said to those who hear the chart."""
    frame = pd.DataFrame(
        {
            "x": one.left,
            "y": one.top,
            "width": one.picture.pixels.shape[1],
            "height": one.picture.pixels.shape[0],
            "url": _url(one.picture.pixels),
            "told": f"Fixed weights of {one.picture.name}, {one.picture.told}",
        }
        for one in shown
    )
    return [
        alt.Chart(own[["x", "y", "url", "told"]])
        .mark_image(width=width, height=height, align="left", baseline="top", smooth=False)
        .encode(**PLACE, url=alt.Url("url:N"), description=alt.Description("told:N"))
        for (width, height), own in frame.groupby(["width", "height"], sort=False)
    ]


def _url(pixels: NDArray[np.uint8]) -> str:
    """The picture itself as an address, so that a chart has no files beside it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _words(shown: Sequence[Placed]) -> list[alt.Chart]:
    """Each picture's name, and below it what is told of it."""
    names, told = [], []
    for one in shown:
        base = one.top + len(one.picture.pixels) + LINE
        names.append({"x": one.left, "y": base, "words": one.picture.name, "role": "ink"})
        told += [
            {"x": one.left, "y": base + LINE * line, "words": words, "role": "muted"}
            for line, words in enumerate(one.words, start=1)
        ]
    return [_text(pd.DataFrame(rows), weight) for rows, weight in ((names, "bold"), (told, "normal"))]


def _text(frame: pd.DataFrame, weight: str) -> alt.Chart:
    return (
        alt.Chart(frame)
        .mark_text(align="left", fontSize=labels.FONT, fontWeight=weight)
        .encode(**PLACE, text="words:N", color=theme.paint("role"))
    )
