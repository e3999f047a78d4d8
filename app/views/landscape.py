"""Results of a landscape study: surfaces of the loss side by side, and how flat they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries, theme, wording
from app.charts import flatness, surfaces
from app.charts.quantities import LOSS, QUANTITIES, Quantity
from app.charts.surfaces import Look, Surface, Window
from jobs.kinds.surface import FLAT, LEAST_SNAPSHOTS, evaluated
from symcore.data.sources import SOURCES

Results = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Shown:
    """A study whose surfaces are drawn."""

    heading: str
    """Its name, where another one is drawn with it."""
    spec: Mapping[str, Any]
    results: Results


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, renewed while surfaces are being evaluated."""
    spec = study["spec"]
    with st.container(horizontal=True, gap="medium"):
        quantity = QUANTITIES[parts.choice("Quantity", "quantity", list(QUANTITIES))]
        log = quantity is LOSS and parts.choice("Scale", "scale", ["log", "linear"]) == "log"
        other = _other(study["study"])
    going_on = queries.is_going_on(study["state"])

    def part() -> bool:
        now = queries.results(study["study"], study["state"]) if going_on else results
        st.html(
            flatness.cards(
                spec["treatments"], now["summary"].to_pandas(), spec["split"], planned=spec["surfaces"]
            )
        )
        parts.note(
            f"Flat share: how much of a random plane lies at most {FLAT:g} nats above the network in its middle. Barrier: "
            "rise of the loss midway between three networks, mean ± sample standard deviation over their three pairs."
        )
        name = f"{wording.study_title(study['title'], spec)} ({study['study']})" if other else ""
        shown = [Shown(name, spec, now), *([other] if other else [])]
        st.subheader(f"{quantity.key.capitalize()} on planes of weights", anchor=False)
        warn([shared(one.spec) for one in shown])
        _figure(shown, quantity, log=log)
        return going_on

    parts.live(part, going_on=going_on)
    _definitions(spec, results["planes"].to_pandas())
    _table(study["study"], spec, results)


def _other(study: str) -> Shown | None:
    """A finished study of this kind that is to stand below, if there are others and one is chosen."""
    frame = queries.studies(parts.lab())
    frame = frame[(frame["kind"] == "landscape") & (frame["state"] == "done") & (frame["study"] != study)]
    if frame.empty:
        return None
    known = frame.set_index("study")
    names = {name: f"{known.loc[name, 'heading']} ({name})" for name in known.index}
    chosen = st.selectbox(
        "Compare with",
        list(names),
        index=None,
        format_func=names.get,
        key="other",
        placeholder="nothing",
        width=360,
    )
    if chosen is None:
        return None
    return Shown(names[chosen], known.loc[chosen, "spec"], queries.results(chosen, "done"))


def shared(spec: Mapping[str, Any]) -> dict[str, str]:
    """What surfaces of a study must share to compare, each by what it is called."""
    return {
        "images": evaluated_on(spec),
        "span of the random planes": f"{spec['span']:g}",
        "directions of the random planes": f"seed {spec['plane_seed']}",
        "margin around networks": f"{spec['margin']:g}",
    }


def evaluated_on(spec: Mapping[str, Any]) -> str:
    """The images of every cell in short; of a study's spec or a run's."""
    used, of = _images(spec)
    drawn = f", seed {spec['subset_seed']}" if used < of else ""
    return f"{spec['data']}, {used:,} of {of:,} {spec['split']} images{drawn}"


def warn(found: Sequence[Mapping[str, str]]) -> None:
    """Says why surfaces do not compare, if they do not; takes for each of them what `differences` takes."""
    if apart := differences(found):
        st.warning(" ".join(["These surfaces do not compare.", *apart]), icon=":material/warning:")


def differences(found: Sequence[Mapping[str, str]]) -> list[str]:
    """Why surfaces do not compare, a sentence each; none where they do.

    Args:
        found: For each of them, what they must share by what it is called; what only some have tells nothing of these.
    """
    apart = []
    for name in dict.fromkeys(name for one in found for name in one):
        values = [one[name] for one in found if name in one]
        if len(set(values)) > 1:
            apart.append(f"Not the same {name}: {' / '.join(values)}.")
    return apart


def _images(spec: Mapping[str, Any]) -> tuple[int, int]:
    """How many images every cell is evaluated on, and out of how many."""
    of = SOURCES[spec["data"]].sizes[spec["split"]]
    return evaluated(spec["data"], spec["split"], spec["images"]), of


BRIEF = f"Flat share of random planes: cells at most {FLAT:g} nats above the network (%)"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        st.html(flatness.cards(spec["treatments"], summary, spec["split"], planned=spec["surfaces"]))
    else:
        st.html(flatness.strip(spec["treatments"], summary))


TABLES = {
    "summary": "Numbers of each treatment",
    "planes": "Numbers of each surface",
    "marks": "Networks and midpoints",
    "snapshots": "Training runs on their planes",
    "surfaces": "All cells",
}
"""What the result tables are called."""
GRID, GRID_TOLD = "surfaces", "Surfaces as arrays"
"""Name and label of the arrays that `arrays` makes."""


