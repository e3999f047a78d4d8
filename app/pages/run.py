"""A run's page: how far it is, what it found, its settings, log, files, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from app import exports, navigation, parts, queries, views, wording
from jobs import queries as reads
from jobs.states import UnknownError
from jobs.summaries import with_spread

TITLE, ICON, GROUP, URL, ORDER = "Run", ":material/play_circle:", None, "run", 1
LOG_HEIGHT = 340
"""Pixels."""
STUDIES = 3
"""Newest studies that the head links to; a run that many share is in all of their tables."""


def render() -> None:
    """The page of the run that `?id=` names."""
    name = st.query_params.get("id", "")
    lab = parts.lab()
    try:
        run = reads.run(lab.store, name)
    except UnknownError:
        told = f"There is no run “{name}” in this lab." if name else "The address names no run."
        parts.empty("No such run", told, "runs", "See all runs", ":material/table_rows:")
        return
    view = views.view(run["kind"])
    _head(run, view)
    going_on = queries.is_going_on(run["state"])

    def part() -> bool:
        now = reads.run(lab.store, name)
        _standing(now)
        if view is not None and (now["state"] == "done" or going_on or queries.recorded(lab, name)):
            view.draw(now)
        return bool(now["state"] == run["state"])

    parts.live(part, going_on=going_on)
    _details(run, going_on=going_on)


def _head(run: Mapping[str, Any], view: ModuleType | None) -> None:
    name, state = run["run"], run["state"]
    with st.container(horizontal=True, gap="medium"):
        st.page_link(navigation.page("runs"), label="Runs", icon=":material/arrow_back:")
        for part in run["studies"][-STUDIES:]:
            study = reads.study(parts.lab().store, part["study"])
            label = study["title"] or wording.kind_title(study["kind"])
            st.page_link(
                navigation.page("study"),
                label=label,
                query_params={"id": part["study"]},
                help=f"{wording.study_title(study['title'], study['spec'])} ({part['study']})",
            )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(run["title"], anchor=False, width="stretch")
        if queries.is_going_on(state) and state != "cancelling":
            st.button("Cancel", icon=":material/stop_circle:", on_click=parts.act, args=("cancel", [name]))
        if state in ("failed", "cancelled"):
            st.button("Resume", icon=":material/play_arrow:", on_click=parts.act, args=("resume", [name]))
        exports.popover(exports.of_run(parts.lab(), run, view))
    with st.container(horizontal=True, gap="small"):
        parts.badge(state)
        told = [
            run["kind"],
            *(["deleted"] if run["deleted"] else []),
            f"created {wording.ago(run['created'])}",
        ]
        told += [f"attempt {run['attempt']}"] if run["attempt"] > 1 else []
        parts.chips([*told, name])
    if run["error"]:
        st.error(run["error"], icon=":material/error:")


def _standing(run: Mapping[str, Any]) -> None:
    """How far the run is, or what it took; the same height either way."""
    lab, state = parts.lab(), run["state"]
    progress = lab.progress(run["run"]) if queries.is_going_on(state) else None
    if progress is not None:
        left = "" if progress.eta is None else f"about {wording.duration(progress.eta)} left"
        parts.progress(progress.fraction, progress.note, left)
    elif queries.is_going_on(state):
        waits = (
            "waits for a free slot, or for the runs it reads"
            if state == "queued"
            else "no word from its worker yet"
        )
        parts.progress(0.0, waits, "")
    else:
        summary = with_spread(run["summary"])
        numbers = " · ".join(wording.headline(name, *values) for name, values in summary.items())
        parts.finished(numbers, f"took {wording.duration(run['seconds'])}" if run["started"] else "")


def _details(run: Mapping[str, Any], *, going_on: bool) -> None:
    settings, log, files, environment, provenance = st.tabs(
        ["Settings", "Log", "Files", "Environment", "Provenance"], key="details"
    )
    with settings:
        parts.facts(wording.flat({name: value for name, value in run["spec"].items() if name != "kind"}))
    with log:
        _log(run, going_on=going_on)
    with files:
        _files(run)
    with environment:
        told = queries.environment(parts.lab(), run["run"])
        parts.facts(told) if told else st.caption("Known once the run has started.")
    with provenance:
        _provenance(run)


def _log(run: Mapping[str, Any], *, going_on: bool) -> None:
    def part() -> bool:
        text = queries.tail(parts.lab(), run["run"])
        st.code(text or "Nothing has been logged.", language=None, height=LOG_HEIGHT, wrap_lines=True)
        return True

    parts.live(part, going_on=going_on)
    if parts.lab().lab.inside(run["run"], "log.txt") is not None:
        st.link_button("Whole log", f"/api/v1/runs/{run['run']}/log", icon=":material/download:")


def _files(run: Mapping[str, Any]) -> None:
    if not run["artifacts"]:
        st.caption("Files are listed here when the run is done.")
        return
    frame = pd.DataFrame(run["artifacts"])
    frame["size"] = [wording.size(count) for count in frame.pop("bytes")]
    config = st.column_config
    st.dataframe(
        frame[["name", "path", "size", "sha256"]],
        hide_index=True,
        column_config={
            "name": config.TextColumn("Name"),
            "path": config.TextColumn("File"),
            "size": config.TextColumn("Size", alignment="right"),
            "sha256": config.TextColumn("SHA-256", width="large"),
        },
        alt="Files of this run",
    )
    with st.container(horizontal=True):
        for file in run["artifacts"]:
            # A link to the API, not Streamlit's button, which holds each file in memory for each visitor.
            url = f"/api/v1/runs/{run['run']}/artifacts/{quote(file['name'])}"
            here = parts.lab().lab.inside(run["run"], file["path"]) is not None
            st.link_button(
                file["name"],
                url,
                icon=":material/download:",
                disabled=not here,
                help=None if here else "The file is gone from the run's folder.",
            )
    st.caption(f"In {parts.lab().run_folder(run['run'])}")


def _provenance(run: Mapping[str, Any]) -> None:
    parts.facts(
        {
            "Run": run["run"],
            "Hash of its settings": run["hash"],
            "Kind": f"{run['kind']}, version {run['spec']['version']}",
        }
    )
    if run["inputs"]:
        st.markdown("**Reads**")
        for source in run["inputs"].values():
            try:
                title = reads.run(parts.lab().store, source)["title"]
            except UnknownError:  # a single run that was imported comes without what it read
                st.markdown(f"`{source}`, which is not in this lab")
                continue
            st.page_link(navigation.page("run"), label=f"{title} ({source})", query_params={"id": source})
    st.markdown("**History**")
    events = pd.DataFrame(run["events"])
    events["payload"] = [", ".join(f"{k} {v}" for k, v in payload.items()) for payload in events["payload"]]
    config = st.column_config
    st.dataframe(
        events[["time", "type", "attempt", "payload"]],
        hide_index=True,
        column_config={
            "time": config.DatetimeColumn("Time", format="YYYY-MM-DD HH:mm:ss"),
            "type": config.TextColumn("Became"),
            "attempt": config.NumberColumn("Attempt"),
            "payload": config.TextColumn("What was said", width="large"),
        },
        alt="Events of this run",
    )
