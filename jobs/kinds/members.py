"""What kinds have in common that look at single networks of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from jobs.designs import field_error
from jobs.job import Job
from jobs.specs import Member, RunSpec, SpecHash, refusal
from jobs.summaries import of_networks
from symcore.align.matching import are_finite
from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.metrics import Evaluator
from symcore.population import Population


def _once(members: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(members)) < len(members):
        msg = f"{list(members)} holds a network twice; accepted: each once"
        raise refusal(msg)
    return members


Members = Annotated[tuple[Member, ...], Field(min_length=1, max_length=10_000), AfterValidator(_once)]
"""Members of one population, by their place in it."""


def check_members(model: type[RunSpec], members: Sequence[int], source: SpecHash, networks: int) -> None:
    """Makes sure that the networks are among those trained.

    Raises:
        ValidationError: naming the field, its value and what is accepted.
    """
    if max(members) >= networks:
        msg = f"{list(members)} is not in source {source}; accepted: members 0 to {networks - 1}"
        raise field_error(model, ("members",), members, msg)


def check_finite(members: Sequence[int], trained: Population) -> None:
    """Makes sure that networks have a valley to look at: that of a diverged one has no place.

    Raises:
        ValueError: naming the networks whose weights are not finite.
    """
    members = sorted(set(members))
    weights = trained.select(members).parameters.values()
    finite = torch.stack([are_finite(weight) for weight in weights]).all(0).tolist()
    diverged = [member for member, fine in zip(members, finite, strict=True) if not fine]
    if diverged:
        msg = f"source: networks {diverged} diverged in training and have weights that are not finite; accepted: finite ones, as of a lower learning rate"
        raise ValueError(msg)


def check_gates(field: str, members: Sequence[int], trained: Population) -> None:
    """Makes sure that networks lie on one line or plane, whose points need one module: with other FiGLU gates they do not.

    Raises:
        ValueError: naming the field, the networks and their mask seeds.
    """
    if not trained.stacked or not trained.buffers:
        return
    seeds = [trained.design.mask_seeds[member] for member in members]
    if len(set(seeds)) > 1:
        msg = f"{field}: {list(members)} have different gates (mask seeds {seeds}); accepted: equal ones"
        raise ValueError(msg)


def summarised(
    trained: Population, members: Sequence[int], images: Dataset, splits: Sequence[str], job: Job
) -> dict[str, float]:
    """Loss and accuracy of some networks on splits of the images, as a run's summary tells them.

    Raises:
        StoppedError: if the job was asked to stop.
    """
    chosen = trained.select(members)
    evaluator = Evaluator(chosen.network, images, stacked_buffers=chosen.stacked, on_chunk=job.pause_point)
    found: dict[str, float] = {}
    for split, values in evaluator.on(splits, chosen.effective(), chosen.buffers).items():
        found |= of_networks(split, "of the networks", *values)
    return found


def single(stacked: Mapping[str, Tensor]) -> Parameters:
    """The only member's tensors, [1, *shape] -> [*shape]."""
    return {name: tensor[0] for name, tensor in stacked.items()}


def trainable(one: Population) -> Parameters | None:
    """The only member's D, whether it was its own, [1, *shape], or shared, [*shape]; none where all is trained."""
    if one.asymmetry is None:
        return None
    return {n: d.reshape(one.parameters[n].shape[1:]) for n, d in one.asymmetry.trainable.items()}
