"""A registered network goes through real runs, and its results outlive it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeExecutor
from kind_tools import study_tables
from pydantic import ValidationError

from jobs import registry
from jobs.service import Service
from jobs.specs import spec_hash
from jobs.studies import landscape, lmc, symmetry
from symcore.networks import registered

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-networks.md"
SKIP = """

class Skip(nn.Module):
    def __init__(self, inputs, classes, width):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.activation1, self.activation2 = nn.GELU(), nn.GELU()
        self.readout = nn.Linear(width, classes)

    def forward(self, x):
        h = self.activation1(self.first(x.flatten(1)))
        return self.readout(h + self.activation2(self.second(h)))


def skip(input_shape, classes, *, width=16):
    return Skip(input_shape[0] * input_shape[1], classes, width)


register("skip", skip)


class LeNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 6, 5, padding=2)
        self.linear1, self.linear2, self.linear3 = nn.Linear(24, 16), nn.Linear(16, 12), nn.Linear(12, classes)
        self.pool, self.activations = nn.MaxPool2d(2), nn.ModuleList(nn.ReLU() for _ in range(4))

    def forward(self, x):
        first, second, third, fourth = self.activations
        x = self.pool(first(self.conv1(x.unsqueeze(1))))
        x = self.pool(second(self.conv2(x)))
        x = third(self.linear1(x.view(x.size(0), -1)))
        return self.linear3(fourth(self.linear2(x)))


register("lenet", lambda _shape, classes: LeNet(classes))
"""

FILTERS = "self.filters = nn.Parameter(torch.randn(2 * channels, channels, 3, 3))"

NODES = """
from torch import nn
from symcore.networks.gnn import GNNSpec
from symcore.networks.registry import register

register("linear", lambda shape, classes: nn.Sequential(nn.Linear(shape[0], 8), nn.ReLU(), nn.Linear(8, classes)))
register("graph", lambda shape, classes: GNNSpec(width=8, norm="none").build(shape, classes))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the documentation shows, and further networks."""
    path = tmp_path / "nets.py"
    shown = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    path.write_text(shown[0] + SKIP)
    name(path, monkeypatch)
    return path


def name(path: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names a file in the environment, or none, as a fresh process sees it."""
    monkeypatch.setenv(registered.VARIABLE, "" if path is None else str(path))
    monkeypatch.setattr(registered, "_registrations", {})
    monkeypatch.setattr(registered, "_imported", set())


NETWORK = {"kind": "registered", "name": "conv-net", "settings": {"channels": 4}}
STUDY: dict[str, Any] = {"kind": "lmc", "network": NETWORK, "pairs": 1}


