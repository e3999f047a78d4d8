"""The approximate posteriors that a spec can name, as one union discriminated by `kind`.

Each is a module with its settings and two verbs: `begin(population, dataset, training, spec, precision)` gives a trainer,
which `symcore.training.fit` advances, and `posterior(trainer)` what has been learned.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors import dropout, elrg, ensemble, mean_field, sghmc, sgld, swag
from symcore.posteriors.dropout import DropoutSpec
from symcore.posteriors.elrg import ELRGSpec
from symcore.posteriors.ensemble import EnsembleSpec
from symcore.posteriors.mean_field import MeanFieldSpec
from symcore.posteriors.predict import Posterior
from symcore.posteriors.sghmc import SGHMCSpec
from symcore.posteriors.sgld import SGLDSpec
from symcore.posteriors.swag import SWAGSpec
from symcore.precision import Precision
from symcore.training import Trainer, TrainingSpec

Method = Annotated[
    ELRGSpec | MeanFieldSpec | SWAGSpec | EnsembleSpec | DropoutSpec | SGLDSpec | SGHMCSpec,
    Field(discriminator="kind"),
]
"""Union of the methods; a new one joins it here."""

_MODULES: dict[str, Any] = {
    "elrg": elrg,
    "mean_field": mean_field,
    "swag": swag,
    "ensemble": ensemble,
    "dropout": dropout,
    "sgld": sgld,
    "sghmc": sghmc,
}


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: Method,
    precision: Precision = "float32",
) -> Trainer:
    """A trainer of the posterior of each member, as a method has it."""
    trainer: Trainer = _MODULES[spec.kind].begin(population, dataset, training, spec, precision)
    return trainer


def posterior(trainer: Trainer, spec: Method) -> Posterior:
    """What a trainer that `begin` gave for the same method has learned so far."""
    learned: Posterior = _MODULES[spec.kind].posterior(trainer)
    return learned
