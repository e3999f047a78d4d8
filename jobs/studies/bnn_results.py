"""From the records of Bayesian networks to the numbers of their study. Pure functions; spreads are sample standard deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from jobs.headline import Headline, Rows, spread
from jobs.studies.grouping import mean_and_spread
from jobs.studies.lmc_results import LABELS
from symcore.metrics import Array

Paper = Mapping[str, Mapping[str, tuple[float, float]]]
"""The paper's means and spreads over seeds, by treatment and quantity."""
QUANTITIES = (
    "train_loss",
    "test_loss",
    "ece",
    "adaptive_ece",
    "brier",
    "entropy",
    "accuracy",
    "half_accuracy",
    "auroc",
)
"""Of each network: the mean negative log-likelihood of the last epoch's minibatches under drawn weights, scores of its
predictions on test images, its accuracy after half of the epochs, and how well other images are told by their entropy."""
FINAL = {
    "test_loss": "final/test/nll",
    "ece": "final/test/ece",
    "adaptive_ece": "final/test/adaptive_ece",
    "brier": "final/test/brier",
    "entropy": "final/test/entropy",
    "accuracy": "final/test/accuracy",
    "auroc": "final/outside/auroc",
}
"""The names that those of the end are recorded under."""
CERTAIN = 0.05
"""Significance level of a difference, once corrected for how many are told."""

NETWORKS = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("network", pa.int64()),
        *((quantity, pa.float64()) for quantity in QUANTITIES),  # none where it was not measured
    ]
)
SUMMARY = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("quantity", pa.string()),
        ("mean", pa.float64()),
        ("mean_std", pa.float64()),
        ("networks", pa.int64()),
        ("p", pa.float64()),  # of the difference from standard networks, Welch's t-test corrected by Holm
        ("paper", pa.float64()),
        ("paper_std", pa.float64()),
    ]
)
CURVES = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("name", pa.string()),
        ("epoch", pa.int64()),
        ("mean", pa.float64()),
        ("mean_std", pa.float64()),
        ("networks", pa.int64()),
    ]
)
RELIABILITY = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("bin", pa.int64()),
        ("images", pa.int64()),  # of all networks
        ("confidence", pa.float64()),
        ("accuracy", pa.float64()),
        ("accuracy_std", pa.float64()),  # over networks with images in the bin
    ]
)
ENTROPIES = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("share", pa.float64()),  # of a network's images, mean over networks
    ]
)


def named(records: pa.Table, roles: Mapping[str, str], block: int) -> pa.Table:
    """Records of a study's runs with treatment, label and the network's number in the study in place of run and member.

    Args:
        records: with columns `run` and `member`; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/bayes/0": "r…"}.
        block: networks in a run.
    """
    parts = [_empty(records)]
    for treatment, label in LABELS.items():
        own = {role: run for role, run in roles.items() if role.startswith(f"{treatment}/bayes/")}
        for role, run in own.items():
            rows = records.filter(pc.equal(records["run"], run))
            network = pc.add(rows["member"].cast(pa.int64()), int(role.rpartition("/")[2]) * block)
            rows = rows.drop_columns(["run", "member"]).add_column(0, "network", network)
            for name, value in (("label", label), ("treatment", treatment)):
                rows = rows.add_column(0, name, pa.array([value] * rows.num_rows, pa.string()))
            parts.append(rows)
    return pa.concat_tables(parts)


def _empty(records: pa.Table) -> pa.Table:
    names = pa.schema([("treatment", pa.string()), ("label", pa.string()), ("network", pa.int64())])
    kept = [field for field in records.schema if field.name not in {"run", "member"}]
    return pa.schema([*names, *kept]).empty_table()


