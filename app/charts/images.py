"""A chart as a file for a paper: SVG or PNG, in the colours of the light theme, on white."""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert
from altair.utils import sanitize_pandas_dataframe

from app import theme

Format = Literal["svg", "png"]
MEDIA: dict[Format, str] = {"svg": "image/svg+xml", "png": "image/png"}
"""Formats, and the media types of their files."""
WIDTH = 640
"""Pixels of a plot that takes the width of the page."""
SCALE = 3
"""Pixels of a PNG for each of the chart."""


def image(drawing: alt.LayerChart | alt.VConcatChart, form: Format) -> bytes:
    """The chart as a file."""
    spec = specification(drawing)
    if form == "svg":
        text: str = vl_convert.vegalite_to_svg(spec)
        return text.encode()
    content: bytes = vl_convert.vegalite_to_png(spec, scale=SCALE)
    return content


def specification(drawing: alt.LayerChart | alt.VConcatChart) -> dict[str, Any]:
    """The chart in Vega-Lite with its data inside, and the theme that the browser would add."""
    whole: dict[str, Any] = _inline(drawing.copy(deep=True)).to_dict()
    if isinstance(drawing, alt.LayerChart) and drawing.width is alt.Undefined:
        whole["width"] = WIDTH
    light = theme.LIGHT
    look: dict[str, Any] = {
        "background": light.paper,
        "font": "sans-serif",
        "range": {"category": theme.colours(light)},
    }
    axis = {"gridColor": light.border, "grid": True}
    own = whole.get("config", {})
    whole["config"] = own | look | {"axis": axis | own.get("axis", {})}
    return whole


def _inline(part: Any) -> Any:  # noqa: ANN401 - any of Altair's charts
    """The chart with its frames as records: Altair's way to turn them into such is one setting for all threads."""
    if isinstance(part.data, pd.DataFrame):
        part.data = alt.InlineData(values=sanitize_pandas_dataframe(part.data).to_dict("records"))
    for name in ("layer", "hconcat", "vconcat"):
        for inner in getattr(part, name, ()):
            _inline(inner)
    return part
