"""What runs are said to cost is what they do: floating point operations counted while they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kind_tools import carried_out
from torch.utils.flop_counter import FlopCounterMode

from jobs import inputs
from jobs.kinds import curve, interpolate, layerwise, surface, train, valley
from jobs.registry import kind_of
from jobs.specs import RunSpec, spec_hash
from symcore.data import sources
from symcore.data.nodes import OUTSIDE
from symcore.data.published import OnBytes
from symcore.data.sources import SOURCES, Dataset, Split
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.program import Program
from symcore.propagation import graph_of
from symcore.training import TrainingSpec
from symcore.treatments import Standard

PAIRS = ((0, 1), (1, 2))
NETWORKS = {"digits": MLPSpec(width=16, depth=2, norm="none"), "cora": GNNSpec(width=6, depth=2)}
RUNS: dict[str, tuple[Callable[[dict[str, Any]], RunSpec], float]] = {
    "path": (lambda base: interpolate.Spec(**base, pairs=PAIRS, points=5, splits=("test",)), 0.999),
    "layers": (lambda base: layerwise.Spec(**base, pairs=PAIRS, points=3, splits=("train", "test")), 0.999),
    # the first layer's gradient with respect to images is not taken
    "curve": (
        lambda base: curve.Spec.model_validate(
            base | {"pairs": PAIRS, "points": 5, "splits": ("test",), "training": {"epochs": 4}}
        ),
        0.8,
    ),
    # on a slice or plane the first layer is computed for the networks that span it alone
    "slices": (
        lambda base: valley.Spec(**base, members=(0, 1), directions=("sign", "between"), draws=1, points=9),
        0.25,
    ),
    "surface": (lambda base: surface.Spec(**base, plane=surface.RandomPlane(), cells=5), 0.3),
}
"""Runs, and the least share of the estimate that is taken."""


def citations(name: str, folder: Path, _on_bytes: OnBytes) -> Dataset:
    """A graph of Cora's size with random words and edges; other data sets are themselves."""
    if name != "cora":
        return sources.load(name, folder)
    source, rng = SOURCES[name], np.random.default_rng(0)
    words = torch.from_numpy((rng.random((source.nodes, *source.input_shape)) < 0.01).astype(np.uint8))
    labels, order = rng.integers(source.classes, size=source.nodes), rng.permutation(source.nodes)
    splits, first = {}, 0
    for split, many in source.sizes.items():
        own = np.full(source.nodes, OUTSIDE)
        own[order[first : first + many]] = labels[order[first : first + many]]
        splits[split], first = Split(words, torch.from_numpy(own)), first + many
    edges = torch.from_numpy(rng.integers(source.nodes, size=(2, 5_000)))
    return Dataset(source, splits, graph_of(edges, source.nodes))


def counted(spec: RunSpec, folder: Path, inputs: dict[str, Path]) -> int:
    """Operations of the matrix products of a run, but for the calls in which programs are traced."""
    counter, trace = FlopCounterMode(display=False), Program.trace
    traced = 0

    def uncounted(self: Program, tensors: list[torch.Tensor]) -> Callable[..., Any]:
        nonlocal traced
        before = counter.get_total_flops()
        found = trace(self, tensors)
        traced += counter.get_total_flops() - before
        return found

    with pytest.MonkeyPatch.context() as patch, counter:
        patch.setattr(Program, "trace", uncounted)
        outcome = carried_out(spec, folder, inputs)
    assert outcome.state == "done", outcome.error
    return counter.get_total_flops() - traced


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[train.Spec, Path]]:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "load", citations)
        for data, network in NETWORKS.items():
            spec = train.Spec(
                data=data,
                network=network,
                treatment=Standard(),
                training=TrainingSpec(epochs=1),
                seeds=(0, 1, 2),
            )
            folder = tmp_path_factory.mktemp(data)
            assert carried_out(spec, folder, {}).state == "done"
            found[data] = spec, folder
    return found


@pytest.mark.parametrize("data", NETWORKS)
@pytest.mark.parametrize("name", RUNS)
def test_an_estimate_counts_what_the_run_does(
    name: str,
    data: str,
    trained: dict[str, tuple[train.Spec, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "load", citations)
    source, folder = trained[data]
    make, least = RUNS[name]
    spec = make({"data": data, "source": spec_hash(source)})
    said = kind_of(spec).estimate(spec, {spec_hash(source): source}).flop
    done = counted(spec, tmp_path, {spec_hash(source): folder})
    assert least * said <= done <= 1.001 * said


def test_a_graph_is_in_memory_whole() -> None:
    """One layer of a network of the large graph puts out more rows than are evaluated at once of images."""
    source = train.Spec(
        data="ogbn-arxiv",
        network=GNNSpec(width=64),
        treatment=Standard(),
        training=TrainingSpec(),
        seeds=(0, 1),
    )
    base = {"data": "ogbn-arxiv", "source": spec_hash(source)}
    for spec in (
        interpolate.Spec(**base, pairs=((0, 1),)),
        layerwise.Spec(**base, pairs=((0, 1),)),
        surface.Spec(**base, plane=surface.RandomPlane()),
        valley.Spec(**base, members=(0,), directions=("sign",)),
    ):
        found = kind_of(spec).estimate(spec, {spec_hash(source): source})
        assert found.bytes_memory > 4 * SOURCES["ogbn-arxiv"].nodes * 64
