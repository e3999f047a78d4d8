"""What a run reads: its data set on its device, and the networks that an upstream run kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from safetensors.torch import load_file

from jobs.job import Job
from jobs.specs import MaybeDataRunSpec
from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset, load
from symcore.landscape.valleys import mean
from symcore.population import Population
from symcore.population import load as load_population
from symcore.symmetry.permutations import derive, permute

PERMUTATIONS = "permutations.safetensors"
"""The file in an align run's folder that holds a permutation of every group for each pair."""
SIGNS = "signs/"
"""In front of a group's name in that file: -1 or 1 for each of its neurons, where they can change sign."""
WEIGHTS = "weights.safetensors"
"""The file in a train run's folder that holds its population."""


def dataset(spec: MaybeDataRunSpec, job: Job) -> Dataset:
    """The data set that a spec names, on the job's device; the job tells how far a download is.

    Raises:
        StoppedError: if the job was asked to stop while it downloaded; the next attempt goes on with the file.
        ValueError: if the spec was made for other bytes than this version reads.
        DataUnavailableError: if the files cannot be had.
    """
    assert spec.data is not None
    images = fetched(spec.data, job)
    if images.source.checksum != spec.data_checksum:
        msg = f"data_checksum: {spec.data_checksum}; accepted for {spec.data}: {images.source.checksum}"
        raise ValueError(msg)
    return images


def fetched(name: str, job: Job) -> Dataset:
    """A data set on the job's device; the job tells how far a download is.

    Raises:
        StoppedError: if the job was asked to stop while it downloaded; the next attempt goes on with the file.
        DataUnavailableError: if the files cannot be had.
    """
    before = job.latest

    def on_bytes(file: str, here: int, total: int) -> None:
        job.progress(before.done, before.total, _downloading(file, here, total))
        job.pause_point()

    images = load(name, job.data_folder, on_bytes)
    if job.latest is not before:
        job.progress(before.done, before.total, before.note)
    return images.to(job.device)


def _downloading(file: str, here: int, total: int) -> str:
    """How far a download is, in words; bytes are counted in millions."""
    places = 0 if max(here, total) >= 1e7 else 1
    done, whole = (f"{count / 1e6:.{places}f}" for count in (here, total))
    if total:
        return f"downloading {file}, {done} of {whole} MB"
    return f"downloading {file}, {done} MB" if here else f"downloading {file}"


def population(source: str, job: Job) -> Population:
    """The trained population of an upstream run.

    Raises:
        LookupError: if that run is not among the job's inputs.
        FileNotFoundError: if its weights were not kept.
    """
    return _kept(source, WEIGHTS, job)


def snapshot(epoch: int | Literal["*"]) -> str:
    """The file in a train run's folder that holds its population as it was after an epoch ("*": any) if it was kept."""
    number = epoch if epoch == "*" else f"{epoch:06d}"
    return f"snapshot-{number}.safetensors"


def average(source: str, members: Sequence[int], last: int, job: Job) -> Parameters:
    """Effective weights of some networks of an upstream run, averaged over their last snapshots and their end, [member, *shape].

    Raises:
        LookupError: if that run is not among the job's inputs.
        FileNotFoundError: if no snapshots were kept, and some are wanted.
    """
    before = snapshots(source, members, job, last).values() if last else ()
    each = [one.effective() for one in (*before, population(source, job).select(members))]
    return mean({name: torch.stack([one[name] for one in each]) for name in each[-1]})


def snapshots(
    source: str, members: Sequence[int], job: Job, last: int | None = None
) -> dict[int, Population]:
    """Some networks of an upstream run as they were before the end, by epoch in ascending order; the last few, or all.

    Raises:
        LookupError: if that run is not among the job's inputs.
        FileNotFoundError: if no snapshots were kept.
    """
    found = sorted(path.name for path in job.input(source).glob(snapshot("*")))
    if not found:
        msg = f"source: {job.input(source)} holds no snapshots; accepted: a train run that kept some"
        raise FileNotFoundError(msg)
    wanted = found if last is None else found[-last:]
    return {_epoch(name): _kept(source, name, job).select(members) for name in wanted}


def _epoch(name: str) -> int:
    """The epoch in the name of a snapshot's file."""
    return int(name.partition(".")[0].rpartition("-")[2])


def _kept(source: str, name: str, job: Job) -> Population:
    path = job.input(source) / name
    if not path.exists():
        msg = f"source: {path} does not exist; run {source} was kept without it"
        raise FileNotFoundError(msg)
    return load_population(path, job.device)


def aligned(b: Parameters, alignment: str | None, trained: Population, job: Job) -> Parameters:
    """The second networks of pairs, [pair, *shape], as an align run permutes them; as they are where there is none.

    Raises:
        LookupError: if that run is not among the job's inputs.
    """
    if alignment is None:
        return b
    symmetry = derive(trained.network, torch.zeros(2, *trained.design.input_shape, device=job.device))
    found = load_file(job.input(alignment) / PERMUTATIONS, device=str(job.device))
    signs = {name.removeprefix(SIGNS): s for name, s in found.items() if name.startswith(SIGNS)}
    return permute(b, symmetry, found, signs)


def check_members(pairs: tuple[tuple[int, int], ...], trained: Population) -> None:
    """Makes sure that every pair names members of the population.

    Raises:
        ValueError: naming the first pair that does not.
    """
    for pair in pairs:
        if max(pair) >= trained.size:
            msg = f"pairs: {list(pair)}; accepted: members 0 to {trained.size - 1}"
            raise ValueError(msg)
