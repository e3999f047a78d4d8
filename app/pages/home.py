"""The front page: what the lab is, what it found last, and one button to begin."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import navigation, parts, queries, views, wording
from jobs import queries as reads
from jobs.states import NotAllowedError
from jobs.store import StoreFailedError
from jobs.studies import lmc

TITLE, ICON, GROUP, URL, ORDER = "Home", ":material/home:", "", "", 0
IDEA = Path(__file__).parent.parent / "assets" / "idea.svg"
IDEA_TOLD = (
    "Left: two standard networks hold the same neurons in different places, and the loss between them has a barrier. "
    "Right: fixed weights give every neuron its place, and the loss between them is flat."
)
LEAD = """
Swap two hidden neurons of a network, with their weights, and it still computes the same function; such symmetries
leave networks trained from different seeds on different sides of a barrier. Symmetry Lab trains networks with their
symmetries and without them, side by side, and measures what that changes.
"""


def render() -> None:
    """The page."""
    st.title("What do networks do with their symmetries?", anchor=False)
    parts.html(f'<p class="lab-lead">{LEAD}</p>')
    st.space("xsmall")
    st.image(str(IDEA), width=720, alt=IDEA_TOLD)
    st.space("xsmall")
    _demo()
    st.space("small")
    _last()


def _demo() -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        if st.button("Start the demo study", icon=":material/play_arrow:", type="primary"):
            try:
                study = parts.lab().submit(lmc.PRESETS["laptop"])
            except (NotAllowedError, StoreFailedError) as refused:
                st.error(str(refused), icon=":material/error:")
                return
            st.switch_page(navigation.page("study"), query_params={"id": study})
        st.caption(
            "Four treatments, ten networks each, on handwritten digits; under a minute on two cores.",
            width="content",
        )


def _last() -> None:
    """The newest study with its answer."""
    frame = queries.studies(parts.lab())
    if frame.empty:
        return
    row = frame.iloc[0].to_dict()
    going_on = queries.is_going_on(row["state"])
    st.subheader("Last study", anchor=False)

    def part() -> bool:
        study = reads.study(parts.lab().store, row["study"])
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.page_link(navigation.page("study"), label=row["heading"], query_params={"id": row["study"]})
            parts.badge(study["state"])
            parts.chips([wording.ago(study["created"])])
        view = views.view(study["kind"])
        if view is not None and hasattr(view, "brief"):
            parts.note(view.BRIEF)
            view.brief(study, queries.results(row["study"], study["state"]), large=True)
        return queries.is_going_on(study["state"])

    parts.live(part, going_on=going_on)
