"""Bayesian neural networks (Lim et al. 2024, section 4.2, table 2): posteriors of networks with symmetries and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, ValidationError, ValidationInfo, model_validator

from jobs.designs import field_error, masked_layers
from jobs.headline import Headline, Rows
from jobs.kinds import bayes
from jobs.specs import DataName, PlannedRun, in_order
from jobs.studies import bnn_results
from jobs.studies.bnn_results import Paper
from jobs.studies.compared import NETWORKS, NetworkName, TrainedSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.posteriors.elrg import ELRGSpec
from symcore.posteriors.methods import Method
from symcore.posteriors.predict import SAMPLES
from symcore.settings import is_stored
from symcore.training import TrainingSpec
from symcore.treatments import WAsymmetric


class Spec(TrainedSpec):
    """How well posteriors are learned, and how good their predictions are, treatment beside treatment."""

    title: ClassVar[str] = "Bayesian neural networks"

    kind: Literal["bnn"] = "bnn"
    treatments: Annotated[tuple[NetworkName, ...], in_order(NETWORKS)] = ("standard", "w")
    """What is compared."""
    method: Method = ELRGSpec()
    """How posteriors are approximated."""
    networks: int = Field(default=10, ge=1, le=1000)
    """Posteriors of each treatment, from networks of their own seeds."""
    block: int = Field(default=10, ge=1, le=1000)
    """Posteriors learned together as one run; raising `networks` later reuses the full blocks."""
    samples: int = Field(default=SAMPLES, ge=1, le=10_000)
    """Draws of the weights whose class probabilities the predictions at the end average."""
    outside: DataName | None = None
    """Data set of other images, whose test images predictions should be less sure of; larger ones are made smaller. None: that is not asked."""

    @model_validator(mode="after")
    def _outside_fits(self, info: ValidationInfo) -> Self:
        if is_stored(info):
            return self
        try:
            _learned(self, "standard", 0)
        except ValidationError as error:
            detail = error.errors()[0]
            at = tuple(str(part) for part in detail["loc"])
            raise field_error(Spec, at, detail["input"], detail["msg"]) from error
        return self


def _learned(spec: Spec, name: str, block: int) -> bayes.Spec:
    """The run that learns a block of one treatment's posteriors."""
    numbers = range(block * spec.block, min((block + 1) * spec.block, spec.networks))
    trained = spec.trained(name, numbers)
    return bayes.Spec(
        data=trained.data,
        network=trained.network,
        treatment=trained.treatment,
        training=trained.training,
        seeds=trained.seeds,
        mask_seeds=trained.mask_seeds,
        precision=trained.precision,
        method=spec.method,
        samples=spec.samples,
        outside=spec.outside,
    )


