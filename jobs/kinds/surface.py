"""The surface kind: loss and accuracy on a plane of weights: around one network, through three, or along a training run.

Cells are evaluated coarse to fine, so that the first records already make a picture; a stopped run goes on from the
cells that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from jobs.designs import field_error, rows_together, size
from jobs.estimates import Estimate
from jobs.inputs import dataset, population
from jobs.job import Job
from jobs.kinds import surface_trajectory
from jobs.kinds.align import check_data, trained_source
from jobs.kinds.interpolate import Split
from jobs.kinds.members import check_gates, single, trainable
from jobs.kinds.surface_survey import BATCH, Section, Survey
from jobs.kinds.surface_trajectory import Run, TrajectoryPlane
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import DataRunSpec, Member, RunSpec, SpecHash, refusal
from jobs.summaries import of_networks
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES
from symcore.landscape.planes import plane_through, random_plane
from symcore.landscape.surfaces import subset
from symcore.metrics import Array, Evaluator, barrier_midpoint
from symcore.population import Population
from symcore.precision import Precision, arithmetic
from symcore.settings import Settings


def _odd(cells: int) -> int:
    if cells % 2 == 0:
        msg = f"{cells} is even, so that no cell lies in the middle; accepted: an odd number from 5"
        raise refusal(msg)
    return cells


def _distinct(members: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(set(members)) < len(members):
        msg = f"{list(members)} holds a network twice; accepted: three networks"
        raise refusal(msg)
    return members


Side = Annotated[int, Field(ge=5, le=201), AfterValidator(_odd)]
"""Cells along a side of a surface; odd, so that one lies in the middle."""
Span = Annotated[float, Field(gt=0, le=100)]
Margin = Annotated[float, Field(ge=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Images = Annotated[int, Field(ge=0, le=10_000_000)]


class RandomPlane(Settings):
    """The plane around one network along two random, filter-normalised directions (Li et al. 2018, section 4)."""

    kind: Literal["random"] = "random"
    member: Member = 0
    """The network in the middle."""
    seed: Seed = 0
    """Seeds the two directions; the same for two networks makes their surfaces comparable."""
    span: Span = 1.0
    """Distance from the middle to each edge; at 1 a direction is as long as the network's own filters."""


class ThroughPlane(Settings):
    """The plane through three networks (Garipov et al. 2018, section 3); lengths in distances between a and b."""

    kind: Literal["through"] = "through"
    members: Annotated[tuple[Member, Member, Member], AfterValidator(_distinct)] = (0, 1, 2)
    """The networks a at (0, 0), b at (1, 0) and c above the line between them."""
    margin: Margin = 0.25
    """How far the surface reaches beyond a and b: both axes run from -margin to 1 + margin."""


PlaneSpec = Annotated[RandomPlane | ThroughPlane | TrajectoryPlane, Field(discriminator="kind")]


class Spec(DataRunSpec):
    """Loss and accuracy on a plane of weights of one trained population."""

    kind: Literal["surface"] = "surface"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks lie on the plane."""
    plane: PlaneSpec
    """Which plane, and how much of it."""
    cells: Side = 51
    """Cells along each side; odd."""
    split: Split = "test"
    """Part of the data set that every cell is evaluated on."""
    images: Images = 2000
    """Images of it that are drawn, the same for every cell, as many of each class as can be; 0: all."""
    subset_seed: Seed = 0
    """Seeds which images are drawn."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run."""
        return (self.source,)


