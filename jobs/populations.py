"""What runs say that train a population: which networks, from which seeds, how."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator

from jobs.designs import check_treatment, field_error
from jobs.specs import DataRunSpec
from symcore.data.sources import SOURCES
from symcore.networks.registry import NetworkSpec
from symcore.population import Design
from symcore.precision import Precision
from symcore.settings import is_stored
from symcore.training import TrainingSpec
from symcore.treatments import Standard, Treatment

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class PopulationSpec(DataRunSpec):
    """Base of the kinds that train networks of one form from their own seeds."""

    network: NetworkSpec
    """Form of every network."""
    treatment: Treatment
    """What is done to the networks' symmetries."""
    training: TrainingSpec
    """How they are trained."""
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=10_000)
    """One per network; it seeds initialisation, shuffling and augmentation."""
    mask_seeds: tuple[Seed, ...] = ()
    """Seeds of masks, fixed weights and FiGLU's F: one for all networks or one each; none for standard networks."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""

    @model_validator(mode="after")
    def _networks_fit(self, info: ValidationInfo) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            msg = f"seeds: {list(self.seeds)} holds a seed twice; accepted: each seed once"
            raise field_error(type(self), ("seeds",), self.seeds, msg)
        accepted = (0,) if isinstance(self.treatment, Standard) else (1, len(self.seeds))
        if len(self.mask_seeds) not in accepted:
            msg = f"mask_seeds: got {len(self.mask_seeds)}; accepted: {' or '.join(map(str, dict.fromkeys(accepted)))}"
            raise field_error(type(self), ("mask_seeds",), self.mask_seeds, msg)
        if not is_stored(info):
            check_treatment(type(self), ("treatment",), self.network, self.data, self.treatment)
        if SOURCES[self.data].nodes and self.training.augment != "none":
            msg = f"{self.training.augment} changes images, and {self.data} is a graph; accepted: none"
            raise field_error(type(self), ("training", "augment"), self.training.augment, msg)
        return self

    def design(self) -> Design:
        """The population before training."""
        source = SOURCES[self.data]
        return Design(
            network=self.network,
            treatment=self.treatment,
            input_shape=source.input_shape,
            classes=source.classes,
            seeds=self.seeds,
            mask_seeds=self.mask_seeds or (0,),
        )
