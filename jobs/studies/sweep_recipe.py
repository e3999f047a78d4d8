"""Linear mode connectivity for several values of one setting: what studies have in common that vary one. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.headline import Headline, Rows, endpoints, spread
from jobs.specs import PlannedRun, refusal
from jobs.studies import lmc_recipe, lmc_results
from jobs.studies.lmc_recipe import LMCSpec

Barriers = Mapping[str, tuple[float, float]]
"""Midpoint test-loss barriers by treatment, mean and spread (nats)."""


@dataclass(frozen=True)
class Setting:
    """One value of what is varied, and the study of linear mode connectivity that has it."""

    value: float | None
    """None: what is compared does not depend on it."""
    spec: LMCSpec
    paper: Barriers
    """What the paper measured there; empty where that does not compare."""

    @property
    def ending(self) -> str:
        """Ends the roles of this setting's runs."""
        return "" if self.value is None else f"/{self.value:g}"


def ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    """The values in order, for a validator.

    Raises:
        PydanticCustomError: if one stands there twice.
    """
    if len(set(values)) != len(values):
        msg = f"{list(values)} holds a value twice; accepted: each value once"
        raise refusal(msg)
    return tuple(sorted(values))


def expand(settings: Sequence[Setting]) -> list[PlannedRun]:
    """The runs of every setting in an order in which each comes after its inputs."""
    return [
        PlannedRun(run.role + setting.ending, run.spec)
        for setting in settings
        for run in lmc_recipe.expand(setting.spec)
    ]


def results(
    settings: Sequence[Setting], roles: Mapping[str, str], tables: Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """What is done so far: tables "summary" and "pairs" of `lmc_results`, with the setting as the column "value".

    Args:
        settings: in the order in which people see them.
        roles: the run that plays each role.
        tables: "path_point" and "path_calibrated" with a `run` column.
    """
    found: dict[str, list[pa.Table]] = {"summary": [], "pairs": []}
    for setting in settings:
        own = {
            role: roles[role + setting.ending] for role in _roles(setting) if role + setting.ending in roles
        }
        paths = lmc_results.paths(
            tables["path_point"], own, setting.spec.block, tables.get("path_calibrated")
        )
        for name, table in (
            ("summary", lmc_results.summary(paths, setting.paper)),
            ("pairs", lmc_results.by_pair(paths)),
        ):
            value = pa.array([setting.value] * table.num_rows, pa.float64())
            found[name].append(table.add_column(0, "value", value))
    return {name: pa.concat_tables(parts) for name, parts in found.items()}


def _roles(setting: Setting) -> list[str]:
    return [run.role for run in lmc_recipe.expand(setting.spec)]


def headline(summary: Rows, varied: str) -> Headline:
    """One row per setting and treatment: loss barriers on the test images, the paper's, and endpoints.

    Args:
        summary: rows of the table that `results` makes.
        varied: heading of the column of values.
    """
    test = [row for row in summary if row["split"] == "test"]
    accuracies = {(row["value"], row["treatment"]): row for row in test if row["quantity"] == "accuracy"}

    def told(row: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            row["label"],
            "" if row["value"] is None else f"{row['value']:g}",
            spread(row["barrier_midpoint"], row["barrier_midpoint_std"]),
            spread(row["paper_barrier_midpoint"], row["paper_barrier_midpoint_std"], 2),
            *endpoints(row, accuracies[row["value"], row["treatment"]]),
            str(row["pairs"]),
        )

    return Headline(
        columns=("treatment", varied, "barrier\nmidpoint", "paper", "test\nloss", "test\nacc.", "pairs"),
        rows=tuple(told(row) for row in test if row["quantity"] == "loss"),
        caption=(
            "Test set. Barriers are rises of the loss, mean ± sample standard deviation over\n"
            "disjoint pairs; losses and accuracies are over the networks of the pairs."
        ),
    )
