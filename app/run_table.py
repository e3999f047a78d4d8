"""The table of runs, with titles that open a run's page and states as badges."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import navigation, theme

ROW = 36
"""Pixels of a row."""


def table(frame: pd.DataFrame, key: str, *, selectable: bool = False) -> list[str]:
    """Draws runs; a click on a title opens its page.

    Args:
        frame: Columns run, title, state, and of role, kind, progress, time and created those that are to be shown.
        key: Keeps the table apart from others. It takes in which runs there are, so that a selection is dropped
            rather than moved to another run when the rows change.
        selectable: Whether rows can be picked.

    Returns:
        The ids of the picked runs.
    """
    link = f"{key}-open"
    shown = frame.assign(state=[[state] for state in frame["state"]], title=frame["title"] + "  →")
    picked = st.dataframe(
        shown,
        key=f"{key}-{hash(tuple(frame['run']))}" if selectable else key,
        hide_index=True,
        height="content",
        row_height=ROW,
        column_order=[name for name in _ORDER if name in frame],
        column_config=_columns(link),
        on_select="rerun" if selectable else "ignore",
        selection_mode="multi-row",
        alt="Runs",
    )
    click = st.session_state.get(link)
    if click is not None:
        st.switch_page(navigation.page("run"), query_params={"id": frame["run"].iloc[click["row"]]})
    return [str(frame["run"].iloc[row]) for row in picked["selection"]["rows"]] if selectable else []


_ORDER = ("role", "title", "kind", "state", "progress", "time", "created", "run")


def _columns(link: str) -> dict[str, object]:
    config = st.column_config
    return {
        "role": config.TextColumn("Part"),
        "title": config.ButtonColumn("Run", type="tertiary", key=link, alignment="left", width=344),
        "kind": config.TextColumn("Kind", width=88),
        "state": config.MultiselectColumn(
            "State",
            options=list(theme.STATES),
            color=[look.colour for look in theme.STATES.values()],
            width=96,
        ),
        "progress": config.ProgressColumn("Progress", format="percent", min_value=0, max_value=1, width=104),
        "time": config.TextColumn("Time", alignment="right", width=110),
        "created": config.DatetimeColumn("Created", format="distance", width=110),
        "run": config.TextColumn("Id", width=106),
    }
