"""Results of a study of Bayesian networks: how good posteriors' predictions are, and how fast they are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, theme, wording
from app.charts import courses, entropies, reliability, tables
from app.charts.quantities import ACCURACY, LOSS
from app.charts.tables import Column
from jobs.studies.bnn_results import CERTAIN
from symcore.posteriors.reliability import BINS

Results = Mapping[str, pa.Table]
TOLD = {
    "train_loss": ("Train loss", "nats", 3, 1.0),
    "test_loss": ("Test loss", "nats", 3, 1.0),
    "ece": ("ECE", "0 to 1", 3, 1.0),
    "accuracy": ("Test accuracy", "%", 2, ACCURACY.factor),
    "half_accuracy": ("Accuracy halfway", "%", 2, ACCURACY.factor),
    "adaptive_ece": ("Adaptive ECE", "0 to 1", 3, 1.0),
    "brier": ("Brier score", "0 to 2", 3, 1.0),
    "entropy": ("Test entropy", "nats", 3, 1.0),
    "auroc": ("AUROC", "0 to 1", 3, 1.0),
}
"""Quantities as tables have them: title, unit, decimals, and what a stored value is times."""
STATED = ("accuracy", "test_loss", "ece", "train_loss", "half_accuracy")
"""Those of the paper's table."""
LEAST = 0.001
"""A smaller p is told as less than this."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    treatments = spec["treatments"]
    st.html(cards(treatments, summary, planned=spec["networks"]))
    parts.note(_of_cards(spec))
    _courses(spec, results["curves"].to_pandas())
    st.subheader("Reliability", anchor=False)
    diagrams(treatments, results["reliability"], _beside(treatments, summary, "ece"))
    if spec["outside"] is not None:
        st.subheader("Entropy of predictions on other images", anchor=False)
        histograms(treatments, results["entropies"], spec, _beside(treatments, summary, "auroc"))
    _table(study["study"], treatments, summary)


BRIEF = "Test accuracy of the posteriors’ mean predictions (%)"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        st.html(cards(spec["treatments"], summary, planned=spec["networks"]))
        return
    found = rows(spec["treatments"], summary, "accuracy")
    cells = {key: tables.cell(row, "mean") for key, row in found.iterrows()}
    st.html(tables.in_line(cells, ACCURACY.digits))


TABLES = {
    "summary": "Numbers of each treatment",
    "networks": "Numbers of each network",
    "curves": "Loss and accuracy by epoch",
    "reliability": "Reliability diagrams",
    "entropies": "Histograms of entropies",
}
"""What the result tables are called."""


def rows(treatments: Sequence[str], summary: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A quantity of each treatment in the unit that people read: mean, mean_std, networks, p, paper, paper_std; NaN where unknown."""
    found = summary[summary["quantity"] == quantity].set_index("treatment").reindex(list(treatments))
    found = found.drop(columns=["label", "quantity"]).astype(float)
    found[["mean", "mean_std", "paper", "paper_std"]] *= TOLD[quantity][-1]
    return found


def cards(treatments: Sequence[str], summary: pd.DataFrame, *, planned: int) -> str:
    """A card per treatment with its test accuracy, under it loss, calibration and accuracy halfway, as HTML.

    Args:
        treatments: What the study compares, in order.
        summary: The study's summary so far.
        planned: Networks per treatment.
    """
    found = {name: rows(treatments, summary, name) for name in TOLD}
    drawn = []
    for key in treatments:
        known = found["accuracy"].loc[key, "networks"]
        done = 0 if math.isnan(known) else int(known)
        counted = f"n = {done}" if done == planned else f"{done} of {planned} networks"

        def told(name: str, digits: int, unit: str = "", key: str = key) -> str:
            row = found[name].loc[key]
            value = tables.with_unit(*tables.cell(row, "mean"), digits, unit).rstrip()
            return value + _star(row["p"])

        lines = [
            f"test accuracy, {counted}",
            f"test loss {told('test_loss', LOSS.digits, LOSS.unit)}",
            f"ECE {told('ece', TOLD['ece'][2])}",
            f"accuracy halfway {told('half_accuracy', ACCURACY.digits, ACCURACY.unit)}",
        ]
        row = found["accuracy"].loc[key]
        value = tables.with_spread(*tables.cell(row, "mean"), ACCURACY.digits, ACCURACY.digits)
        unit = "" if math.isnan(row["mean"]) else ' <span class="spread">%</span>'
        drawn.append(tables.card(key, value + unit + _star(row["p"]), "<br>".join(lines)))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _star(p: float) -> str:
    """Marks a difference from standard networks that is sure, as HTML."""
    if math.isnan(p) or p >= CERTAIN:
        return ""
    return f'<abbr title="differs from Standard, p {_compared(p)}">*</abbr>'


def _compared(p: float) -> str:
    return f"&lt; {LEAST:g}" if p < LEAST else f"= {p:.2g}"


