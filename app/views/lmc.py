"""Results of a linear mode connectivity study: barriers, paths, and the table beside the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import streamlit as st

from app import parts, queries, wording
from app.charts import paths, tables
from app.charts.quantities import ACCURACY, CALIBRATED, LOSS, QUANTITIES, Quantity
from jobs import registry
from jobs.kinds.interpolate import calibrated_on

Results = Mapping[str, pa.Table]
FULL = "All splits, loss and accuracy, at full precision; in nats, and accuracy from 0 to 1."
"""What the spreadsheet of a study's summary has."""
SIGMA = """
<b>Why σ-Asymmetric can lie above Standard.</b> FiGLU's fixed F leaves the symmetries of a norm in place (weights right
before one may be scaled, and before a LayerNorm all rows shifted by one vector, and the function stays the same), and a
larger F makes the gates nearly hard and random, so that independently trained networks disagree more midway.
"""


@dataclass(frozen=True)
class Chosen:
    """What of the results is shown."""

    quantity: Quantity
    split: str
    which: str
    """The barrier: "midpoint" or "maximum"."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    chosen = controls(spec["data"], calibrated=spec.get("temperature", False))
    cards = tables.cards(
        spec["treatments"],
        results["summary"].to_pandas(),
        chosen.quantity,
        chosen.split,
        chosen.which,
        planned=spec["pairs"],
    )
    st.html(cards)
    place = "at the midpoint" if chosen.which == "midpoint" else "as maximum over the path"
    parts.note(
        f"{chosen.quantity.key.capitalize()} barrier {place} in {chosen.quantity.barrier_unit} on the {chosen.split} "
        f"{wording.inputs(spec['data'])}: mean ± sample standard deviation over pairs. All treatments share one scale."
    )
    if chosen.quantity is CALIBRATED:
        parts.note(calibration(spec["data"]))
    _charts(spec, results, chosen)
    parts.note(
        "On paths, lines are means over pairs, bands one sample standard deviation, hairlines single pairs, dots at the edges "
        "the trained networks. Of barriers, a dot is a pair, a bar the mean, a line one sample standard deviation to either side."
    )
    definitions(chosen.quantity, sigma="sigma" in spec["treatments"])
    table(study["study"], spec, results, chosen)
    _beside_the_paper(spec["kind"], results)


def calibration(data: str) -> str:
    """How the temperatures were found."""
    inputs = wording.inputs(data)
    if calibrated_on(data) == "val":
        return f"Each network's logits are divided by the temperature that is best on the val {inputs}."
    return (
        f"Each network's logits are divided by a temperature that was fitted on other {inputs}: those at even places of the "
        f"test {inputs} are measured at the one that is best on those at odd places, and the other way round."
    )


BRIEF = "Loss barrier at the midpoint, test split (nats)"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        st.html(tables.cards(spec["treatments"], summary, LOSS, "test", "midpoint", planned=spec["pairs"]))
    else:
        st.html(tables.strip(spec["treatments"], summary, LOSS, "test"))


TABLES = {
    "summary": "Barriers of each treatment",
    "pairs": "Barriers of each pair",
    "curves": "Mean curves",
    "paths": "All points of all paths",
}
"""What the result tables are called."""


def controls(data: str, *, calibrated: bool = False) -> Chosen:
    """What people choose of the results on a data set; the address keeps it."""
    quantities = QUANTITIES | ({CALIBRATED.key: CALIBRATED} if calibrated else {})
    with st.container(horizontal=True, gap="medium"):
        split = parts.choice(wording.inputs(data).capitalize(), "split", ["test", "train"])
        quantity = parts.choice("Quantity", "quantity", list(quantities))
        which = parts.choice("Barrier", "barrier", ["midpoint", "maximum"])
    return Chosen(quantities[quantity], split, which)


def _charts(spec: Mapping[str, Any], results: Results, chosen: Chosen) -> None:
    quantity, split = chosen.quantity, chosen.split
    points = queries.paths(results, quantity, split)
    values = queries.barriers(results, quantity, split, chosen.which)
    order = [key for key in spec["treatments"] if key in set(values["treatment"])]
    title = f"{chosen.which} {split} {quantity.key} barrier ({quantity.barrier_symbol})"
    tall = paths.height(len(spec["treatments"]))
    left, right = st.columns([1.75, 1], gap="medium")
    with left:
        st.subheader(f"{quantity.key.capitalize()} on the straight path between two networks", anchor=False)
        drawn = paths.interpolation(points, quantity, split) if order else None
        parts.chart(drawn, tall, "paths")
    with right:
        st.subheader("Barrier of each pair", anchor=False)
        dots = paths.barriers(values, order, title, quantity.digits) if order else None
        parts.chart(dots, tall, "barriers")


def definitions(quantity: Quantity, *, sigma: bool) -> None:
    """What the two barriers are."""
    rise = "drop of the accuracy" if quantity is ACCURACY else "rise of the loss"
    parts.note(
        f"<b>Midpoint barrier</b> (Lim et al. 2024): the {rise} halfway, at α = ½, against the mean of the two "
        f"endpoints. <b>Maximum barrier</b>: the greatest {rise} over the whole path against the straight line between "
        "the endpoints."
    )
    if sigma:
        parts.note(SIGMA)


def table(study: str, spec: Mapping[str, Any], results: Results, chosen: Chosen) -> None:
    """The numbers of every treatment, and the buttons that hand them out."""
    summary = results["summary"].to_pandas()
    parts.table(
        spec["treatments"],
        tables.columns(spec["treatments"], summary, chosen.quantity, chosen.split),
        summary,
        study,
        hint=FULL,
        note=f"{chosen.split} {chosen.quantity.key}: mean and sample standard deviation over pairs",
        chosen=f"{chosen.split}-{chosen.quantity.key}",
        heading="Beside the paper" if _compares(results) else "Table",
    )


def _compares(results: Results) -> bool:
    """Whether the paper's numbers are measured with these settings."""
    return bool(results["summary"].to_pandas()["paper_barrier_midpoint"].notna().any())


def _beside_the_paper(kind: str, results: Results) -> None:
    row = registry.studies()[kind].Spec.paper.name
    if _compares(results):
        parts.note(f"Paper: Lim et al. 2024, table 1, {row}, mean and spread over at least 5 pairs.")
    else:
        parts.note(
            f"The paper's numbers ({row}) are measured with other settings and do not compare with these; the preset "
            "“paper” on the Launch page measures what does."
        )
