"""The table of runs: filter, sort, pick many, then cancel, resume or delete them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app import parts, queries, run_table, theme, wording
from app.queries import Filter
from jobs import queries as reads
from jobs import registry

TITLE, ICON, GROUP, URL, ORDER = "Runs", ":material/table_rows:", "See", "runs", 1
SIZE = 25
"""Rows on a page."""
SORTS = {
    "newest first": ("created", True),
    "oldest first": ("created", False),
    "longest first": ("seconds", True),
    "by title": ("title", False),
    "by state": ("state", False),
}
"""Orders of the table: its column, and whether the greatest comes first."""


def render() -> None:
    """Filters above, the table below."""
    st.title("Runs", anchor=False)
    lab = parts.lab()
    if not reads.count_runs(lab.store):
        parts.empty(
            "No runs yet",
            "Runs appear here when a study is launched: each trains, aligns or evaluates a set of networks.",
            "launch",
            "Launch a study",
            ":material/rocket_launch:",
        )
        return
    wanted = _filters()
    total = reads.count_runs(
        lab.store, state=wanted.states or None, kind=wanted.kinds or None, text=wanted.text
    )
    body = st.container()
    pages = max(1, -(-total // SIZE))
    number = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1

    def part() -> bool:
        frame, now = queries.runs(lab, wanted, number, SIZE)
        _table(frame, now)
        return now == total and _any_going_on()

    with body:
        parts.live(part, going_on=_any_going_on())


def _any_going_on() -> bool:
    return (
        reads.count_runs(
            parts.lab().store, state=[state for state in theme.STATES if queries.is_going_on(state)]
        )
        > 0
    )


def _filters() -> Filter:
    """Search, states, kinds and order, all kept in the address."""
    search, kind, order = st.columns([2, 1, 1])
    text = search.text_input(
        "Search", key="q", placeholder="Title, id or setting", icon=":material/search:", bind="query-params"
    )
    kinds = kind.multiselect(
        "Kind", list(registry.kinds()), key="kind", placeholder="All", bind="query-params"
    )
    sort = order.selectbox("Order", list(SORTS), key="sort", bind="query-params")
    states = st.pills("State", list(theme.STATES), selection_mode="multi", key="state", bind="query-params")
    return Filter(text or "", tuple(states), tuple(kinds), *SORTS[sort])


def _table(frame: pd.DataFrame, total: int) -> None:
    """The rows under what can be done with those that are picked."""
    head = st.container(horizontal=True, vertical_alignment="center", gap="small")
    if frame.empty:
        st.info("No run fits these filters.", icon=":material/filter_alt_off:")
        return
    picked = run_table.table(frame, "runs", selectable=True)
    states = frame.set_index("run")["state"]
    with head:
        chosen = f", {len(picked)} selected" if picked else ""
        st.markdown(f"{wording.count(total, 'run')}{chosen}", width=170)
        going_on = [run for run in picked if queries.is_going_on(states[run]) and states[run] != "cancelling"]
        over = [run for run in picked if not queries.is_going_on(states[run])]
        _button("cancel", ":material/stop_circle:", going_on)
        _button("resume", ":material/play_arrow:", [run for run in over if states[run] != "done"])
        with st.popover("Delete", icon=":material/delete:", disabled=not over):
            st.write(f"Delete {wording.count(len(over), 'run')}? Files stay until `symlab purge`.")
            _button("delete", ":material/delete:", over)


def _button(verb: parts.Verb, icon: str, runs: Sequence[str]) -> None:
    """An action on the picked runs that it fits; the page starts again, as what goes on has changed."""
    label = f"{verb.capitalize()} {len(runs)}" if runs else verb.capitalize()
    if st.button(label, icon=icon, disabled=not runs, key=f"do-{verb}"):
        parts.act(verb, list(runs))
        st.rerun()