def _of_cards(spec: Mapping[str, Any]) -> str:
    """What the cards' words and numbers are, as HTML."""
    star = (
        f"; * differs from Standard (p &lt; {CERTAIN:g}, Welch’s t-test, corrected for the number of comparisons by Holm)"
        if "standard" in spec["treatments"]
        else ""
    )
    return (
        f"A Bayesian neural network learns a distribution over its weights, the <b>posterior</b>; {_method(spec['method'])}. "
        "A <b>posterior draw</b> is one set of weights drawn from it, and a prediction the mean of the class probabilities "
        f"of {wording.count(spec['samples'], 'draw')}, or of all where there are fewer. Loss is the mean of −log of the label’s probability. <b>ECE</b>, the "
        "expected calibration error, is how far confidence (the largest class probability) lies from accuracy: the mean "
        f"over test images, in {BINS} bins of confidence. Halfway is after half of the epochs. Numbers are mean ± sample "
        f"standard deviation over networks{star}."
    )


DRAWS = "the mean of a few draws"
METHODS = {
    "elrg": (
        "<b>ELRG</b> (efficient low-rank Gaussian) takes it to be a Gaussian in each layer, with {variance} and {directions}",
        DRAWS,
    ),
    "mean_field": ("<b>mean-field</b> inference takes it to be a Gaussian of its own for each weight", DRAWS),
    "swag": (
        "<b>SWAG</b> takes it to be a Gaussian fitted to the weights at the ends of epochs after the first {start}",
        f"the network itself, and as soon as the Gaussian can be fitted by {DRAWS}",
    ),
    "ensemble": (
        "a <b>deep ensemble</b> has in its place {networks} networks trained from different starts",
        "the mean of the ensemble",
    ),
    "dropout": (
        "<b>MC dropout</b> has in its place a network whose inputs of layers are dropped at random",
        DRAWS,
    ),
    "sgld": (
        "<b>SGLD</b> draws from it by steps of SGD with noise, after {burn_in} epochs",
        "the chain’s state",
    ),
    "sghmc": (
        "<b>SGHMC</b> draws from it by steps of SGD with momentum, friction and noise, after {burn_in} epochs",
        "the chain’s state",
    ),
}
"""By kind of method, how the posterior is approximated, with its settings in braces, and what predicts after each epoch."""


def _method(method: Mapping[str, Any]) -> str:
    """How posteriors are approximated."""
    variance = (
        "a variance for each weight"
        if method.get("diagonal") == "learned"
        else "one variance for all weights"
    )
    directions = f"{wording.count(method.get('rank', 0), 'direction')} along which weights vary together"
    return METHODS[method["kind"]][0].format(variance=variance, directions=directions, **method)