def networks(metric: pa.Table, epochs: int) -> pa.Table:
    """One row per network whose training is over, treatments in order.

    Args:
        metric: what `named` makes of the metric table.
        epochs: how long they train.
    """
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    wanted = {name: quantity for quantity, name in FINAL.items()}
    for row in metric.to_pylist():
        own = found.setdefault((row["treatment"], row["label"], row["network"]), {})
        if row["name"] in wanted:
            own[wanted[row["name"]]] = row["value"]
        elif row["name"] == "train/loss" and row["step"] == epochs:
            own["train_loss"] = row["value"]
        elif row["name"] == "test/accuracy" and row["step"] == max(1, epochs // 2):
            own["half_accuracy"] = row["value"]
    rows = [
        {"treatment": treatment, "label": label, "network": network} | own
        for (treatment, label, network), own in found.items()
        if "test_loss" in own
    ]
    return pa.Table.from_pylist(rows, schema=NETWORKS)


def summary(each: pa.Table, paper: Paper) -> pa.Table:
    """One row per treatment and quantity: mean over networks, how sure a difference from standard ones is, the paper's.

    Args:
        each: what `networks` makes.
        paper: the paper's numbers where they compare.
    """
    values: dict[tuple[str, str], Array] = {}
    for treatment in pc.unique(each["treatment"]).to_pylist():
        rows = each.filter(pc.equal(each["treatment"], treatment))
        for quantity in QUANTITIES:
            column = rows[quantity].drop_null().to_numpy()
            if len(column):
                values[treatment, quantity] = column
    certain = _significance(values)
    rows = [
        {"treatment": treatment, "label": LABELS[treatment], "quantity": quantity}
        | mean_and_spread("mean", column.tolist())
        | {"networks": len(column), "p": certain.get((treatment, quantity))}
        | dict(zip(("paper", "paper_std"), paper.get(treatment, {}).get(quantity, (None, None)), strict=True))
        for (treatment, quantity), column in values.items()
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _significance(values: Mapping[tuple[str, str], Array]) -> dict[tuple[str, str], float]:
    """P of each treatment's difference from standard networks by Welch's t-test, corrected for how many there are."""
    raw: dict[tuple[str, str], float] = {}
    for (treatment, quantity), own in values.items():
        standard = values.get(("standard", quantity))
        if treatment == "standard" or standard is None or min(len(own), len(standard)) < 2:
            continue
        if np.ptp(own) == np.ptp(standard) == 0:  # no spread to compare a difference with
            continue
        raw[treatment, quantity] = float(stats.ttest_ind(own, standard, equal_var=False).pvalue)
    return dict(zip(raw, holm(list(raw.values())), strict=True))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected so that one false rejection in all of it is as rare as stated (Holm 1979)."""
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(np.argsort(p)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def curves(metric: pa.Table) -> pa.Table:
    """Loss and accuracy after each epoch, mean and spread over networks.

    Args:
        metric: what `named` makes of the metric table.
    """
    rows = metric.filter(pc.invert(pc.starts_with(metric["name"], "final/")))
    keys = ["treatment", "label", "name", "step"]
    found = rows.group_by(keys, use_threads=False).aggregate(
        [("value", "mean"), ("value", "stddev", pc.VarianceOptions(ddof=1)), ("value", "count")]
    )
    ordered = found.select([*keys, "value_mean", "value_stddev", "value_count"]).rename_columns(CURVES.names)
    return ordered.cast(CURVES)


def reliabilities(bins: pa.Table) -> pa.Table:
    """Confidence and accuracy in each bin of test images, over the networks of a treatment.

    Args:
        bins: what `named` makes of the reliability_bin table.
    """
    test = bins.filter(pc.equal(bins["split"], "test"))
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in test.to_pylist():
        found.setdefault((row["treatment"], row["label"], row["bin"]), []).append(row)
    rows = []
    for (treatment, label, number), each in found.items():
        seen = [row for row in each if row["images"]]
        images = sum(row["images"] for row in seen)
        confidence = sum(row["images"] * row["confidence"] for row in seen) / images if images else None
        rows.append(
            {
                "treatment": treatment,
                "label": label,
                "bin": number,
                "images": images,
                "confidence": confidence,
            }
            | mean_and_spread("accuracy", [row["accuracy"] for row in seen])
        )
    return pa.Table.from_pylist(rows, schema=RELIABILITY)


def histograms(bins: pa.Table) -> pa.Table:
    """How a network's entropies are spread, mean over the networks of a treatment.

    Args:
        bins: what `named` makes of the entropy_bin table.
    """
    shares: dict[tuple[str, str, str, float, float], list[float]] = {}
    totals: dict[tuple[str, int, str], int] = {}
    rows = bins.to_pylist()
    for row in rows:
        of = (row["treatment"], row["network"], row["split"])
        totals[of] = totals.get(of, 0) + row["images"]
    for row in rows:
        key = (row["treatment"], row["label"], row["split"], row["lower"], row["upper"])
        total = totals[row["treatment"], row["network"], row["split"]]
        shares.setdefault(key, []).append(row["images"] / total)
    found = [
        dict(zip(ENTROPIES.names, (*key, float(np.mean(each))), strict=True)) for key, each in shares.items()
    ]
    return pa.Table.from_pylist(found, schema=ENTROPIES)


SHOWN = {
    "train_loss": ("train\nloss", 3),
    "test_loss": ("test\nloss", 3),
    "ece": ("ECE", 3),
    "accuracy": ("test\naccuracy", 3),
    "half_accuracy": ("accuracy\nhalfway", 3),
}


def headline(found: Rows) -> Headline:
    """One row per treatment; a star marks a difference from standard networks that is sure."""
    treatments = {row["treatment"]: row["label"] for row in found}
    by = {(row["treatment"], row["quantity"]): row for row in found}

    def told(treatment: str, quantity: str) -> str:
        row = by.get((treatment, quantity))
        if row is None:
            return "–"
        sure = row["p"] is not None and row["p"] < CERTAIN
        return spread(row["mean"], row["mean_std"], SHOWN[quantity][1]) + ("*" if sure else "")

    return Headline(
        columns=("treatment", *(heading for heading, _ in SHOWN.values()), "networks"),
        rows=tuple(
            (label, *(told(treatment, q) for q in SHOWN), str(by[treatment, "test_loss"]["networks"]))
            for treatment, label in treatments.items()
        ),
        caption=(
            "Losses in nats, means ± sample standard deviations over networks; halfway is\n"
            f"after half of the epochs. *: differs from standard networks (p < {CERTAIN:g}, Welch's\n"
            "t-test, corrected for the number of tests by Holm)."
        ),
    )
