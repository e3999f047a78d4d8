"""Studies in which standard networks stand beside themselves aligned, by any of several methods."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from jobs.kinds import align, train
from jobs.specs import Pairs, in_order, spec_hash
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

    treatments: Annotated[tuple[TreatmentName, ...], in_order(ALL)] = PAPERS
    """What is compared: standard networks, the same aligned by Git Re-Basin, sigma- and W-Asymmetric networks, as in the paper; standard ones aligned without sign flips (rebasin_unsigned), by activation matching, straight-through estimation, Sinkhorn re-basin, or into one order for all (cycle); W-Asymmetric ones with zeros fixed (w0), with small offsets (syre), only the start W-Asymmetric (asym_init), or fixed biases."""
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
