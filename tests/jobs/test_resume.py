"""Runs that are stopped or killed, and go on: no work is done twice but the part at hand, and no number differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kind_tools import carried_out, trained

from jobs.execution import Outcome
from jobs.inputs import PERMUTATIONS
from jobs.job import Job
from jobs.kinds import align, curvature, curve, interpolate, layerwise, valley
from jobs.specs import RunSpec, spec_hash
from symcore.align import learning
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.landscape.curvature import Hessian
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

PAIRS = ((0, 1), (2, 0), (1, 2))
NETWORKS: dict[str, dict[str, Any]] = {
    "standard": {"treatment": Standard(), "snapshots": 2},
    "w": {"treatment": WAsymmetric(), "mask_seeds": (3, 4, 5), "snapshots": 2},
    "sigma": {"treatment": SigmaAsymmetric(), "snapshots": 2},
    "recurrent": {"treatment": Standard(), "network": RecurrentSpec(width=8)},
}
STEPS = learning.LOOK + 3
RUNS: dict[str, tuple[str, Callable[[dict[str, Any]], RunSpec]]] = {
    "layers": ("w", lambda base: layerwise.Spec(**base, pairs=PAIRS, points=33)),
    "path": ("standard", lambda base: interpolate.Spec(**base, pairs=PAIRS, points=33)),
    "calibrated path": (
        "sigma",
        lambda base: interpolate.Spec(**base, pairs=PAIRS, points=33, repair=True, temperature=True),
    ),
    "curve": (
        "w",
        lambda base: curve.Spec.model_validate(
            base | {"pairs": PAIRS, "points": 33, "training": {"epochs": 2}, "bends": 2}
        ),
    ),
    "slices": (
        "sigma",
        lambda base: valley.Spec(
            **base, members=(2, 0), directions=valley.DIRECTIONS, draws=2, averaged=2, points=5
        ),
    ),
    "curvature": (
        "w",
        lambda base: curvature.Spec(
            **base, members=(0, 2, 1), pairs=((0, 1),), images=300, eigenvalues=2, steps=7, probes=5
        ),
    ),
    "straight-through": (
        "recurrent",
        lambda base: align.Spec(**base, pairs=PAIRS, method=StraightThrough(steps=STEPS, images=500)),
    ),
    "Sinkhorn": (
        "standard",
        lambda base: align.Spec(**base, pairs=PAIRS, method=Sinkhorn(steps=STEPS, images=500)),
    ),
    "Sinkhorn for distance": (
        "standard",
        lambda base: align.Spec(
            source=base["source"], pairs=PAIRS, method=Sinkhorn(steps=STEPS, objective="distance")
        ),
    ),
}
SLOW = {"calibrated path", "slices", "straight-through"}
WORK = (
    (Evaluator, "__call__"),
    (Evaluator, "combinations"),
    (Hessian, "__call__"),
    (learning.Adam, "step"),
    (Job, "stopping"),
)
"""What the runs spend their time on, and how often they look whether to stop."""
LOOKS = "Job.stopping"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Hash and folder of train runs of three networks."""
    found = {}
    for name, change in NETWORKS.items():
        spec = trained(**{"network": MLPSpec(width=12, depth=2)} | change)
        folder = tmp_path_factory.mktemp(name)
        assert carried_out(spec, folder, {}).state == "done"
        found[name] = spec_hash(spec), folder
    return found


@pytest.fixture(scope="module")
def work() -> Iterator[Counter[str]]:
    """Counts what is done, in a machine with room for two pairs or points at once."""
    done: Counter[str] = Counter()

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            found = method(*given, **named)
            done[name] += 1
            return found

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WORK:
            patch.setattr(owner, name, counted(f"{owner.__name__}.{name}", getattr(owner, name)))
        patch.setattr("symcore.align.matching.BYTES", {"cpu": 2})
        for module in ("straight_through", "sinkhorn"):
            patch.setattr(f"symcore.align.{module}.bytes_each", lambda *_: 1)
        patch.setattr("jobs.kinds.curvature.NUMBERS", {"cpu": 60_000})
        yield done


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to."""

    spec: RunSpec
    inputs: dict[str, Path]
    folder: Path
    outcome: Outcome
    work: dict[str, int]


@pytest.fixture(scope="module")
def undisturbed(
    networks: dict[str, tuple[str, Path]], work: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Undisturbed]:
    @cache
    def one(name: str) -> Undisturbed:
        form, make = RUNS[name]
        source, folder = networks[form]
        spec, inputs, own = (
            make({"data": "digits", "source": source}),
            {source: folder},
            tmp_path_factory.mktemp("calm"),
        )
        work.clear()
        outcome = carried_out(spec, own, inputs)
        assert outcome.state == "done", outcome.error
        return Undisturbed(spec, inputs, own, outcome, dict(work))

    return one


def results(folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for its log and what it took."""
    kept = {"records.spool", curve.BENDS, PERMUTATIONS}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in kept}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RUNS]
)
def test_stopped_again_and_again_it_ends_with_the_same_bytes(
    name: str, undisturbed: Callable[[str], Undisturbed], tmp_path: Path, work: Counter[str]
) -> None:
    calm = undisturbed(name)
    work.clear()
    stops = 0
    while True:
        share = (
            4 + stops
        ) / 17  # an attempt that repeats REPAIR and temperatures needs more looks to get beyond
        outcome = carried_out(calm.spec, tmp_path, calm.inputs, stop_after=int(share * calm.work[LOOKS]))
        if outcome.state != "interrupted":
            break
        stops += 1
    assert outcome.state == "done", outcome.error
    assert stops >= 2
    assert results(tmp_path) == results(calm.folder)
    assert outcome.summary == calm.outcome.summary
    assert not list(tmp_path.glob("checkpoint*"))
    for part in calm.work.keys() - {LOOKS}:
        again = calm.work[part] if name == "calibrated path" else 4
        assert work[part] <= calm.work[part] + again * stops, part


@pytest.mark.parametrize(
    "damage", ["more records", "fewer records", "half a checkpoint", "an old checkpoint"]
)
@pytest.mark.parametrize("name", ["curvature", "Sinkhorn"])
def test_killed_or_damaged_it_goes_on_from_what_is_whole(
    name: str, damage: str, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    """A kill leaves more records than the checkpoint counts, or that of work which is done since; a dying disk fewer
    records, or half a checkpoint."""
    calm, spool = undisturbed(name), tmp_path / "records.spool"

    def stopped(share: float) -> tuple[Path, bytes]:
        """An attempt; its checkpoint, and what is in it."""
        looks = int(share * calm.work[LOOKS])
        assert carried_out(calm.spec, tmp_path, calm.inputs, stop_after=looks).state == "interrupted"
        newest = max(tmp_path.glob("checkpoint*"), key=lambda path: path.stat().st_mtime_ns)
        return newest, newest.read_bytes()

    stopped(0.1)
    few = spool.read_bytes()
    path, early = stopped(0.3)
    newest, late = stopped(0.3)
    if damage == "more records":
        newest.unlink()
        path.write_bytes(early)
    elif damage == "fewer records":
        spool.write_bytes(few)
    elif damage == "half a checkpoint":
        newest.write_bytes(late[: len(late) // 2])
    else:
        stopped(0.2)
        path.write_bytes(early)
    outcome = carried_out(calm.spec, tmp_path, calm.inputs)
    assert outcome.state == "done", outcome.error
    assert results(tmp_path) == results(calm.folder)
    if damage == "half a checkpoint":
        assert "begins again" in (tmp_path / "log.txt").read_text()
