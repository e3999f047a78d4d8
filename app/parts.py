"""Pieces that pages are made of: badges, cards, facts, progress, empty states and parts that poll."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Literal

import altair as alt
import pandas as pd
import streamlit as st

from app import navigation, theme, wording
from app.charts import images, tables
from app.charts.tables import Column
from jobs import service
from jobs.service import Service
from jobs.states import NotAllowedError, UnknownError
from jobs.store import StoreFailedError

BEAT = 1.0
"""Seconds between two looks at what is going on."""


def lab() -> Service:
    """The lab of this process."""
    return service.current()


def live(part: Callable[[], bool], *, going_on: bool) -> None:
    """Draws a part again every second while something goes on, then the page once more, and polls no longer.

    Args:
        part: Draws; says whether the page is still up to date and something still goes on.
        going_on: Whether something goes on now.
    """

    def draw() -> None:
        if not part() and going_on:
            st.rerun()

    st.fragment(draw, run_every=BEAT if going_on else None)()


def badge(state: str) -> None:
    """A state in its colour, its meaning as a tooltip."""
    look = theme.STATES[state]
    st.badge(state, icon=look.icon, color=look.colour, help=look.meaning)  # type: ignore[arg-type]


def chips(texts: Iterable[str]) -> None:
    """Short facts in grey."""
    for text in texts:
        st.badge(text, color="gray")


def empty(heading: str, text: str, url: str, label: str, icon: str) -> None:
    """What a page shows that has nothing to show yet: why, and the way on."""
    with st.container(border=True, horizontal_alignment="center", key=f"empty-{url}"):
        st.space("small")
        st.subheader(heading, anchor=False, text_alignment="center", width="content")
        st.markdown(text, text_alignment="center", width="content")
        if st.button(label, icon=icon, type="primary", key=f"empty-go-{url}"):
            st.switch_page(navigation.page(url))
        st.space("small")


def html(text: str) -> None:
    """Markup made by this app; values from outside are escaped where it is made."""
    st.html(text)


def facts(pairs: Mapping[str, str]) -> None:
    """Names and values, one a line."""
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items())
    html(f'<dl class="lab-facts">{"".join(lines)}</dl>')


def note(markup: str) -> None:
    """A paragraph of explanation."""
    html(f'<p class="lab-note">{markup}</p>')


def chart(
    drawing: alt.LayerChart | alt.VConcatChart | None,
    height: int,
    key: str,
    width: Literal["stretch", "content"] = "stretch",
    legend: Sequence[str] = (),
) -> None:
    """A chart in a place of its height, which is kept while it loads and, with None, until there is one; files below it.

    Args:
        drawing: The chart.
        height: Pixels of its place.
        key: Tells it from others on the page, and names its files.
        width: That of the page, or its own.
        legend: Treatments that are named above it and in its files; a chart that names them itself needs none.
    """
    if legend:
        html(tables.legend(legend))
    with st.container(height=height, border=False, key=f"place-{key}"):
        if drawing is None:
            st.skeleton(height=height - 20)
        else:
            st.altair_chart(drawing, width=width, key=key)
    with st.container(horizontal=True, horizontal_alignment="right", gap="small", key=f"files-{key}"):
        for form, media in images.MEDIA.items():
            st.download_button(
                form.upper(),
                b"" if drawing is None else partial(images.image, drawing, form, legend),
                f"{st.query_params.get('id', 'chart')}-{key}.{form}",
                media,
                key=f"{form}-{key}",
                on_click="ignore",
                type="tertiary",
                icon=":material/download:",
                disabled=drawing is None,
                help="This chart as a file, in light colours.",
            )


def download(label: str, content: str, file: str, told: str) -> None:
    """A button that hands out what stands beside it as a file."""
    st.download_button(
        label, content, file, icon=":material/download:", on_click="ignore", help=told, key=f"table-{label}"
    )


def table(
    treatments: Sequence[str],
    told: Sequence[Column],
    frame: pd.DataFrame,
    study: str,
    *,
    hint: str,
    note: str,
    chosen: str = "",
    heading: str = "Table",
    across: int | None = None,
) -> None:
    """A study's numbers, a row per treatment, and the buttons that hand them out.

    Args:
        treatments: One for each row.
        told: The columns.
        frame: All numbers, for a spreadsheet.
        study: Its id, which names the files.
        hint: What the spreadsheet has.
        note: What the numbers are, for a paper.
        chosen: What of the numbers is shown, "test-loss", for the name of the paper's file.
        heading: Above the table.
        across: Columns that have room beside each other; further ones stand below. None: all have.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.subheader(heading, anchor=False, width="stretch")
        download("CSV", tables.csv(frame), f"{study}.csv", hint)
        latex = tables.booktabs(treatments, told, note)
        file = "-".join(part for part in (study, chosen) if part)
        download("LaTeX", latex, f"{file}.tex", "This table, for booktabs.")
    for first in range(0, len(told), across or len(told)):
        html(tables.table(treatments, told[first : first + (across or len(told))]))


def progress(fraction: float, left: str, right: str) -> None:
    """A bar with words above it."""
    html(
        f'<div class="lab-progress"><span><b>{fraction:.0%}</b> {escape(left)}</span><span>{escape(right)}</span></div>'
        f'<div class="lab-bar" role="progressbar" aria-valuenow="{fraction * 100:.0f}" aria-label="progress">'
        f'<i style="width:{fraction:.1%}"></i></div>'
    )


def finished(left: str, right: str) -> None:
    """What stands in the place of `progress` when it is over, in the same height."""
    html(
        f'<div class="lab-progress"><span>{escape(left)}</span><span>{escape(right)}</span></div>'
        '<div class="lab-bar over"></div>'
    )


def choice(label: str, key: str, options: Sequence[str]) -> str:
    """One of a few names, kept in the address under `key`; the first is the default."""
    chosen = st.segmented_control(
        label, options, default=options[0], required=True, key=key, bind="query-params"
    )
    assert chosen is not None
    return chosen


def select(label: str, key: str, titles: Mapping[str, str]) -> str:
    """One of several names by their titles, kept in the address under `key`; the first is the default."""
    names = list(titles)
    asked = st.query_params.get(key)
    index = names.index(asked) if asked in titles else 0
    chosen: str = st.selectbox(label, names, index=index, format_func=titles.__getitem__, key=key, width=460)
    if chosen != names[index]:
        st.query_params[key] = chosen
    return chosen


Verb = Literal["cancel", "resume", "delete"]


def act(verb: Verb, ids: list[str]) -> bool:
    """Does what a button says and tells how it went; whether it was done."""
    try:
        changed = getattr(lab(), verb)(ids)
    except (NotAllowedError, UnknownError, StoreFailedError) as refused:
        st.toast(str(refused), icon=":material/error:", duration="long")
        return False
    told = {"cancel": "told to stop", "resume": "queued again", "delete": "deleted"}[verb]
    number = len(ids) if changed is None else len(changed)
    st.toast(
        f"{wording.count(number, 'run' if changed is not None else 'item')} {told}", icon=":material/check:"
    )
    return True
