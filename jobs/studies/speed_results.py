"""From accuracies by epoch to the numbers of the training speed study. Pure functions.

A network that never got to the accuracy is censored: it takes more epochs than it was given, and nobody knows how many.
The median over networks knows what to do with that, as long as more than half got there; a mean does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.headline import Headline, Rows, spread
from jobs.studies.lmc_results import LABELS
from symcore.treatments import WAsymmetric


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    n_fix_factor: float
    kappa_factor: float
    treatment: WAsymmetric

    @property
    def role(self) -> str:
        """The part that its run plays in the study."""
        return f"w/train/n_fix*{self.n_fix_factor:g} kappa*{self.kappa_factor:g}"


GRID = [
    ("treatment", pa.string()),
    ("label", pa.string()),
    ("n_fix_factor", pa.float64()),  # none for standard networks
    ("kappa_factor", pa.float64()),
    ("n_fix", pa.list_(pa.int64())),  # per weight matrix
    ("kappa", pa.list_(pa.float64())),
]
FINAL = {"final_test_loss": "test/loss", "final_test_accuracy": "test/accuracy", "final_train_loss": "train/loss", "final_train_accuracy": "train/accuracy"}  # fmt: skip
"""What networks end at, and the metric of the train kind that says it."""
NETWORKS = pa.schema(
    [
        *GRID,
        ("network", pa.int64()),
        ("epochs", pa.int64()),  # to the accuracy; none if it was not reached
        ("epochs_given", pa.int64()),
        ("best_accuracy", pa.float64()),  # of any epoch, on the study's split
        *((name, pa.float64()) for name in FINAL),
    ]
)
SUMMARY = pa.schema(
    [
        *GRID,
        ("networks", pa.int64()),
        ("reached", pa.int64()),
        ("epochs_median", pa.float64()),  # none if too few networks got there to know it
        ("epochs_least", pa.int64()),
        ("epochs_most", pa.int64()),  # none if some network did not get there
        ("epochs_given", pa.int64()),
        *((name + part, pa.float64()) for name in FINAL for part in ("", "_std")),
    ]
)


def by_network(
    metric: pa.Table, roles: Mapping[str, str], cells: Sequence[Cell], watched: str, accuracy: float
) -> pa.Table:
    """One row for every network of the runs that are over: how many epochs it took, and what it ended at.

    Args:
        metric: the metric table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role.
        cells: the grid.
        watched: the metric that is to reach the accuracy, say "train/accuracy".
        accuracy: what it is to reach, 0 to 1.
    """
    known: dict[str, dict[str, Any]] = {
        "standard/train/0": {"treatment": "standard", "label": LABELS["standard"]}
    }
    for cell in cells:
        known[cell.role] = {
            "treatment": "w",
            "label": LABELS["w"],
            "n_fix_factor": cell.n_fix_factor,
            "kappa_factor": cell.kappa_factor,
            "n_fix": cell.treatment.n_fix,
            "kappa": cell.treatment.kappa,
        }
    names = pa.array([watched, *(f"final/{name}" for name in FINAL.values())])
    told: dict[str, list[dict[str, Any]]] = {}
    for row in metric.filter(pc.is_in(metric["name"], names)).to_pylist():
        told.setdefault(row["run"], []).append(row)
    rows = [
        place | row
        for role, place in known.items()
        for row in _networks(told.get(roles.get(role, ""), []), watched, accuracy)
    ]
    return pa.Table.from_pylist(rows, schema=NETWORKS)


def _networks(metric: Rows, watched: str, accuracy: float) -> Iterator[dict[str, Any]]:
    """The networks of one run; none while it is going on, for what they end at is not known."""
    for member in sorted({row["member"] for row in metric if row["name"].startswith("final/")}):
        own = [row for row in metric if row["member"] == member]
        ends = {row["name"].removeprefix("final/"): row["value"] for row in own}
        curve = {row["step"]: row["value"] for row in own if row["name"] == watched}
        yield {
            "network": member,
            "epochs": min((step for step, value in curve.items() if value >= accuracy), default=None),
            "epochs_given": max(curve),
            "best_accuracy": max(curve.values()),
        } | {column: ends[name] for column, name in FINAL.items()}


def summary(networks: pa.Table) -> pa.Table:
    """One row for the standard networks and one for each cell that is done.

    Args:
        networks: what `by_network` makes.
    """
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in networks.to_pylist():
        place = tuple(row[name] for name in ("treatment", "n_fix_factor", "kappa_factor"))
        grouped.setdefault(place, []).append(row)
    rows = []
    for own in grouped.values():
        epochs = [row["epochs"] for row in own]
        reached = [taken for taken in epochs if taken is not None]
        row = {name: own[0][name] for name, _ in GRID} | {
            "networks": len(own),
            "reached": len(reached),
            "epochs_median": censored_median(epochs),
            "epochs_least": min(reached, default=None),
            "epochs_most": max(reached) if len(reached) == len(own) else None,
            "epochs_given": own[0]["epochs_given"],
        }
        for name in FINAL:
            values = np.array([network[name] for network in own])
            row |= {name: float(values.mean())}
            row |= {f"{name}_std": float(values.std(ddof=1)) if len(values) > 1 else None}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def censored_median(epochs: Sequence[int | None]) -> float | None:
    """The median where None stands for more than all others; None if it falls there."""
    ordered = sorted(taken if taken is not None else np.inf for taken in epochs)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(middle) if np.isfinite(middle) else None


def headline(summary: Rows) -> Headline:
    """One row for the standard networks and one per cell."""

    def told(row: Mapping[str, Any]) -> tuple[str, ...]:
        place = [None, None] if row["n_fix_factor"] is None else [row["n_fix_factor"], row["kappa_factor"]]
        median = row["epochs_median"]
        return (
            row["label"],
            *("" if factor is None else f"×{factor:g}" for factor in place),
            f"> {row['epochs_given']}" if median is None else f"{median:g}",
            f"{row['reached']} of {row['networks']}",
            spread(row["final_test_loss"], row["final_test_loss_std"]),
            spread(row["final_test_accuracy"], row["final_test_accuracy_std"]),
        )

    return Headline(
        columns=(
            "network",
            "n_fix",
            "kappa",
            "epochs",
            "got there",
            "final\ntest loss",
            "final test\naccuracy",
        ),
        rows=tuple(map(told, summary)),
        caption=(
            "Epochs to the accuracy, median over networks; those that did not get there\n"
            "count as more than the epochs they had. Losses and accuracies after the last\n"
            "epoch, mean ± sample standard deviation."
        ),
    )
