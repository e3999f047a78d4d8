"""Flags of a union: the kind chooses, the kind's own flags follow, and a preset's settings of another kind go."""

from __future__ import annotations

from typing import Any

import pytest
from cyclopts import CycloptsError

from jobs.cli.command import app
from jobs.cli.errors import lines
from jobs.studies import lmc
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec


def spec_of(words: str, study: str = "lmc") -> Any:
    _, bound, _ = app.parse_args(f"run {study} {words}", exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return bound.arguments["spec"]


@pytest.mark.parametrize(
    ("words", "network"),
    [
        ("", MLPSpec()),
        ("--network.width 64", MLPSpec(width=64)),
        ("--network.kind mlp --network.activation relu", MLPSpec(activation="relu")),
        ("--network.kind resnet", ResNetSpec()),
        ("--network.kind resnet --network.width 8 --network.norm none", ResNetSpec(width=8, norm="none")),
        ("--network.kind resnet --network.depth 8 --network.width .875", ResNetSpec(depth=8, width=0.875)),
        ("--preset smoke --network.depth 4", MLPSpec(width=64, depth=4)),
        ("--preset smoke --network.kind resnet", ResNetSpec()),
    ],
)
def test_the_kind_chooses_the_network(words: str, network: MLPSpec | ResNetSpec) -> None:
    spec = spec_of(words)
    assert type(spec) is lmc.Spec
    assert spec.network == network


@pytest.mark.parametrize(
    ("words", "depth", "width"),
    [
        ("--preset paper", 20, 8),
        ("--preset paper --network.depth 14", 14, 8),
        ("--preset smoke", 8, 1),
        ("--preset smoke --network.depth 14", 14, 1),
        ("--preset paper --network.width 4", 20, 4),
    ],
)
def test_a_wide_study_stays_wide_unless_it_is_told(words: str, depth: int, width: int) -> None:
    network = spec_of(words, "lmc_resnet20x8").network
    assert (network.depth, network.width) == (depth, width)


def test_a_preset_keeps_what_another_kind_of_network_leaves_alone() -> None:
    smoke = lmc.PRESETS["smoke"]
    spec = spec_of("--preset smoke --network.kind resnet")
    assert spec == smoke.model_copy(update={"network": ResNetSpec()})


def test_a_presets_network_of_another_kind_than_the_default_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    small = lmc.Spec(network=ResNetSpec(depth=8))
    monkeypatch.setitem(lmc.PRESETS, "laptop", small)
    assert spec_of("--seed 0") == small


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--network.kind vit", "--network.kind vit: Input should be one of 'mlp', 'resnet'"),
        ("--network.width 1.5", "--network.width 1.5: Input should be a valid integer"),
        ("--network.kind resnet --network.depth 21", "--network.depth 21: 21 is not 6 n + 2; accepted: 8"),
        (
            "--network.kind resnet --network.norm layer",
            "--network.norm layer: Input should be 'group', 'batch' or 'none'",
        ),
        ("--network.norm group", "--network.norm group: Input should be 'layer', 'batch' or 'none'"),
        ("--network.kind resnet --network.activation relu", "--network.activation relu: Extra inputs"),
        ("--network.kind resnet --w.n-fix 1 2", "--w.n-fix 1 2: n_fix: got 2 numbers"),
    ],
)
def test_a_wrong_setting_is_told_at_its_flag(words: str, line: str) -> None:
    with pytest.raises(CycloptsError) as caught:
        spec_of(words)
    (told,) = lines(caught.value)
    assert told.startswith(line)
