"""Times, sizes and specs are said in short and plain words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import wording
from jobs.kinds import train
from jobs.studies import lmc
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_have_the_precision_that_matters(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(512, "512 B"), (1500, "1.5 kB"), (99_600, "100 kB"), (999_600, "1.0 MB"), (2.5e13, "25.0 TB")],
)
def test_sizes_are_in_decimal_units(count: float, text: str) -> None:
    assert wording.size(count) == text


@pytest.mark.parametrize(
    ("past", "text"),
    [
        (timedelta(seconds=3), "just now"),
        (timedelta(seconds=50), "1 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=3), "21 Nov 2026"),
    ],
)
def test_the_past_is_told_from_now(past: timedelta, text: str) -> None:
    assert wording.ago(NOW - past, NOW) == text


def test_a_study_is_named_by_its_data_and_layers_unless_it_has_a_name() -> None:
    spec = lmc.PRESETS["paper"].model_dump(mode="json")
    assert wording.study_title("", spec) == "MNIST, MLP 784-512-512-512-10"
    assert wording.study_title("Width sweep", spec) == "Width sweep"
    run = lmc.expand(lmc.PRESETS["paper"])[0].spec
    assert wording.study_title("", run.model_dump(mode="json")) == train.title(run)


def test_a_network_is_named_by_its_kind_and_size() -> None:
    for network, name in [
        (MLPSpec(width=16, depth=2), "MLP 64-16-16-10"),
        (ResNetSpec(), "ResNet20, width 1"),
        (RecurrentSpec(cell="gru"), "GRU 64"),
        (ResNetSpec(depth=8, width=0.875), "ResNet8, width 0.875"),
    ]:
        assert wording.network(network.model_dump(mode="json"), "digits") == name


def test_settings_are_listed_by_their_dotted_names() -> None:
    spec = {"a": {"b": 1.0, "c": None}, "alignment": None, "pairs": [[0, 1], [2, 3]], "on": True, "none": []}
    assert wording.flat(spec) == {
        "a.b": "1",
        "a.c": "default",
        "alignment": "none",
        "pairs": "(0, 1), (2, 3)",
        "on": "yes",
        "none": "none",
    }


def test_headlines_carry_units() -> None:
    assert wording.headline("test/accuracy", 0.984) == "test accuracy 98.4 %"
    assert wording.headline("train/loss", 0.000246) == "train loss 0.000246 nats"
    assert wording.headline("test/barrier at midpoint", -0.0125) == "test barrier at midpoint −0.0125 nats"
    assert wording.headline("objective", 12.0) == "objective 12"
    assert wording.headline("midpoint/trace", 1296.0) == "midpoint trace 1296 nats per squared unit of weight"
    assert wording.headline("test/flat share", 0.09524) == "test flat share 9.52 %"
    assert wording.headline("test/nll", 0.2059, 0.01) == "test loss 0.2059 ± 0.01 nats"
    assert wording.headline("test/adaptive_ece", 0.05) == "test adaptive ECE 0.05"


def test_headlines_say_in_words_what_their_names_stand_for() -> None:
    rise = wording.headline("test/bottom, highest rise midway", 0.0462)
    assert rise == "test, layers from the input, highest rise midway 0.0462 nats"
    assert wording.headline("certified trivial", 1.0) == "certified without symmetry"
    assert wording.headline("certified trivial", 0.0) == "not certified without symmetry"
