"""What studies have in common that set treatments of one form of network side by side."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from jobs.designs import check_treatment
from jobs.specs import DataName, StudySpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.registry import NetworkSpec
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric


class ComparedSpec(StudySpec):
    """Base of such studies; each names the treatments that it knows."""

    data: DataName = "digits"
    """Data set: digits ships with the lab, the others are downloaded."""
    network: NetworkSpec = MLPSpec()
    """Form of every network."""
    treatments: tuple[str, ...]
    """What is compared."""
    w: WAsymmetric = WAsymmetric()
    """Settings of the W-Asymmetric networks."""
    sigma: SigmaAsymmetric = SigmaAsymmetric()
    """Settings of the sigma-Asymmetric networks."""

    @model_validator(mode="after")
    def _treatments_fit(self) -> Self:
        for name, treatment in self.treatment_settings().items():
            if name in self.treatments or name == "standard":
                check_treatment(type(self), (name,), self.network, self.data, treatment)
        return self

    def treatment_settings(self) -> dict[str, Treatment]:
        """The treatment behind each name for which networks are made, in the order in which people see them."""
        return {"standard": Standard(), "sigma": self.sigma, "w": self.w}
