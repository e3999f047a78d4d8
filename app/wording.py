"""Numbers, times and specs as people say them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.charts.quantities import QUANTITIES
from jobs import registry
from symcore.data.sources import SOURCES
from symcore.networks import registered


def duration(seconds: float | None) -> str:
    """A length of time: 0.4 s, 42 s, 3 min 20 s, 2 h 05 min; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """A number of bytes in decimal units: 512 B, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def ago(time: datetime, now: datetime | None = None) -> str:
    """How long ago something was: just now, 5 min ago, 3 h ago, and after a day the date."""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 86_400:
        return f"{round(seconds / 3600)} h ago"
    return time.strftime("%-d %b %Y")


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 5 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def lines(number: int, noun: str) -> str:
    """What the lines of a chart are that has a line for each of several pairs or networks."""
    if number == 1:
        return f"One {noun}."
    return f"Mean over {number:,} {noun}s, band one sample standard deviation, hairlines single {noun}s."


def network(spec: Mapping[str, Any], data: str) -> str:
    """A network by its size: "MLP 64-128-128-128-10", "ResNet20, width 1", "GRU 64", "GNN 1433-256-256-7"; a person's own by its title."""
    if spec["kind"] == "recurrent":
        return f"{spec['cell'].upper()} {spec['width']}"
    if spec["kind"] == "resnet":
        return f"ResNet{spec['depth']}, width {spec['width']:g}"
    if spec["kind"] == "registered":
        return registered.title(spec["name"])
    if spec["kind"] not in {"mlp", "gnn"} or data not in SOURCES:
        return str(spec["kind"])
    source = SOURCES[data]
    inputs = 1
    for extent in source.input_shape:
        inputs *= extent
    sizes = [inputs, *[spec["width"]] * spec["depth"], source.classes]
    return f"{spec['kind'].upper()} {'-'.join(map(str, sizes))}"


def inputs(data: str) -> str:
    """What networks are evaluated on: a graph's nodes, else images."""
    return "nodes" if data in SOURCES and SOURCES[data].nodes else "images"


def data_title(name: str) -> str:
    """A data set by its title; one that this version does not know by its name."""
    return SOURCES[name].title if name in SOURCES else name


def study_title(title: str, spec: Mapping[str, Any]) -> str:
    """The person's name for a study, else a lone run's title, else its data set and network, else its kind."""
    if title:
        return title
    if spec["kind"] in registry.kinds():
        run = registry.run_spec(spec, stored=True)
        return registry.kind_of(run).title(run)
    if "data" in spec and "network" in spec:
        return f"{data_title(spec['data'])}, {network(spec['network'], spec['data'])}"
    return kind_title(spec["kind"])


def kind_title(kind: str) -> str:
    """A study's kind by its title, a run's by its name."""
    module = registry.studies().get(kind)
    return kind.capitalize() if module is None else str(module.Spec.title)


def headline(name: str, value: float, std: float | None = None) -> str:
    """A number of a run's summary, and its spread: "test accuracy 98.4 ± 0.3 %", others by their names."""
    if name == "certified trivial":
        return "certified without symmetry" if value else "not certified without symmetry"
    quantity = QUANTITIES.get(name.rpartition("/")[2].partition(" ")[0])
    factor, unit, digits = (
        1.0,
        next((f" {unit}" for unit, names in UNITS.items() if names.search(name)), ""),
        4,
    )
    if name.endswith("share"):
        factor, unit, digits = 100.0, " %", 3
    if quantity is not None:
        factor, unit, digits = quantity.factor, f" {quantity.unit}", 3
    spread = "" if std is None else f" ± {std * factor:.2g}"
    number = f"{value * factor:.{digits}g}{spread}{unit}"
    for part, said in SAID.items():
        name = name.replace(part, said)
    return f"{name.replace('/', ' ')} {number.replace('-', '−')}"


UNITS = {
    "nats per squared unit of weight": re.compile("eigenvalue|trace"),
    "nats": re.compile("barrier|loss|rise|nll|entropy"),
}
"""What numbers of a run's summary are called that have a unit, though they are no quantity of their own."""
SAID = {
    "/single, ": ", one layer alone, ",
    "/bottom, ": ", layers from the input, ",
    "/top, ": ", layers to the output, ",
    "/nll": " loss",
    "/ece": " ECE",
    "/adaptive_ece": " adaptive ECE",
    "/brier": " Brier score",
    "/auroc": " AUROC",
}
"""Parts of such names as people say them."""


def flat(spec: Mapping[str, Any], prefix: str = "", *, missing: str = "default") -> dict[str, str]:
    """A spec's settings by their dotted names, in its order; `missing` stands for null."""
    found: dict[str, str] = {}
    for name, value in spec.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.", missing=missing)
        else:
            found[path] = _setting(value) if value is not None else "none" if name in ABSENT else missing
    return found


ABSENT = {"alignment", "curve", "data", "outside"}
"""Settings that mean none where they are null, and no default."""


def _setting(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        parts = (f"({_setting(item)})" if isinstance(item, list) else _setting(item) for item in value)
        return ", ".join(parts) or "none"
    return str(value)


LABELS = {
    "w": "W-Asymmetric networks",
    "sigma": "σ-Asymmetric networks",
    "syre": "syre networks",
    "fixed_biases": "Networks with fixed biases",
    "bound": "Largest bias",
    "sigma_learning_rate": "Learning rate of σ-Asymmetric",
    "restarts": "Restarts of Git Re-Basin",
    "activations": "Activation matching",
    "straight_through": "Straight-through estimation",
    "sinkhorn": "Sinkhorn re-basin",
    "signs": "Sign flips",
    "form": "What is fixed",
    "n_fix": "Fixed weights per row",
    "kappa": "κ of fixed weights",
    "std": "Standard deviation of F",
    "points": "Points on a path",
    "pairs": "Pairs per treatment",
    "block": "Pairs per run",
    "mask_per_pair": "New masks for each pair",
    "networks": "Networks per treatment",
    "surfaces": "Random planes per treatment",
    "cells": "Cells along a side",
    "warmups": "Epochs of warm-up",
    "bounds": "Largest biases k",
    "n_fix_factors": "Factors of n_fix",
    "kappa_factors": "Factors of κ",
    "outside": "Other images",
    "samples": "Posterior draws",
}
"""Labels of fields whose names are the field's symbols; others are labelled by their names."""


def label(name: str) -> str:
    """A field's label."""
    return LABELS.get(name) or name.replace("_", " ").capitalize()