def _courses(spec: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Loss and accuracy by epoch, and how soon an accuracy is reached; places are kept until an epoch is over."""
    epochs, treatments = spec["training"]["epochs"], spec["treatments"]
    means = {quantity: courses.points(table, quantity) for quantity in (LOSS, ACCURACY)}
    st.subheader("Loss and accuracy by epoch", anchor=False)
    goals = {ACCURACY: _goal(treatments, means[ACCURACY], epochs)}
    for quantity, column in zip(means, st.columns(2, gap="medium"), strict=True):
        found = means[quantity]
        with column:
            drawing = courses.figure(found, quantity, epochs, goals.get(quantity)) if len(found) else None
            parts.chart(drawing, courses.HEIGHT, f"{quantity.key}-by-epoch", legend=treatments)
    parts.note(
        "Lines are means over networks, bands one sample standard deviation. After each epoch test images are predicted by "
        f"{METHODS[spec['method']['kind']][1]}. The train loss (dashed) is that of an epoch’s minibatches, as training sees "
        "them, without what the prior adds."
    )


def _goal(treatments: Sequence[str], means: pd.DataFrame, epochs: int) -> float | None:
    """Asks for an accuracy in %, and tells how many epochs each treatment takes to it; none before an epoch is over."""
    if means.empty:
        return None
    ends = means[means["split"] == "test"].groupby("treatment")["mean"].max()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        goal = st.number_input(
            "Epochs to a mean test accuracy (%) of",
            min_value=0.0,
            max_value=ACCURACY.factor,
            value=float(math.floor(ends.min())),
            step=1.0,
            format="%.1f",
            key="goal",
            bind="query-params",
            width=260,
        )
        found = courses.reached(means, goal)
        told = []
        for key in treatments:
            known = found.get(key, 0)
            value = tables.MISSING if known == 0 else f"&gt; {epochs}" if known is None else str(known)
            told.append((key, theme.treatment(key).label, f"<b>{value}</b>"))
        st.html(tables.answers(told), width=180 * len(told))
    return goal


def _beside(treatments: Sequence[str], summary: pd.DataFrame, quantity: str) -> dict[str, str]:
    """A quantity of each treatment in words, to stand above its panel."""
    title, _, digits, _ = TOLD[quantity]
    told = {}
    for key, row in rows(treatments, summary, quantity).iterrows():
        spread = "" if math.isnan(row["mean_std"]) else f" ± {tables.number(row['mean_std'], digits)}"
        told[str(key)] = f"{title} {tables.number(row['mean'], digits)}{spread}"
    return told


def diagrams(treatments: Sequence[str], table: pa.Table, told: Mapping[str, str]) -> None:
    """Reliability diagrams beside each other; their place is kept until a training is over.

    Args:
        treatments: From left to right.
        table: What `jobs.studies.bnn_results.reliabilities` makes.
        told: What is said above each treatment's panel.
    """
    frame = table.to_pandas()
    drawing = reliability.figure(frame, told) if len(frame) else None
    parts.chart(drawing, reliability.height(len(treatments)), "reliability", width="content")
    parts.note(
        f"Predictions on test images in {BINS} bins of equal width by their confidence. A dot is a bin: the share of its images "
        "that are right, mean over networks with images in it, with a line of one sample standard deviation to either side. "
        "On the dashed diagonal confidence is what it says; above it predictions are too unsure, below too sure. An ECE of "
        "0.01 is one percentage point. The bars are the share of images in each bin, on a root scale; hover for their number over "
        "all networks."
    )


def histograms(
    treatments: Sequence[str], table: pa.Table, spec: Mapping[str, Any], told: Mapping[str, str]
) -> None:
    """Entropies of predictions on test images and on others; their place is kept until a training is over.

    Args:
        treatments: From left to right.
        table: What `jobs.studies.bnn_results.histograms` makes.
        spec: A study's or a run's, which name the data sets alike.
        told: What is said above each treatment's panel.
    """
    own, other = (wording.data_title(spec[name]) for name in ("data", "outside"))
    key = f"filled: {own} · line: {other}"
    frame = table.to_pandas()
    said = {name: " · ".join(filter(None, (words, key))) for name, words in told.items()}
    drawing = entropies.figure(frame, said) if "outside" in set(frame["split"]) else None
    parts.chart(drawing, entropies.height(len(treatments)), "entropies", width="content")
    parts.note(
        f"<b>Entropy</b> of a prediction, −Σ p log p over classes, is 0 where it is sure and largest where it knows nothing. "
        f"Filled: test images of {own}; line: those of {other}, which networks have never seen; share of the images, mean over "
        "networks, on a root scale. <b>AUROC</b> is the probability that one of the other images has the larger entropy: 1 "
        "where entropy tells all of them, ½ where it tells nothing."
    )


def _table(study: str, treatments: Sequence[str], summary: pd.DataFrame) -> None:
    """The numbers of every treatment beside the paper's, and the buttons that hand them out."""
    compares = bool(summary["paper"].notna().any())
    parts.table(
        treatments,
        columns(treatments, summary),
        summary,
        study,
        hint="Further scores too, at full precision; losses in nats, accuracy from 0 to 1.",
        note="mean and sample standard deviation over networks; p of the difference from Standard",
        heading="Beside the paper" if compares else "Table",
        across=ACROSS,
    )
    parts.note(
        "Train loss: of the last epoch’s minibatches. p: of the difference from Standard, Welch’s t-test, corrected by Holm "
        "for all comparisons of this study."
    )
    parts.note(
        "Paper: Lim et al. 2024, table 2, mean and spread over 10 seeds."
        if compares
        else "The paper’s numbers (table 2) are measured with other settings and do not compare with these; the preset "
        "“paper” on the Launch page measures what does."
    )
    if further := further_columns(treatments, summary):
        st.subheader("Further scores", anchor=False)
        parts.html(tables.table(treatments, further))
        parts.note(
            "Of predictions on test images. Adaptive ECE: in bins of equally many images. Brier score: the squared distance "
            "from the class probabilities to the label’s. Entropy: how unsure predictions are."
        )


ACROSS = 6
"""Columns of the table that have room beside each other: those of whole quantities."""


def columns(treatments: Sequence[str], summary: pd.DataFrame) -> list[Column]:
    """Of each quantity of the paper's table what was measured, the paper's number where it compares, and p where there is one."""
    compares = bool(summary["paper"].notna().any())
    found = [column for name in STATED for column in _columns(treatments, summary, name, compares=compares)]
    networks = rows(treatments, summary, "test_loss")
    return [*found, Column.of(networks, "networks", "Networks", "n", 0)]


def further_columns(treatments: Sequence[str], summary: pd.DataFrame) -> list[Column]:
    """The same of all other quantities that were measured."""
    known = set(summary["quantity"])
    return [
        column
        for name in TOLD
        if name in known and name not in STATED
        for column in _columns(treatments, summary, name, compares=False)
    ]


def _columns(treatments: Sequence[str], summary: pd.DataFrame, name: str, *, compares: bool) -> list[Column]:
    title, unit, digits, _ = TOLD[name]
    own = rows(treatments, summary, name)
    found = [Column.of(own, "mean", title, unit, digits)]
    if compares:
        found.append(Column.of(own, "paper", "Paper", unit, digits))
    if summary["p"].notna().any():
        found.append(Column.of(own, "p", "p", "vs Standard", 3, least=LEAST))
    return found
