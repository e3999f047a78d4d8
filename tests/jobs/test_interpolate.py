"""What a path run can do to its points, in a real run without a server: REPAIR and temperatures leave the ends and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import registry
from jobs.job import Job
from jobs.kinds import interpolate, train
from jobs.records import decode
from jobs.specs import spec_hash
from jobs.spool import Spool, read
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard

TRAINED = train.Spec(
    data="digits",
    network=MLPSpec(width=16, depth=2, norm="none", activation="relu"),
    treatment=Standard(),
    training=TrainingSpec(epochs=3),
    seeds=(0, 1, 2, 3),
)
PATH = {"data": "digits", "source": spec_hash(TRAINED), "pairs": ((0, 1), (2, 3)), "points": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    execute(TRAINED, folder, {})
    return folder


def execute(spec: Any, folder: Path, inputs: dict[str, Path]) -> tuple[dict[str, float], list[float], Any]:
    """Summary, shares done as they were reported, and the records' tables by name."""
    folder.mkdir(exist_ok=True)
    shares: list[float] = []
    with Spool(folder / "spool") as spool:
        job = Job(
            folder, spool, registry.tables(), device="cpu", data_folder=folder, inputs=inputs,
            on_progress=lambda progress: shares.append(progress.done / progress.total),
        )  # fmt: skip
        summary = registry.kind_of(spec).execute(spec, job)
    batches = [decode(payload) for _, payload in read(folder / "spool")]
    found: dict[str, list[dict[str, Any]]] = {}
    for table, batch in batches:
        found.setdefault(table, []).extend(batch.to_pylist())
    return summary, shares, found


def values(rows: list[dict[str, Any]], name: str, split: str = "test") -> Any:
    """[pair, alpha]"""
    chosen = sorted((r for r in rows if r["split"] == split), key=lambda r: (r["pair"], r["alpha"]))
    return np.array([r[name] for r in chosen]).reshape(2, 5)


def test_repair_and_temperatures_leave_ends_and_answers(trained: Path, tmp_path: Path) -> None:
    inputs = {spec_hash(TRAINED): trained}
    plain, _, points = execute(interpolate.Spec.model_validate(PATH), tmp_path / "plain", inputs)
    given = PATH | {"repair": True, "repair_images": 300, "temperature": True}
    repaired, shares, found = execute(interpolate.Spec.model_validate(given), tmp_path / "both", inputs)
    assert set(points) == {"path_point"}
    before, after = (values(tables["path_point"], "loss") for tables in (points, found))
    np.testing.assert_allclose(after[:, [0, -1]], before[:, [0, -1]], rtol=1e-5)
    assert (after[:, 1:-1] != before[:, 1:-1]).all()
    calibrated = values(found["path_calibrated"], "loss")
    assert (calibrated < after).mean() > 0.7  # fitted on the other half of the images
    assert (values(found["path_calibrated"], "temperature") > 0).all()
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert "test/calibrated barrier at midpoint" in set(repaired) - set(plain)