def arrays(study: Mapping[str, Any], results: Results) -> dict[str, np.ndarray]:
    """The arrays of `surfaces.arrays` for each surface, named after its treatment, plane and network."""
    found, spec = {}, study["spec"]
    for names, own in results["surfaces"].to_pandas().groupby(["treatment", "plane", "network"]):
        surface = surfaces.arrays(own, _window(spec, names[1]))
        found |= {"/".join([*map(str, names), name]): values for name, values in surface.items()}
    return found


def _window(spec: Mapping[str, Any], plane: str) -> Window:
    return surfaces.window(plane, spec[surfaces.REACH[plane]], spec["cells"])


DRAWN = ("surfaces", "marks", "snapshots")
"""Result tables that are drawn."""


def _figure(shown: Sequence[Shown], quantity: Quantity, *, log: bool) -> None:
    """All surfaces of all studies on one scale."""
    first = shown[0].spec
    frames = [{name: queries.surfaces(one.results[name]) for name in DRAWN} for one in shown]
    values = pd.concat([frame["surfaces"][quantity.key] for frame in frames])
    scale = surfaces.colours(values, quantity, SOURCES[first["data"]].classes, log=log)
    many = max(len(one.spec["treatments"]) for one in shown)
    rows = {}
    for one, frame in zip(shown, frames, strict=True):
        for heading, plane, network in _rows(one.spec):
            rows[f"{one.heading} · {heading}" if one.heading else heading] = [
                Surface(
                    key,
                    plane,
                    _window(one.spec, plane),
                    *(_only(frame[name], key, plane, network) for name in DRAWN),
                )
                for key in one.spec["treatments"]
            ]
    look = Look(quantity, first["split"], scale, surfaces.side(many))
    drawing = None if values.empty else surfaces.figure(rows, look)
    parts.chart(drawing, surfaces.height(len(rows), many), "surfaces", width="content")


def _rows(spec: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Heading, kind of plane and network of each row of surfaces."""
    directions = f"random directions of seed {spec['plane_seed']}"
    around = [(f"Around network {n}, {directions}", "random", n) for n in range(spec["surfaces"])]
    through = ("Through three networks a, b and c", "through", 0)
    # a study of an earlier version knows of no snapshots
    kept = min(spec.get("snapshots", 0), spec["training"]["epochs"])
    along = [("Along the training of network 0", "trajectory", 0)] if kept >= LEAST_SNAPSHOTS else []
    return [*around, through, *along]


def _only(frame: pd.DataFrame, treatment: str, plane: str, network: int) -> pd.DataFrame:
    chosen = (frame["treatment"] == treatment) & (frame["plane"] == plane) & (frame["network"] == network)
    return frame[chosen].drop(columns=["treatment", "label", "plane", "network"])


def _held(spec: Mapping[str, Any], planes: pd.DataFrame) -> str:
    """How much of each training run its plane holds, as a sentence."""
    known = planes[planes["explained_x"].notna()].set_index("treatment")
    told = [
        f"{theme.treatment(key).label} {known.loc[key, 'explained_x']:.0%} + {known.loc[key, 'explained_y']:.0%}"
        for key in spec["treatments"]
        if key in known.index
    ]
    return f" The components hold, of all squared distances to the end: {', '.join(told)}." if told else ""


PLANES = {
    "random": (
        "<b>Random planes</b> (Li et al. 2018): both directions are random, each filter scaled to the norm of the network's own, "
        "so that 1 is as far as the weights are long; weights that are fixed do not move, and count in no norm."
    ),
    "through": (
        "<b>Through three networks</b> (Garipov et al. 2018): dots are the trained networks, diamonds the points midway; the "
        "unit is the distance between a and b."
    ),
    "trajectory": (
        "<b>Along a training run</b> (Li et al. 2018): the two principal components of the way to the end, with the end as "
        "centre; the line joins the snapshots, each projected onto the plane."
    ),
}
"""What each kind of plane is, as HTML."""


def images(spec: Mapping[str, Any]) -> str:
    """What every cell is evaluated on, as a clause; of a study's spec or a run's."""
    used, of = _images(spec)
    if used == of:
        return f"Every cell is evaluated on all {of:,} {spec['split']} {wording.inputs(spec['data'])}"
    drawn = f"the same {used:,} of {of:,} {spec['split']} {wording.inputs(spec['data'])}"
    return f"Every cell is evaluated on {drawn} (drawn by seed {spec['subset_seed']})"


def _definitions(spec: Mapping[str, Any], planes: pd.DataFrame) -> None:
    parts.note(
        f"{images(spec)}; all surfaces share span, images and colours. {' '.join(PLANES.values())}{_held(spec, planes)} Hover "
        "over a cell or a mark for its loss and accuracy."
    )


def _table(study: str, spec: Mapping[str, Any], results: Results) -> None:
    summary = results["summary"].to_pandas()
    parts.table(
        spec["treatments"],
        flatness.columns(spec["treatments"], summary),
        summary,
        study,
        hint="At full precision; shares from 0 to 1.",
        note="loss landscapes: mean and sample standard deviation",
    )