def test_runs_hold_the_codes_checksum_and_studies_do_not(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = registry.study_spec(STUDY)
    assert isinstance(spec, lmc.Spec)
    first = {run.role: run.spec for run in lmc.expand(spec)}
    nets.write_text(nets.read_text() + "# changed\n")
    name(nets, monkeypatch)
    second = {run.role: run.spec for run in lmc.expand(registry.study_spec(STUDY))}
    assert all(spec_hash(first[role]) != spec_hash(run) for role, run in second.items())
    old = first["w/train/0"].model_dump()
    with pytest.raises(ValidationError, match="is not the code that this process has of 'conv-net'"):
        registry.run_spec(old)
    assert registry.run_spec(old, stored=True) == first["w/train/0"]


def test_what_was_fixed_in_the_order_of_registration_is_another_version(nets: Path) -> None:
    del nets
    runs = {run.role: run.spec for run in lmc.expand(registry.study_spec(STUDY))}
    assert [runs[f"{name}/train/0"].version for name in ("standard", "sigma", "w")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("network", "at", "words"),
    [
        ({"name": "convnet"}, ("network", "name"), "accepted: conv-net, skip"),
        ({"settings": {"chanels": 3}}, ("network", "settings"), "accepted: arguments of conv-net"),
        ({"settings": {"channels": 0.5}}, ("network",), "it cannot be built"),
    ],
)
@pytest.mark.usefixtures("nets")
def test_a_wrong_network_is_refused_before_anything_is_queued(
    network: dict[str, Any], at: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.study_spec(STUDY | {"network": NETWORK | network})
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert words in error["msg"]


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("self.activation1", "an activation module of its own for each layer"),
        ("torch.relu", r"aten\.relu in the network itself: hidden activations"),
    ],
    ids=["shared by layers", "function"],
)
def test_activations_that_figlu_cannot_take_the_place_of_are_refused_with_it(
    called: str, words: str, nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets.write_text(nets.read_text().replace("self.activation2(self.conv2(x))", f"{called}(self.conv2(x))"))
    name(nets, monkeypatch)
    assert registry.study_spec(STUDY | {"treatments": ["standard", "w"]})
    with pytest.raises(ValidationError, match=words):
        registry.study_spec(STUDY)


def test_hidden_maps_that_repair_cannot_correct_are_refused_with_it(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets.write_text(
        nets.read_text()
        .replace("self.conv2(x)", "nn.functional.conv2d(x, self.filters, padding=1)")
        .replace("self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)", FILTERS)
    )
    name(nets, monkeypatch)
    assert registry.study_spec(STUDY)
    with pytest.raises(
        ValidationError, match=r"repair: filters are weights .* accepted: .* modules"
    ) as caught:
        registry.study_spec(STUDY | {"treatments": ["rebasin_repair"]})
    assert caught.value.errors()[0]["loc"] == ("treatments",)


def test_a_network_that_would_never_see_a_graphs_edges_is_refused(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets.write_text(NODES)
    name(nets, monkeypatch)
    of_nodes = {"kind": "lmc", "network": {"kind": "registered", "name": "linear"}, "data": "cora"}
    with pytest.raises(
        ValidationError, match=r"'linear': it would never be given the edges of cora; accepted: .*GNN"
    ):
        registry.study_spec(of_nodes)
    assert registry.study_spec(of_nodes | {"network": {"kind": "registered", "name": "graph"}})


def test_a_study_can_be_looked_at_when_its_network_is_gone(
    nets: Path, tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nets
    with Service(tmp_path / "lab", executor=executor, grace=0.3) as lab:
        study = lab.submit(STUDY)
        name(None, monkeypatch)
        assert lab.results(study)["summary"].num_rows == 0
        assert lab.study_progress(study).fraction == 0
        with pytest.raises(ValidationError, match=r"accepted: none \(SYMLAB_NETWORKS names no file\)"):
            lab.submit(STUDY)


SKIP_NETWORK = {"kind": "registered", "name": "skip"}
SHORT = {"network": SKIP_NETWORK, "training": {"epochs": 2}}


@pytest.mark.usefixtures("nets")
def test_every_treatment_alignment_surfaces_and_the_inspector_work_with_it(tmp_path: Path) -> None:
    spec = lmc.Spec.model_validate(lmc.PRESETS["smoke"].model_dump() | SHORT | {"pairs": 1})
    summary = lmc.results(spec, *study_tables(lmc, spec, tmp_path))["summary"].to_pylist()
    assert {row["treatment"] for row in summary} == {"standard", "rebasin", "sigma", "w"}
    endpoints = {row["treatment"]: row["endpoint"] for row in summary if row["quantity"] == "loss"}
    assert endpoints["rebasin"] == pytest.approx(endpoints["standard"], rel=1e-5)
    change = SHORT | {"cells": 5, "treatments": ["w"]}
    surfaces = landscape.Spec.model_validate(landscape.PRESETS["smoke"].model_dump() | change)
    study_tables(landscape, surfaces, tmp_path)
    inspected = symmetry.Spec.model_validate(
        symmetry.PRESETS["smoke"].model_dump() | {"network": SKIP_NETWORK}
    )
    study_tables(symmetry, inspected, tmp_path)


@pytest.mark.slow
def test_the_command_and_its_workers_know_it(nets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    words = ["--preset", "smoke", "--treatments", "w", "--pairs", "1", "--training.epochs", "2"]
    chosen = ["--network.kind", "registered", "--network.name", "skip", "--lab", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "run", "lmc", *words, *chosen],
        env=os.environ | {registered.VARIABLE: str(nets), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "W-Asymmetric" in done.stdout
