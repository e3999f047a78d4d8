"""Posteriors as runs: what is told of them is what was kept, whatever interrupts them, and what cannot be is refused first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kind_tools import carried_out, records
from pydantic import ValidationError

from jobs import memory
from jobs.kinds import bayes
from symcore.data import sources
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import build
from symcore.posteriors import methods
from symcore.posteriors.dropout import DropoutSpec
from symcore.posteriors.elrg import ELRGSpec
from symcore.posteriors.ensemble import EnsembleSpec
from symcore.posteriors.mean_field import MeanFieldSpec
from symcore.posteriors.methods import Method
from symcore.posteriors.predict import predict
from symcore.posteriors.scores import entropies, score
from symcore.posteriors.sghmc import SGHMCSpec
from symcore.posteriors.sgld import SGLDSpec
from symcore.posteriors.swag import SWAGSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard, Treatment, WAsymmetric


def spec(treatment: Treatment = WAsymmetric(), **change: Any) -> bayes.Spec:  # noqa: B008 - it is immutable
    settings: dict[str, Any] = {
        "data": "digits",
        "network": MLPSpec(width=16, depth=1),
        "treatment": treatment,
        "training": TrainingSpec(epochs=4, weight_decay=0, learning_rate=3e-3),
        "seeds": (0, 1),
        "mask_seeds": () if isinstance(treatment, Standard) else (0,),
        "method": ELRGSpec(rank=2, temperature=0.1),
        "samples": 4,
        "outside": "digits-noisy",
    }
    return bayes.Spec(**settings | change)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bayes")
    assert carried_out(spec(), folder, {}).state == "done"
    return folder


def finals(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in records(folder, "metric").to_pylist():
        if row["name"].startswith("final/"):
            found.setdefault(row["name"].removeprefix("final/"), []).append(row["value"])
    return found


def test_what_is_told_is_what_the_kept_posterior_predicts(done: Path) -> None:
    told, given = finals(done), spec()
    names = {path.name for path in done.iterdir()}
    assert {"weights.safetensors", bayes.POSTERIOR} <= names
    assert "checkpoint.safetensors" not in names
    images = sources.load("digits", done)
    trainer = methods.begin(build(given.design()), images, given.training, given.method)
    trainer.restore(done / bayes.POSTERIOR)
    kept = methods.posterior(trainer, given.method)
    predicted = predict(kept, Evaluator(kept.population.network, images), "test", given.samples)
    scores = score(predicted, images.splits["test"].labels)
    for name, values in vars(scores).items():
        np.testing.assert_allclose(told[f"test/{name}"], values, rtol=1e-5)
    assert min(told["test/accuracy"]) > 0.5
    assert min(told["outside/auroc"]) > 0.4, "they are images of the same digits"
    assert max(told["outside/auroc"]) < 0.6
    bins = records(done, "entropy_bin").to_pandas()
    tested = bins[bins["split"] == "test"]
    assert tested.groupby("member")["images"].sum().tolist() == [497, 497]
    middle = (tested["lower"] + tested["upper"]) / 2
    rough = (middle * tested["images"]).groupby(tested["member"]).sum() / 497
    np.testing.assert_allclose(rough, entropies(predicted).mean(-1), atol=np.log(10) / bayes.ENTROPY_BINS)


FAST = TrainingSpec(epochs=6, weight_decay=0, learning_rate=1e-2)
SGD = TrainingSpec(epochs=6, weight_decay=0, learning_rate=0.2, optimizer="sgd", momentum=0)
METHODS: dict[str, tuple[Method, TrainingSpec]] = {
    "mean_field": (
        MeanFieldSpec(temperature=0.1),
        TrainingSpec(epochs=4, weight_decay=0, learning_rate=3e-3),
    ),
    "swag": (SWAGSpec(start=3, rank=2), FAST),
    "ensemble": (EnsembleSpec(networks=3), FAST),
    "dropout": (DropoutSpec(), FAST),
    "sgld": (SGLDSpec(burn_in=3, temperature=0.1), SGD),
    "sghmc": (
        SGHMCSpec(burn_in=3, temperature=0.1),
        SGD.model_copy(update={"momentum": 0.9, "learning_rate": 0.01}),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_run_whose_kept_posterior_predicts_what_is_told(name: str, tmp_path: Path) -> None:
    method, training = METHODS[name]
    given = spec(method=method, training=training, outside=None)
    outcome = carried_out(given, tmp_path, {})
    assert outcome.state == "done", outcome.error
    told, images = finals(tmp_path), sources.load("digits", tmp_path)
    assert min(told["test/accuracy"]) > 0.5
    trainer = methods.begin(build(given.design()), images, training, method)
    trainer.restore(tmp_path / bayes.POSTERIOR)
    kept = methods.posterior(trainer, method)
    predicted = predict(kept, Evaluator(kept.population.network, images), "test", given.samples)
    np.testing.assert_allclose(
        told["test/nll"], score(predicted, images.splits["test"].labels).nll, rtol=1e-5
    )


def test_the_diagram_and_the_number_are_one(done: Path) -> None:
    bins = records(done, "reliability_bin").to_pandas()
    gaps = (bins["images"] * (bins["accuracy"] - bins["confidence"]).abs()).fillna(0)
    found = gaps.groupby(bins["member"]).sum() / bins.groupby("member")["images"].sum()
    np.testing.assert_allclose(found, finals(done)["test/ece"], rtol=1e-6)


def test_a_stopped_run_goes_on_and_records_the_same(done: Path, tmp_path: Path) -> None:
    assert carried_out(spec(), tmp_path, {}, stop_at=3).state == "interrupted"
    assert carried_out(spec(), tmp_path, {}).state == "done"
    for table in ("metric", "reliability_bin", "entropy_bin"):
        assert str(records(tmp_path, table).to_pydict()) == str(records(done, table).to_pydict()), table


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda _device: 1_000)
    monkeypatch.setattr(bayes, "build", None)
    outcome = carried_out(spec(), tmp_path, {})
    assert outcome.state == "failed"
    told = outcome.error or ""
    assert "memory: the run takes about" in told
    assert "1e-06 GB are free on cpu; accepted: fewer seeds" in told


def test_more_directions_take_more_time_and_memory() -> None:
    few, many = (bayes.estimate(spec(method=ELRGSpec(rank=rank)), {}) for rank in (1, 8))
    assert many.flop > 2 * few.flop
    assert many.bytes_memory > 2 * few.bytes_memory


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"outside": "cora"}, "outside", "no images that a network for digits could read"),
        ({"outside": "digits"}, "outside", "accepted: none, digits-noisy, mnist, fashion-mnist"),
        ({"method": {"kind": "elrg", "rank": 0}}, "method.rank", "greater than or equal to 1"),
        ({"method": SWAGSpec(start=3)}, "method.start", "accepted: 0 to 2"),
        ({"method": SGLDSpec()}, "method.burn_in", "leaves no draw in 4 epochs"),
        ({"method": SGLDSpec(burn_in=1)}, "training.optimizer", "takes no steps of SGLD; accepted: 'sgd'"),
        ({"outside_checksum": "another"}, "outside_checksum", "'another' is not the content of digits-noisy"),
        ({"seeds": (1, 1)}, "seeds", "each seed once"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        spec(**change)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == field
