"""Linear mode connectivity of graph networks from training to results, on a made-up graph in place of Cora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kind_tools import study_tables

from jobs import inputs
from jobs.studies import lmc_gnn, valleys
from jobs.studies.lmc_recipe import LMCTreatment
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.data.nodes import OUTSIDE
from symcore.data.sources import SOURCES, Dataset, Split
from symcore.networks.gnn import GNNSpec
from symcore.propagation import graph_of
from symcore.training import TrainingSpec

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


def test_valleys_and_curvature_are_those_of_the_whole_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one network or three the curvature is the same, so a graph is never cut."""
    monkeypatch.setattr(inputs, "load", citations)
    spec = valleys.Spec(
        data="cora",
        network=GNNSpec(width=4, depth=2),
        training=TrainingSpec(epochs=5),
        treatments=("standard",),
        networks=2,
        directions=("uniform", "average", "norms", "others"),
        draws=1,
        points=9,
        eigenvalues=1,
        steps=6,
        probes=4,
    )
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    found = valleys.results(spec, *study_tables(valleys, spec, together))
    assert {row["direction"] for row in found["valleys"].to_pylist()} == set(spec.directions)
    monkeypatch.setattr("jobs.kinds.curvature.ROWS", {"cpu": 1})
    apart = valleys.results(spec, *study_tables(valleys, spec, alone))["curvature"].to_pandas()
    np.testing.assert_allclose(apart["value"], found["curvature"].to_pandas()["value"], rtol=1e-3)
