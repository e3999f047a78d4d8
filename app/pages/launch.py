"""Launch: a form made from the study's spec, what it will take, and the button that starts it."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from pydantic import BaseModel

from app import navigation, parts, queries, wording
from app.form import Form
from jobs import queries as reads
from jobs import registry
from jobs.specs import StudySpec
from jobs.states import NotAllowedError, UnknownError
from jobs.store import StoreFailedError

TITLE, ICON, GROUP, URL, ORDER = "Launch", ":material/rocket_launch:", "Do", "launch", 0


@dataclass(frozen=True)
class Start:
    """What the form is filled with at first."""

    kind: str
    spec: BaseModel
    origin: str
    """Names it, so that another start is another form."""


def render() -> None:
    """Choose a start, change what should differ, see what it takes, go."""
    st.title("Launch a study", anchor=False)
    start = _cloned() or _preset()
    st.space("xsmall")
    left, right = st.columns([2.7, 1], gap="medium")
    model = registry.studies()[start.kind].Spec
    form = Form(model, start.spec, f"form/{start.kind}/{start.origin}")
    with left:
        hint = "Optional; otherwise named by its data and network"
        title = st.text_input("Title", key=f"title/{start.origin}", placeholder=hint)
        form.draw()
    with right, st.container(border=True, key="launch-panel"):
        _panel(form, title)


def _cloned() -> Start | None:
    """The study that `?from=` names, if there is one."""
    source = st.query_params.get("from")
    if not source:
        return None
    try:
        study = reads.study(parts.lab().store, source)
        spec = registry.study_spec(study["spec"], stored=True)
    except (UnknownError, ValueError):
        st.warning(f"There is no study “{source}” to clone.", icon=":material/content_copy:")
        return None
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        heading = wording.study_title(study["title"], study["spec"])
        st.markdown("Filled from", width="content")
        st.page_link(navigation.page("study"), label=heading, query_params={"id": source})
        if st.button("Use a preset instead", type="tertiary", icon=":material/undo:"):
            st.switch_page(navigation.page("launch"))
    return Start(study["kind"], spec, source)


def _preset() -> Start:
    studies = registry.studies()
    with st.container(horizontal=True, gap="medium"):
        kind = parts.select("Study", "study", {name: study.Spec.title for name, study in studies.items()})
        presets = studies[kind].PRESETS
        chosen = parts.choice("Start from", "preset", list(presets))
    st.caption(str(studies[kind].Spec.__doc__))
    return Start(kind, presets[chosen], chosen)


def _panel(form: Form, title: str) -> None:
    """What the study will take, and the button; while a field is wrong, which one."""
    st.markdown("**What it takes**")
    told = st.container()
    fresh = st.toggle(
        "Repeat finished runs", key="fresh", help="Otherwise finished runs with the same settings are reused."
    )
    with told:
        if isinstance(form.spec, StudySpec):
            parts.facts(_cost(queries.forecast(parts.lab(), form.spec, fresh=fresh)))
            st.caption("Counted from the shapes of the networks; on this machine right within a factor of 3.")
        else:
            st.markdown(f":red[:material/error: {wording.count(len(form.errors), 'field')} to mend:]")
            st.markdown("\n".join(f"- {path or 'settings'}" for path in form.errors))
    if st.button(
        "Start", icon=":material/play_arrow:", type="primary", width="stretch", disabled=form.spec is None
    ):
        _start(form, title, fresh=fresh)


def _cost(forecast: queries.Forecast) -> dict[str, str]:
    done = "all" if forecast.reused == forecast.runs else str(forecast.reused)
    told = {"Runs": f"{forecast.runs}, {done} of them done" if forecast.reused else str(forecast.runs)}
    if forecast.networks:
        told["Networks"] = f"{forecast.networks:,}"
    told["Time"] = f"about {wording.duration(forecast.seconds)}" if forecast.seconds else "none"
    return told | ({"Memory": wording.size(forecast.memory)} if forecast.memory else {})


def _start(form: Form, title: str, *, fresh: bool) -> None:
    assert isinstance(form.spec, StudySpec)
    try:
        study = parts.lab().submit(form.spec, fresh=fresh, title=title.strip())
    except (NotAllowedError, StoreFailedError) as refused:
        st.error(str(refused), icon=":material/error:")
        return
    st.switch_page(navigation.page("study"), query_params={"id": study})
