"""Studies in which standard networks stand beside themselves aligned, by any of several methods."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from jobs.kinds import align, train
from jobs.specs import Pairs, spec_hash
from jobs.studies.compared import TrainedSpec
from symcore.align.activations import ActivationMatching
from symcore.align.cycle import CycleConsistent
from symcore.align.methods import Method
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.align.weights import WeightMatching

TreatmentName = Literal[
    "standard",
    "rebasin",
    "rebasin_unsigned",
    "activations",
    "straight_through",
    "sinkhorn",
    "cycle",
    "sigma",
    "w",
    "w_figlu",
    "w0",
    "syre",
    "asym_init",
    "fixed_biases",
]
ALL: tuple[TreatmentName, ...] = get_args(TreatmentName)
PAPERS: tuple[TreatmentName, ...] = ("standard", "rebasin", "sigma", "w")
"""Those that the paper compares."""


class AlignedSpec(TrainedSpec):
    """Base of such studies; of the methods those are used that `treatments` names."""

    restarts: int = Field(default=1, ge=1, le=1000)
    """Git Re-Basin's ascents, of which the best is kept; the paper uses one."""
    activations: ActivationMatching = ActivationMatching()
    """Settings of activation matching."""
    straight_through: StraightThrough = StraightThrough()
    """Settings of straight-through estimation."""
    sinkhorn: Sinkhorn = Sinkhorn()
    """Settings of Sinkhorn re-basin."""

    def methods(self) -> dict[TreatmentName, Method]:
        """The methods that are used, by the treatments that they make of standard networks."""
        known: dict[TreatmentName, Method] = {
            "rebasin": WeightMatching(restarts=self.restarts),
            "rebasin_unsigned": WeightMatching(restarts=self.restarts, signs=False),
            "activations": self.activations,
            "straight_through": self.straight_through,
            "sinkhorn": self.sinkhorn,
            "cycle": CycleConsistent(),
        }
        return {name: method for name, method in known.items() if name in self.treatments}

    def trains(self, name: str) -> bool:
        """Whether networks of one of `treatment_settings` are compared, as they are or aligned."""
        return name in self.treatments or (name == "standard" and bool(self.methods()))

    def aligned(self, name: str, trained: train.Spec, pairs: Pairs) -> dict[TreatmentName, align.Spec]:
        """The runs that align pairs of the networks of one treatment; only standard ones are aligned."""
        return {
            made: align.Spec(
                data=self.data if method.reads_images else None,
                method=method,
                source=spec_hash(trained),
                pairs=pairs,
                seed=self.seed,
            )
            for made, method in self.methods().items()
            if name == "standard"
        }
