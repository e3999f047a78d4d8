"""Linear mode connectivity of graph networks from training to results, on a made-up graph in place of Cora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kind_tools import study_tables

from jobs import inputs
from jobs.studies import lmc_gnn
from jobs.studies.lmc_recipe import LMCTreatment
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.data.nodes import OUTSIDE
from symcore.data.sources import SOURCES, Dataset, Split
from symcore.propagation import graph_of

NODES = 40


def citations(*_: object) -> Dataset:
    """A graph with as many words and classes as Cora; neighbours mostly have one class."""
    source, rng = SOURCES["cora"], np.random.default_rng(0)
    labels = rng.integers(source.classes, size=NODES)
    edges = np.argwhere(rng.random((NODES, NODES)) < np.where(labels[:, None] == labels, 0.3, 0.02)).T
    words = torch.from_numpy((rng.random((NODES, *source.input_shape)) < 0.01).astype(np.uint8))
    part = rng.permutation(NODES) % 3
    splits = {
        name: Split(words, torch.from_numpy(np.where(part == place, labels, OUTSIDE)))
        for place, name in enumerate(("train", "val", "test"))
    }
    return Dataset(source, splits, graph_of(torch.from_numpy(edges), NODES))


METHODS: tuple[LMCTreatment, ...] = (
    "rebasin",
    "rebasin_repair",
    "activations",
    "straight_through",
    "sinkhorn",
    "cycle",
)


def test_networks_are_trained_aligned_by_every_method_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "load", citations)
    short = {
        "straight_through": StraightThrough(steps=20),
        "sinkhorn": Sinkhorn(steps=50),
        "treatments": ("standard", *METHODS),
    }
    spec = lmc_gnn.PRESETS["smoke"].model_copy(update=short)
    roles, tables = study_tables(lmc_gnn, spec, tmp_path)
    found = lmc_gnn.results(spec, roles, tables)["summary"].to_pylist()
    test = {row["treatment"]: row for row in found if (row["split"], row["quantity"]) == ("test", "loss")}
    for method in METHODS:
        assert test[method]["endpoint"] == pytest.approx(test["standard"]["endpoint"], rel=1e-4)
        assert test[method]["barrier_midpoint"] < test["standard"]["barrier_midpoint"]
