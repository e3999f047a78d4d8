"""What studies have in common that set treatments of one form of network side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationInfo, model_validator

from jobs.designs import check_treatment, weight_matrices
from jobs.kinds import train
from jobs.specs import DataName, StudySpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.registry import NetworkSpec
from symcore.precision import Precision
from symcore.settings import is_stored
from symcore.training import TrainingSpec
from symcore.treatments import (
    AsymmetricInit,
    FixedBiases,
    SigmaAsymmetric,
    Standard,
    Syre,
    Treatment,
    WAsymmetric,
    WFiGLU,
)

NetworkName = Literal["standard", "sigma", "w", "w_figlu", "w0", "syre", "asym_init", "fixed_biases"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
"""Treatments for which networks are made, in the order in which people see them."""
PAPERS: tuple[NetworkName, ...] = ("standard", "sigma", "w")
"""Those that the paper compares throughout."""
SETTINGS_OF = {"w_figlu": "w", "w0": "w", "asym_init": "w"}
"""The field with the settings of a treatment that has none of its name."""
SEEDS_APART = 10_000
"""Seeds of one study stand next to each other; those of the next study seed begin this much later."""

LearningRate = Annotated[float, Field(gt=0, le=10)]


class ComparedSpec(StudySpec):
    """Base of such studies; each names the treatments that it knows."""

    data: DataName = "digits"
    """Data set: digits ships with the lab, the others are downloaded."""
    network: NetworkSpec = MLPSpec()
    """Form of every network."""
    treatments: tuple[str, ...]
    """What is compared."""
    w: WAsymmetric = WAsymmetric()
    """Settings of the W-Asymmetric networks; but for kappa those of w0, those of the start of asym_init, and those of the masks of w_figlu."""
    sigma: SigmaAsymmetric = SigmaAsymmetric()
    """Settings of the sigma-Asymmetric networks, and of the gates of w_figlu."""
    syre: Syre = Syre()
    """Settings of the syre networks."""
    fixed_biases: FixedBiases = FixedBiases()
    """Settings of the networks with fixed biases."""

    @model_validator(mode="after")
    def _treatments_fit(self, info: ValidationInfo) -> Self:
        if is_stored(info):
            return self
        check_treatment(type(self), (), self.network, self.data, Standard())
        for name, treatment in self.treatment_settings().items():
            if name in self.treatments:
                check_treatment(
                    type(self), (SETTINGS_OF.get(name, name),), self.network, self.data, treatment
                )
        return self

    def treatment_settings(self) -> dict[str, Treatment]:
        """The treatment behind each of `NETWORKS`."""
        masks = self.w.model_dump(exclude={"kind"})
        zeros = (0.0,) * len(weight_matrices(self.network, self.data))
        return {
            "standard": Standard(),
            "sigma": self.sigma,
            "w": self.w,
            "w_figlu": WFiGLU(**masks, std=self.sigma.std),
            "w0": self.w.model_copy(update={"kappa": zeros}),
            "syre": self.syre,
            "asym_init": AsymmetricInit(**masks),
            "fixed_biases": self.fixed_biases,
        }


class TrainedSpec(ComparedSpec):
    """Base of those that train networks, the same seeds for each treatment."""

    training: TrainingSpec = TrainingSpec()
    """How networks are trained."""
    sigma_learning_rate: LearningRate | None = None
    """The sigma-Asymmetric networks' own step size after the warm-up, which starts where that of the others does; none given: that of the others, which those of w_figlu have in any case."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds initialisation and shuffling of every network, the same for each treatment."""
    mask_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds masks, what is fixed, and FiGLU's gates."""
    precision: Precision = "float32"
    """Arithmetic of products; on a GPU tf32 is faster, and bfloat16 for convolutional networks."""

    def trained(self, name: str, networks: Iterable[int], masks: Iterable[int] = (0,)) -> train.Spec:
        """The run that trains some networks of one treatment.

        Args:
            name: One of `treatment_settings`.
            networks: Their numbers in the study, from which their seeds follow.
            masks: Numbers of their masks: one for all, or one each.
        """
        treatment = self.treatment_settings()[name]
        first = self.mask_seed * SEEDS_APART
        return train.Spec(
            data=self.data,
            network=self.network,
            treatment=treatment,
            training=self._training(treatment),
            seeds=tuple(self.seed * SEEDS_APART + network for network in networks),
            mask_seeds=() if isinstance(treatment, Standard) else tuple(first + mask for mask in masks),
            precision=self.precision,
        )

    def _training(self, treatment: Treatment) -> TrainingSpec:
        """The study's training, or with the treatment's own learning rate; a warm-up's first rate stays."""
        own, shared = self.sigma_learning_rate, self.training
        if own is None or not isinstance(treatment, SigmaAsymmetric):
            return shared
        start = min(1.0, shared.warmup_start * shared.learning_rate / own)
        return shared.model_copy(update={"learning_rate": own, "warmup_start": start})
