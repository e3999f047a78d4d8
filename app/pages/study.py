"""A study's page: where it stands, its results, its runs and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import exports, navigation, parts, queries, run_table, views, wording
from jobs import queries as reads
from jobs import registry
from jobs.states import UnknownError

TITLE, ICON, GROUP, URL, ORDER = "Study", ":material/science:", None, "study", 0


def render() -> None:
    """The page of the study that `?id=` names."""
    name = st.query_params.get("id", "")
    try:
        study = reads.study(parts.lab().store, name)
    except UnknownError:
        parts.empty(
            "No such study",
            f"There is no study “{name}” in this lab." if name else "The address names no study.",
            "studies",
            "See all studies",
            ":material/science:",
        )
        return
    results = queries.results(name, study["state"])
    view = views.view(study["kind"])
    _head(study, results, view)
    _standing(study)
    _failure(study)
    nothing = not any(table.num_rows for table in results.values())
    if study["kind"] in registry.kinds():
        (run,) = study["runs"]
        label = "See what this run finds"
        st.page_link(
            navigation.page("run"),
            label=label,
            query_params={"id": run["run"]},
            icon=":material/play_circle:",
        )
    elif nothing and not queries.is_going_on(study["state"]):
        st.info("No run of this study has recorded anything.", icon=":material/info:")
    elif view is not None and results:
        view.draw(study, results)
    else:
        for key, table in results.items():
            st.subheader(key.capitalize(), anchor=False)
            st.dataframe(table.to_pandas(), hide_index=True, alt=key)
    _runs(study)
    with st.expander("Settings"):
        parts.facts(wording.flat(study["spec"]))


def _head(study: Mapping[str, Any], results: Mapping[str, pa.Table], view: Any) -> None:  # noqa: ANN401 - a module
    spec = study["spec"]
    st.page_link(navigation.page("studies"), label="Studies", icon=":material/arrow_back:")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(wording.study_title(study["title"], spec), anchor=False, width="stretch")
        with st.container(horizontal=True, width="content", gap="small"):
            _buttons(study, results, view)
    with st.container(horizontal=True, gap="small"):
        parts.badge(study["state"])
        parts.chips(_chips(study))


def _buttons(study: Mapping[str, Any], results: Mapping[str, pa.Table], view: Any) -> None:  # noqa: ANN401 - a module
    """What can be done with the study; they stay in one line."""
    name = study["study"]
    if queries.is_going_on(study["state"]):
        st.button("Cancel", icon=":material/stop_circle:", on_click=parts.act, args=("cancel", [name]))
    elif study["state"] in ("failed", "cancelled"):
        st.button("Resume", icon=":material/play_arrow:", on_click=parts.act, args=("resume", [name]))
    if st.button("Clone with edits", icon=":material/content_copy:"):
        st.switch_page(navigation.page("launch"), query_params={"from": name})
    if not queries.is_going_on(study["state"]):
        _delete(name)
    exports.popover(exports.of_study(study, results, view))


def _failure(study: Mapping[str, Any]) -> None:
    """Why the first run that failed did so; the others that failed may only have waited for it."""
    failed = [run for run in study["runs"] if run["state"] == "failed" and run["error"]]
    if failed:
        first = min(failed, key=lambda run: run["ended"])
        st.error(f"{first['title']}: {first['error']}", icon=":material/error:")
        st.page_link(navigation.page("run"), label="See this run", query_params={"id": first["run"]})


def _delete(name: str) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        st.write("Delete this study and the runs that no other study has? Files stay until `symlab purge`.")
        if st.button("Delete the study", icon=":material/delete:") and parts.act("delete", [name]):
            st.switch_page(navigation.page("studies"))


def _chips(study: Mapping[str, Any]) -> list[str]:
    spec = study["spec"]
    told = [wording.kind_title(study["kind"])]
    if "pairs" in spec and isinstance(spec["pairs"], int):
        told.append(f"{wording.count(spec['pairs'], 'pair')} per treatment")
    if "seed" in spec:
        told.append(f"seed {spec['seed']}")
    if "training" in spec:
        told.append(wording.count(spec["training"]["epochs"], "epoch"))
    return [*told, f"started {wording.ago(study['created'])}", study["study"]]


def _standing(study: Mapping[str, Any]) -> None:
    """How far the study is while it goes on, and what it took when it is over; the same height either way."""
    name, lab = study["study"], parts.lab()
    going_on = queries.is_going_on(study["state"])
    states = [run["state"] for run in study["runs"]]

    def part() -> bool:
        now = reads.study(lab.store, name)
        progress = lab.study_progress(name)
        done = progress.states.get("done", 0)
        left = f"{done} of {wording.count(len(states), 'run')} done"
        left += "".join(
            f" · {role.partition('/')[0]}: {note}" for role, note in list(progress.notes.items())[:1]
        )
        right = "" if progress.eta is None else f"about {wording.duration(progress.eta)} left"
        parts.progress(progress.fraction, left, right)
        # the study's own state too: it is read before those of its runs, the last of which may end in between
        return now["state"] == study["state"] and [run["state"] for run in now["runs"]] == states

    if going_on:
        parts.live(part, going_on=True)
        return
    reused = sum(run["reused"] for run in study["runs"])
    left = f"{wording.count(states.count('done'), 'run')} done"
    left += f", {reused} of them reused from earlier studies with the same settings" if reused else ""
    took = (study["ended"] - study["created"]).total_seconds() if study["ended"] else -1.0
    parts.finished(left, f"took {wording.duration(took)}" if took > 0 else "")


def _runs(study: Mapping[str, Any]) -> None:
    lab = parts.lab()
    st.subheader("Runs", anchor=False)
    rows = []
    for run in study["runs"]:
        fraction, time = queries.run_time(lab, run["run"], run["state"], run["seconds"])
        time = "reused" if run["reused"] and run["state"] == "done" else time
        kept = {name: run[name] for name in ("role", "run", "title", "state", "created")}
        rows.append(kept | {"progress": fraction, "time": time})
    run_table.table(pd.DataFrame(rows).drop(columns=["created", "progress"]), "study-runs")