VALUES = [
    pa.field("x", pa.float64(), nullable=False),  # in the plane's unit
    pa.field("y", pa.float64(), nullable=False),
    pa.field("loss", pa.float64(), nullable=False),  # mean cross-entropy, nats
    pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
]
LEAST_SNAPSHOTS = 2
"""So many and the end span a plane."""
TABLES = {
    "surface_cell": pa.schema(
        [
            pa.field("row", pa.int16(), nullable=False),  # y grows with it
            pa.field("column", pa.int16(), nullable=False),  # x grows with it
            *VALUES,
        ]
    ),
    # networks "a", "b", "c" and the midpoints "ab", "bc", "ac" between them; "a" alone on a random plane
    "surface_mark": pa.schema([pa.field("name", pa.string(), nullable=False), *VALUES]),
    **surface_trajectory.TABLES,
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data.

    Args:
        spec: the run.
        upstream: specs of the runs that it reads, as far as they are known.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(Spec, spec.source, (), upstream)
    if source is None:
        return
    check_data(Spec, spec.data, spec.source, source)
    _check_members(spec, len(source.seeds))
    if isinstance(spec.plane, TrajectoryPlane) and source.snapshots < LEAST_SNAPSHOTS:
        msg = f"{spec.source} keeps {source.snapshots} snapshots; accepted: a train run that keeps {LEAST_SNAPSHOTS} or more"
        raise field_error(Spec, ("source",), spec.source, msg)


def _check_members(spec: Spec, networks: int) -> None:
    """Makes sure that the plane's networks are among those trained.

    Raises:
        ValidationError: naming the field, its value and what is accepted.
    """
    field, given = (
        ("members", spec.plane.members)
        if isinstance(spec.plane, ThroughPlane)
        else ("member", (spec.plane.member,))
    )
    if max(given) >= networks:
        msg = f"{list(given)} is not in source {spec.source}; accepted: members 0 to {networks - 1}"
        raise field_error(Spec, ("plane", field), given, msg)


def title(spec: Spec) -> str:
    """How many cells of which plane."""
    plane = spec.plane
    if isinstance(plane, ThroughPlane):
        where = "through networks " + ", ".join(map(str, plane.members))
    elif isinstance(plane, RandomPlane):
        where = f"around network {plane.member}"
    else:
        where = f"along network {plane.member}'s training"
    return f"Evaluate {spec.cells} × {spec.cells} cells {where} on {spec.data}"


def evaluated(data: str, split: str, images: int) -> int:
    """Images that a cell is evaluated on: as many as are asked for, at most the split's; 0 asks for all."""
    all_images = SOURCES[data].sizes[split]
    return min(images, all_images) if images else all_images


def rows(data: str, split: str, images: int) -> int:
    """What a network reads to be evaluated on so many images: them, or all nodes of a graph."""
    return SOURCES[data].nodes or evaluated(data, split, images)


GRID = "grid.npz"
"""The file in the run's folder that holds positions and values of all cells as arrays."""


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per cell and image, or node."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    work = spec.cells**2 * rows(spec.data, spec.split, spec.images)
    at_once = rows_together(source.network, spec.data)
    return Estimate(
        flop=float(one.forward_flop) * work,
        bytes_memory=4 * ((BATCH + 3) * one.parameters + 4 * at_once * one.activations),
        steps=-(-work // at_once),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates the networks and the midpoints between them, then every cell, coarse to fine.

    Raises:
        StoppedError: if the job was asked to stop; it goes on with the cells that are not recorded.
        ValueError: if the networks are not there, have different gates, or lie outside.
    """
    trained = population(spec.source, job)
    _check_members(spec, trained.size)
    count = evaluated(spec.data, spec.split, spec.images)
    images = subset(dataset(spec, job), spec.split, count, spec.subset_seed)
    evaluator = Evaluator(trained.network, images, on_chunk=job.pause_point)
    with arithmetic(spec.precision):
        survey = Survey(_section(spec, trained, evaluator, job), evaluator, spec.split, job)
        marks, grid = survey.marks(), survey.grid()
    _keep(grid, job)
    return _summary(spec, grid["loss"], marks)


def _section(spec: Spec, trained: Population, evaluator: Evaluator, job: Job) -> Section:
    """The plane, with the networks on it; what a training run's snapshots are is recorded.

    Raises:
        ValueError: if the networks have different gates, or lie outside.
    """
    if isinstance(spec.plane, RandomPlane):
        return _around(spec.plane, spec.cells, trained)
    if isinstance(spec.plane, ThroughPlane):
        return _through(spec.plane, spec.cells, trained)
    run, buffers = Run(spec.source, spec.plane, trained, job), _buffers(trained, spec.plane.member)
    run.record(evaluator, buffers, spec.split, job)
    return run.section(buffers, spec.cells)


def _around(wanted: RandomPlane, cells: int, trained: Population) -> Section:
    one = trained.select([wanted.member])
    plane = random_plane(single(one.effective()), wanted.seed, trainable(one))
    side = np.linspace(-wanted.span, wanted.span, cells)
    return Section(plane, _buffers(trained, wanted.member), 1.0, side, side, {"a": (0.0, 0.0)})


def _through(wanted: ThroughPlane, cells: int, trained: Population) -> Section:
    check_gates("members", wanted.members, trained)
    effective = trained.effective()
    a, b, c = ({name: p[member] for name, p in effective.items()} for member in wanted.members)
    plane, places = plane_through(a, b, c)
    unit = float(places[1, 0])
    at = dict(zip("abc", (places / unit).tolist(), strict=True))
    side = np.linspace(-wanted.margin, 1 + wanted.margin, cells)
    _check_inside(wanted, at["c"])
    marks = {name: (x, y) for name, (x, y) in at.items()}
    for name in EDGES:
        (x, y), (u, v) = (at[end] for end in name)
        marks[name] = ((x + u) / 2, (y + v) / 2)
    return Section(plane, _buffers(trained, wanted.members[0]), unit, side, side, marks)


def _check_inside(wanted: ThroughPlane, c: list[float]) -> None:
    """Independent networks are about equally far apart, so that c lies near (1/2, 0.87).

    Raises:
        ValueError: if it lies outside the surface.
    """
    beyond = max(-min(c), max(c) - 1)
    if beyond > wanted.margin:
        msg = f"margin: {wanted.margin:g} leaves network c at ({c[0]:.3g}, {c[1]:.3g}) outside; accepted: {beyond:.3g} or more"
        raise ValueError(msg)


def _buffers(trained: Population, member: int) -> Parameters:
    return {name: v[member] if trained.stacked else v for name, v in trained.buffers.items()}


def _keep(grid: Mapping[str, Array], job: Job) -> None:
    """Writes the grid in one go, so that a file that is there is whole."""
    path = job.folder / GRID
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **grid)  # type: ignore[arg-type]  # the stubs take the names for options
    partial.replace(path)
    job.artifact(path, "grid")


FLAT = 0.1
"""Nats above the loss in the middle up to which a cell counts as flat."""
EDGES = ("ab", "bc", "ac")
"""Pairs of the three networks of a plane, and the names of the midpoints between them."""


NETWORKS = {
    "random": ("in the middle", "a"),
    "trajectory": ("at the end", "a"),
    "through": ("of the networks", "abc"),
}
"""Where trained networks lie on each kind of plane, and the names of their marks."""


def flat_share(losses: Array, middle: float) -> float:
    """Share of the cells whose loss is at most `FLAT` above the loss in the middle, 0 to 1.

    How large the region of nearly constant error is (Hochreiter & Schmidhuber 1997, "Flat minima"), measured on the
    part of a plane that was evaluated; two surfaces compare only if their spans are the same.
    """
    return float((losses <= middle + FLAT).mean())


def edge_barriers(marks: Mapping[str, float]) -> Array:
    """Midpoint barriers (Lim et al. 2024, section 4.1) between the three networks, [edge], from losses by mark."""
    return barrier_midpoint(np.array([[marks[name[0]], marks[name], marks[name[1]]] for name in EDGES]))


def _summary(spec: Spec, losses: Array, marks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The networks, the loss over the surface, and how flat it is, or the mean barrier between the networks."""
    where, names = NETWORKS[spec.plane.kind]
    values = (np.array([marks[value][name] for name in names]) for value in ("loss", "accuracy"))
    networks = of_networks(spec.split, where, *values)
    found = {
        "lowest loss": float(np.fmin.reduce(losses.ravel())),
        "highest loss": float(np.fmax.reduce(losses.ravel())),
    }
    if isinstance(spec.plane, RandomPlane):
        found["flat share"] = flat_share(losses, marks["loss"]["a"])
    elif isinstance(spec.plane, ThroughPlane):
        found["barrier at midpoint"] = float(edge_barriers(marks["loss"]).mean())
    return networks | {f"{spec.split}/{name}": value for name, value in found.items()}
