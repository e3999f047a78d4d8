"""All studies, newest first, each with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import navigation, parts, queries, views, wording

TITLE, ICON, GROUP, URL, ORDER = "Studies", ":material/science:", "See", "studies", 0
PAGE = 20
"""Studies on a page."""
SHARES = (1, 1.25)
"""Widths of a row's halves."""


def render() -> None:
    """The list."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Studies", anchor=False, width="stretch")
        if st.button("Launch a study", icon=":material/rocket_launch:", type="primary"):
            st.switch_page(navigation.page("launch"))
    frame = queries.studies(parts.lab())
    if frame.empty:
        parts.empty(
            "No studies yet",
            "A study trains networks with and without their symmetries and measures what is between them.",
            "launch",
            "Launch the first one",
            ":material/rocket_launch:",
        )
        return
    pages = -(-len(frame) // PAGE)
    number = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1

    def part() -> bool:
        now = queries.studies(parts.lab())
        rows = now.iloc[(number - 1) * PAGE : number * PAGE].to_dict("records")
        for row in rows:
            _row(row)
        return list(now["state"]) == list(frame["state"]) or not going_on

    going_on = bool(frame["state"].map(queries.is_going_on).any())
    parts.live(part, going_on=going_on)


def _row(study: Mapping[str, Any]) -> None:
    name = study["study"]
    with st.container(border=True, key=f"study-{name}"):
        left, right = st.columns(SHARES, vertical_alignment="center", gap="medium")
        with left:
            st.page_link(navigation.page("study"), label=study["heading"], query_params={"id": name})
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                parts.badge(study["state"])
                runs = f"{study['done']} of {wording.count(study['runs'], 'run')}"
                told = [wording.kind_title(study["kind"]), runs, wording.ago(study["created"]), name]
                st.caption(" · ".join(told), width="content")
        with right:
            view = views.view(study["kind"])
            if view is not None and hasattr(view, "brief"):
                view.brief(study, queries.results(name, study["state"]))
                st.caption(view.BRIEF)
