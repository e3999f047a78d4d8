"""The symmetry inspector (Lim et al. 2024, section 3): which symmetries each treatment leaves a network.

It looks at freshly initialised networks; symmetries are a property of the form and of what is fixed, not of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from jobs.headline import Headline, Rows
from jobs.kinds import inspect
from jobs.specs import DataName, PlannedRun, in_order
from jobs.studies.compared import NETWORKS, PAPERS, ComparedSpec, NetworkName
from jobs.studies.lmc_results import LABELS
from symcore.networks.mlp import MLPSpec
from symcore.symmetry.inspector import TRANSFORMATIONS
from symcore.treatments import SigmaAsymmetric, WAsymmetric


class Spec(ComparedSpec):
    """Permutations that leave a network's function as it is, counted, and what other transformations change, measured."""

    title: ClassVar[str] = "Symmetry inspector"

    kind: Literal["symmetry"] = "symmetry"
    data: DataName = "digits"
    """Data set whose images and classes the networks are made for; none of its files is read."""
    treatments: Annotated[tuple[NetworkName, ...], in_order(NETWORKS)] = PAPERS
    """What is compared: a standard, a sigma- and a W-Asymmetric network; a W-Asymmetric one with FiGLU besides (w_figlu), with zeros fixed (w0), with small offsets (syre), only its start W-Asymmetric (asym_init), or fixed biases."""
    draws: int = Field(default=20, ge=1, le=10_000)
    """Random transformations of each kind."""
    probes: int = Field(default=64, ge=1, le=10_000)
    """Normal inputs on which outputs are compared."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds initialisation, inputs and transformations, the same for each treatment."""
    mask_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds masks, fixed weights and FiGLU's gates."""


PRESETS: dict[str, Spec] = {
    "smoke": Spec(network=MLPSpec(width=64, depth=2), draws=5),
    "laptop": Spec(),
    "paper": Spec(
        data="mnist",
        network=MLPSpec(width=512),
        w=WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
        sigma=SigmaAsymmetric(std=1),
    ),
}
"""A small network in a second; the demo's; the paper's for MNIST (appendix E.1 and the authors' code)."""


def expand(spec: Spec) -> list[PlannedRun]:
    """One run for each treatment."""
    return [
        PlannedRun(
            f"{name}/inspect/0",
            inspect.Spec(
                data=spec.data,
                network=spec.network,
                treatment=spec.treatment_settings()[name],
                seed=spec.seed,
                mask_seed=None if name == "standard" else spec.mask_seed,
                draws=spec.draws,
                probes=spec.probes,
            ),
        )
        for name in spec.treatments
    ]


HEADS = {
    "swap": "swap",
    "permutation": "permu-\ntation",
    "sign": "signs",
    "rescale": "rescal-\ning",
    "scale": "scal-\ning",
    "shift": "shift",
}
"""Transformations at the head of a narrow column."""

RECORDS = ("symmetry_order", "symmetry_group", "symmetry_change")

NAMES = [("treatment", pa.string()), ("label", pa.string())]
SUMMARY = pa.schema(
    [
        *NAMES,
        ("neurons", pa.int64()),
        ("log10_least", pa.float64()),
        ("log10_most", pa.float64()),
        ("certificate", pa.string()),
        ("rounds", pa.int64()),
        ("flippable", pa.int64()),
        ("sign_changes", pa.int64()),
        ("signed_log10_least", pa.float64()),
        ("signed_log10_most", pa.float64()),
        *((f"{name}_{what}", pa.float64()) for name in TRANSFORMATIONS for what in ("median", "max")),
        ("draws", pa.int64()),
    ]
)
GROUPS = pa.schema(
    [*NAMES, ("group", pa.string()), ("size", pa.int64()), ("cells", pa.int64()), ("axes", pa.string())]
)
CHANGES = pa.schema([*NAMES, ("transformation", pa.string()), ("draw", pa.int64()), ("change", pa.float64())])


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Orders, groups and changes of what is done so far: tables "summary", "groups" and "changes".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: those of `RECORDS`, with a `run` column.
    """
    names: dict[str, dict[str, Any]] = {
        roles[role]: {"treatment": name, "label": LABELS[name]}
        for name in spec.treatments
        if (role := f"{name}/inspect/0") in roles
    }

    def named(table: str) -> list[dict[str, Any]]:
        rows = [names[row["run"]] | row for row in tables[table].to_pylist() if row["run"] in names]
        return sorted(rows, key=lambda row: list(names).index(row["run"]))

    groups = named("symmetry_group")
    changes = sorted(
        named("symmetry_change"),
        key=lambda row: (
            list(names).index(row["run"]),
            TRANSFORMATIONS.index(row["transformation"]),
            row["draw"],
        ),
    )
    summary = [_summary(row, groups, changes) for row in named("symmetry_order")]
    return {
        "summary": _table(summary, SUMMARY),
        "groups": _table(groups, GROUPS),
        "changes": _table(changes, CHANGES),
    }


def _summary(order: dict[str, Any], groups: Rows, changes: Rows) -> dict[str, Any]:
    """One treatment's order with the sum of its neurons, and median and maximum of its changes."""
    own = [row for row in changes if row["run"] == order["run"]]
    measured: dict[str, Any] = {"draws": len({row["draw"] for row in own})}
    for name in TRANSFORMATIONS:
        values = [row["change"] for row in own if row["transformation"] == name]
        median, most = (float(np.median(values)), max(values)) if values else (None, None)
        measured |= {f"{name}_median": median, f"{name}_max": most}
    return order | measured | {"neurons": sum(row["size"] for row in groups if row["run"] == order["run"])}


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


def order(least: float, most: float) -> str:
    """The order of a group from the decimal logarithms of its bounds: "1", "576", "10^3499.6", "1 to 120"."""
    low, high = (f"{round(10**value):,}" if value < 6 else f"10^{value:.1f}" for value in (least, most))
    return low if math.isclose(least, most, abs_tol=1e-9) else f"{low} to {high}"


def signed_order(row: Mapping[str, Any]) -> str | None:
    """The order of the signed permutations; none where no neuron could change sign, or a run of version 1 did not ask."""
    if not row["flippable"]:
        return None
    return order(row["signed_log10_least"], row["signed_log10_most"])


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: the orders of its groups, and the median change under each transformation that was tried."""
    summary = tables["summary"]
    tried = [name for name in TRANSFORMATIONS if any(row[f"{name}_median"] is not None for row in summary)]
    signs = any(row["sign_changes"] for row in summary)
    rows = tuple(
        (
            row["label"],
            order(row["log10_least"], row["log10_most"]),
            *([signed_order(row) or "–"] if signs else []),
            *("–" if row[f"{name}_median"] is None else f"{row[f'{name}_median']:.1g}" for name in tried),
        )
        for row in summary
    )
    return Headline(
        columns=(
            "",
            "permu-\ntations",
            *(["with\nsigns"] if signs else []),
            *(HEADS[name] for name in tried),
        ),
        rows=rows,
        caption=(
            "Permutations of neurons that leave the function as it is, where neurons\n"
            "can change sign those with signs too; then relative changes of the outputs\n"
            "(medians, float64): neurons swapped, permuted, their signs changed, neurons\n"
            "rescaled, a layer before a norm scaled, its rows shifted."
        ),
    )