def expand(spec: Spec) -> list[PlannedRun]:
    """Block by block, all treatments of each."""
    return [
        PlannedRun(f"{name}/bayes/{block}", _learned(spec, name, block))
        for block in range(-(-spec.networks // spec.block))
        for name in spec.treatments
    ]


KAPPA = 0.5
"""Standard deviation of what the paper's W-Asymmetric Bayesian networks fix."""
FIXED = 8
"""Weights that its MLPs fix of each neuron."""
TEMPERATURE = 1 / 8
"""The authors' code has a divergence count a quarter where images are not mirrored, an eighth where they are."""


def _paper(network: NetworkSpec, n_fix: tuple[int, ...], rate: float, method: ELRGSpec, data: str) -> Spec:
    """A row of table 2; appendix E.2."""
    return Spec(
        data=data,
        network=network,
        w=WAsymmetric(n_fix=n_fix, kappa=(KAPPA,) * len(n_fix)),
        training=TrainingSpec(epochs=50, batch=250, learning_rate=rate, weight_decay=0, augment="crop_flip"),
        method=method,
        outside="cifar-100" if data == "cifar-10" else "cifar-10",
    )


def _mlp(depth: int) -> Spec:
    network = MLPSpec(width=256, depth=depth, activation="relu")
    method = ELRGSpec(log_variance=-10, precision=0.01, temperature=TEMPERATURE)
    return _paper(network, (FIXED,) * (depth + 1), 5e-4, method, "cifar-10")


def _resnet(depth: int, data: str = "cifar-10", **settings: object) -> Spec:
    """The paper fixes as much whatever the width, and on CIFAR-100 nothing of the last layer."""
    narrow = masked_layers(ResNetSpec(depth=depth), "cifar-10", WAsymmetric())
    fixed = [layer.n_fix for layer in narrow]
    last = fixed[-1] if data == "cifar-10" else 0
    method = ELRGSpec(log_variance=-12, precision=1, temperature=TEMPERATURE)
    network = ResNetSpec.model_validate({"depth": depth} | settings)
    return _paper(network, (*fixed[:-1], last), 1e-3, method, data)


PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=32, depth=2, activation="relu"),
        w=WAsymmetric(n_fix=(FIXED,) * 3, kappa=(KAPPA,) * 3),
        training=TrainingSpec(epochs=10, weight_decay=0, learning_rate=3e-3),
        method=ELRGSpec(temperature=0.25),
        networks=3,
        samples=10,
    ),
    "laptop": Spec(
        network=MLPSpec(width=64, depth=8, activation="relu"),
        w=WAsymmetric(n_fix=(FIXED,) * 9, kappa=(KAPPA,) * 9),
        training=TrainingSpec(epochs=60, weight_decay=0, learning_rate=1e-3),
        method=ELRGSpec(precision=0.01, temperature=0.25),
    ),
    "paper": _mlp(8),
    "mlp16": _mlp(16),
    "resnet20": _resnet(20),
    "resnet110": _resnet(110),
    "resnet20_batch": _resnet(20, "cifar-100", width=2, norm="batch"),
    "resnet20_layer": _resnet(20, "cifar-100", width=2),
}
"""Small networks on digits in seconds, and deep ones in minutes; then the rows of table 2: the MLPs with 8 and 16 hidden
layers and the ResNets on CIFAR-10, and ResNet20 twice as wide on CIFAR-100 with BatchNorm and with LayerNorm.
"""
PAPER: dict[str, Paper] = {
    preset: {
        treatment: dict(
            zip(("train_loss", "test_loss", "ece", "accuracy", "half_accuracy"), numbers, strict=True)
        )
        for treatment, numbers in (("standard", standard), ("w", w))
    }
    for preset, standard, w in (
        (
            "paper",
            ((1.34, 0.00), (1.24, 0.01), (0.039, 0.009), (0.5637, 0.0031), (0.5287, 0.002)),
            ((1.31, 0.01), (1.22, 0.01), (0.042, 0.009), (0.5708, 0.0050), (0.5415, 0.002)),
        ),
        (
            "mlp16",
            ((2.29, 0.02), (2.28, 0.03), (0.026, 0.017), (0.1354, 0.020), (0.1334, 0.027)),
            ((1.39, 0.01), (1.27, 0.01), (0.045, 0.009), (0.5516, 0.0044), (0.5142, 0.003)),
        ),
        (
            "resnet20",
            ((0.596, 0.01), (0.535, 0.03), (0.045, 0.007), (0.8198, 0.012), (0.7237, 0.010)),
            ((0.600, 0.02), (0.535, 0.01), (0.044, 0.004), (0.8194, 0.006), (0.7364, 0.015)),
        ),
        (
            "resnet110",
            ((0.803, 0.08), (0.706, 0.08), (0.052, 0.007), (0.7571, 0.028), (0.5985, 0.039)),
            ((0.745, 0.07), (0.658, 0.06), (0.049, 0.004), (0.7740, 0.024), (0.6320, 0.030)),
        ),
        (
            "resnet20_batch",
            ((1.68, 0.03), (1.57, 0.02), (0.078, 0.004), (0.5683, 0.0062), (0.4680, 0.009)),
            ((1.62, 0.02), (1.50, 0.03), (0.076, 0.006), (0.5840, 0.0062), (0.4929, 0.004)),
        ),
        (
            "resnet20_layer",
            ((1.97, 0.03), (1.88, 0.02), (0.090, 0.007), (0.5002, 0.0054), (0.3724, 0.011)),
            ((1.91, 0.03), (1.82, 0.02), (0.086, 0.006), (0.5120, 0.0047), (0.3903, 0.010)),
        ),
    )
}
"""Table 2 by preset: means and spreads over 10 seeds."""
MEASURED_BY_PAPER = ("data", "network", "training", "w", "method")
"""Settings that must be the paper's for its numbers to compare; the others change which networks, or how exactly."""
RECORDS = ("metric", "reliability_bin", "entropy_bin")


def _stated(spec: Spec) -> Iterator[Paper]:
    """The paper's numbers for networks that are made and trained so."""
    for preset, numbers in PAPER.items():
        if all(getattr(spec, name) == getattr(PRESETS[preset], name) for name in MEASURED_BY_PAPER):
            yield numbers


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: tables "summary", "networks", "curves", "reliability" and "entropies".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: those of `RECORDS` with a `run` column.
    """
    metric, bins, entropy = (bnn_results.named(tables[name], roles, spec.block) for name in RECORDS)
    each = bnn_results.networks(metric, spec.training.epochs)
    return {
        "summary": bnn_results.summary(each, next(_stated(spec), {})),
        "networks": each,
        "curves": bnn_results.curves(metric),
        "reliability": bnn_results.reliabilities(bins),
        "entropies": bnn_results.histograms(entropy),
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: losses, calibration, accuracy at the end and halfway."""
    return bnn_results.headline(tables["summary"])
