"""The distance kind: what it records of real networks is what their weights say, aligned or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from jobs.inputs import PERMUTATIONS, WEIGHTS
from jobs.job import Job
from jobs.kinds import align, distance, train
from jobs.records import COMMON
from jobs.specs import spec_hash
from jobs.spool import Spool
from symcore.asymmetry import trainable_count
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build, save
from symcore.symmetry.permutations import derive, permute, random
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

NETWORK = MLPSpec(width=8, depth=2)
SOURCE, ALIGNMENT = "a" * 32, "b" * 32


class Kept(Job):
    """A job whose rows stay in memory."""

    rows: list[dict[str, Any]]

    def emit(self, table: str, **columns: Any) -> None:
        super().emit(table, **columns)
        self.rows += pa.table(columns).to_pylist()


def population(treatment: Treatment, mask_seeds: tuple[int, ...] = (7,)) -> Population:
    return build(Design(NETWORK, treatment, (8, 8), 10, seeds=(0, 1, 2, 3), mask_seeds=mask_seeds))


def measured(
    trained: Population, folder: Path, permutations: dict[str, torch.Tensor] | None = None
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The summary and rows of pairs (0, 1) and (2, 3)."""
    save(trained, folder / WEIGHTS)
    if permutations:
        save_file(permutations, folder / PERMUTATIONS)
    spec = distance.Spec(source=SOURCE, alignment=ALIGNMENT if permutations else None, pairs=((0, 1), (2, 3)))
    inputs = {SOURCE: folder, ALIGNMENT: folder}
    with Spool(folder / "records.spool") as spool:
        job = Kept(folder, spool, COMMON | distance.TABLES, device="cpu", data_folder=folder, inputs=inputs)
        job.rows = []
        return distance.execute(spec, job), job.rows


def total(rows: list[dict[str, Any]], pair: int, entries: str, column: str = "distance") -> float:
    own = [row[column] for row in rows if (row["pair"], row["entries"]) == (pair, entries)]
    return float(sum(own)) if column == "count" else float(np.linalg.norm(own))


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
def test_whole_networks_are_as_far_apart_as_their_weights(treatment: Treatment, tmp_path: Path) -> None:
    trained = population(treatment)
    summary, rows = measured(trained, tmp_path)
    vectors = torch.cat([p.double().flatten(1) for p in trained.effective().values()], dim=1)
    expected = [float((vectors[a] - vectors[b]).norm()) for a, b in ((0, 1), (2, 3))]
    parameters = trainable_count(trained.network, trained.asymmetry)
    for pair in range(2):
        assert total(rows, pair, "all") == pytest.approx(expected[pair])
        assert total(rows, pair, "trainable") == pytest.approx(expected[pair])  # what is fixed is shared
        assert total(rows, pair, "trainable", "count") == parameters
        assert total(rows, pair, "all", "count") == vectors.shape[1]
        assert total(rows, pair, "all", "norm_a") == pytest.approx(float(vectors[2 * pair].norm()))
    assert summary["distance"] == pytest.approx(np.mean(expected))
    assert summary["distance per parameter"] == pytest.approx(np.mean(expected) / parameters)


def test_networks_with_other_masks_differ_in_what_is_fixed_too(tmp_path: Path) -> None:
    trained = population(WAsymmetric(), mask_seeds=(1, 2, 3, 4))
    assert trained.asymmetry is not None
    _, rows = measured(trained, tmp_path)
    assert total(rows, 0, "all") > total(rows, 0, "trainable")
    either = {name: d[0] | d[1] for name, d in trained.asymmetry.trainable.items()}
    for row in rows:
        if (row["pair"], row["entries"]) == (0, "trainable") and row["parameter"] in either:
            assert row["count"] == int(either[row["parameter"]].sum())


def test_a_network_and_its_permutation_are_apart_until_they_are_aligned(tmp_path: Path) -> None:
    start = population(Standard())
    spec = derive(start.network, torch.zeros(2, 8, 8))
    drawn = random(spec, np.random.default_rng(0), 2)
    first = {name: p[[0, 2]] for name, p in start.parameters.items()}
    moved = permute(first, spec, drawn)
    both = {name: torch.stack([p[0], moved[name][0], p[1], moved[name][1]]) for name, p in first.items()}
    back = {name: p.argsort(dim=1) for name, p in drawn.items()}
    before, _ = measured(start.with_effective(both), tmp_path)
    (tmp_path / "records.spool").unlink()
    after, rows = measured(start.with_effective(both), tmp_path, back)
    assert before["relative distance"] > 0.5
    assert after["distance"] == 0
    assert {row["distance"] for row in rows} == {0.0}


def test_pairs_and_alignment_must_be_those_of_the_runs_that_are_read() -> None:
    source = train.Spec(
        data="digits", network=NETWORK, treatment=Standard(), training=TrainingSpec(), seeds=(0, 1)
    )
    matched = align.Spec(source=spec_hash(source), pairs=((0, 1),))
    upstream = {spec_hash(source): source, spec_hash(matched): matched}
    good = distance.Spec(source=spec_hash(source), alignment=spec_hash(matched), pairs=((0, 1),))
    distance.check_inputs(good, upstream)
    for change, field in (({"pairs": ((0, 2),)}, "pairs"), ({"pairs": ((1, 0),)}, "alignment")):
        with pytest.raises(ValidationError) as caught:
            distance.check_inputs(good.model_copy(update=change), upstream)
        assert caught.value.errors()[0]["loc"] == (field,)
    assert distance.estimate(good, upstream).flop > 0
    assert distance.title(good) == "Measure the distance between the networks of 1 aligned pair"
