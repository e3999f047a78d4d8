"""What kinds have in common that join the two networks of each pair: settings, checks, and the networks themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from safetensors.torch import load_file

from jobs.designs import field_error
from jobs.inputs import PERMUTATIONS, SIGNS, check_members, population
from jobs.job import Job
from jobs.kinds.align import Spec as AlignSpec
from jobs.kinds.align import check_data, trained_source
from jobs.kinds.members import check_gates
from jobs.specs import DataRunSpec, Pairs, RunSpec, SpecHash
from symcore.asymmetry import Parameters
from symcore.population import Population
from symcore.symmetry.permutations import derive, permute


class PairsSpec(DataRunSpec):
    """Base of such kinds."""

    source: SpecHash
    """The train run whose networks are the endpoints."""
    alignment: SpecHash | None = None
    """The align run whose permutations are applied to the second networks; none: they are taken as they are."""
    pairs: Pairs
    """Members (a, b) of each pair: the path goes from a to b."""

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run if there is one."""
        return (self.source,) if self.alignment is None else (self.source, self.alignment)


def check_ends(spec: PairsSpec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the runs which are read fit: the networks exist, on this data, and are aligned pair by pair.

    Args:
        spec: the run.
        upstream: specs of the runs that it reads, as far as they are known.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(type(spec), spec.source, spec.pairs, upstream)
    if source is not None:
        check_data(type(spec), spec.data, spec.source, source)
    aligned = upstream.get(spec.alignment) if spec.alignment else None
    if aligned is None:
        return
    if not isinstance(aligned, AlignSpec) or (aligned.source, aligned.pairs) != (spec.source, spec.pairs):
        msg = f"{spec.alignment} does not align these pairs of source {spec.source}; accepted: an align run that does"
        raise field_error(type(spec), ("alignment",), spec.alignment, msg)


def ends(spec: PairsSpec, job: Job) -> tuple[Population, Parameters, Parameters]:
    """The first network of each pair, with the masks and buffers that the pair shares, and the weights of both.

    Returns:
        The first networks, and effective weights of the first and (permuted) second networks, [pair, *shape].

    Raises:
        ValueError: if a pair's networks are not there, or differ in what is not trained.
    """
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)
    for pair in spec.pairs:
        check_gates("pairs", pair, trained)
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    first, second = trained.select(firsts), trained.select(seconds).effective()
    return first, first.effective(), _permuted(second, trained, spec, job)


def _permuted(b: Parameters, trained: Population, spec: PairsSpec, job: Job) -> Parameters:
    if spec.alignment is None:
        return b
    symmetry = derive(trained.network, torch.zeros(2, *trained.design.input_shape, device=job.device))
    found = load_file(job.input(spec.alignment) / PERMUTATIONS, device=str(job.device))
    signs = {name.removeprefix(SIGNS): s for name, s in found.items() if name.startswith(SIGNS)}
    return permute(b, symmetry, found, signs)


def watch(job: Job, pairs: int, splits: Sequence[str], index: int) -> Callable[[int], None]:
    """What reports the pairs done on the split at `index`, and stops where that is asked for."""

    def on_pairs(done: int) -> None:
        job.progress(index * pairs + done, len(splits) * pairs, f"{splits[index]} split")
        job.pause_point()

    return on_pairs
