"""Made-up results: frames for charts and tables, and a lab whose runs ended without being carried out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs import queries
from jobs.ledger import Move
from jobs.registry import tables
from jobs.service import Service
from jobs.states import State
from jobs.studies import lmc, lmc_results

HEIGHTS = {"standard": 0.62, "rebasin": 0.027, "sigma": 0.75, "w": 0.005}
ALPHAS = np.linspace(0, 1, 25)


def points(heights: dict[str, float] = HEIGHTS, pairs: int = 5, seed: int = 0) -> pd.DataFrame:
    """Hills over the path: columns treatment, pair, alpha, value."""
    random = np.random.default_rng(seed)
    rows = []
    for treatment, height in heights.items():
        for pair in range(pairs):
            hill = height * (1 + 0.25 * random.standard_normal()) * np.exp(-(((ALPHAS - 0.5) / 0.14) ** 2))
            values = 0.07 + 0.01 * random.standard_normal() + hill
            rows += [
                {"treatment": treatment, "pair": pair, "alpha": a, "value": v}
                for a, v in zip(ALPHAS, values, strict=True)
            ]
    return pd.DataFrame(rows)


def results(pairs: int = 5, *, paper: bool = False) -> dict[str, pa.Table]:
    """The four result tables of an LMC study, from made-up paths on both splits."""
    frame = points(pairs=pairs)
    runs = {f"{treatment}/path/0": f"r{treatment}" for treatment in HEIGHTS}
    parts = [
        frame.assign(
            run="r" + frame["treatment"],
            split=split,
            loss=frame["value"] * scale,
            accuracy=1 - frame["value"] / 5,
        )
        for split, scale in (("train", 0.5), ("test", 1.0))
    ]
    columns = ["run", "pair", "alpha", "split", "loss", "accuracy"]
    table = pa.Table.from_pandas(pd.concat(parts)[columns], preserve_index=False)
    paths = lmc_results.paths(table, runs, block=pairs)
    return {
        "summary": lmc_results.summary(paths, lmc.Spec.paper.barriers if paper else {}),
        "pairs": lmc_results.by_pair(paths),
        "curves": lmc_results.curves(paths),
        "paths": lmc_results.as_table(paths),
    }


def finish(lab: Service, study: str, only: Callable[[str], bool] = lambda _role: True) -> None:
    """Take a study's runs through their states to the end, with made-up records."""
    for member in queries.study(lab.store, study)["runs"]:
        if only(member["role"]):
            start(lab, member["run"])
            end(lab, member["run"], member["role"])


def start(lab: Service, run: str) -> None:
    """A worker has it."""
    lab.ledger.move([Move(run, State.RUNNING, {"device": "cpu", "threads": 1})], attempt=1)
    lab.run_folder(run).mkdir(exist_ok=True)


def end(lab: Service, run: str, role: str) -> None:
    """It is done, and its records, log and environment are there."""
    folder = lab.run_folder(run)
    (folder / "log.txt").write_text("epoch 1\nepoch 2\n", encoding="utf-8")
    (folder / "environment.json").write_text('{"commit": null, "device": "cpu"}', encoding="utf-8")
    treatment, part, *_ = role.split("/")
    made = {
        "train": _metrics,
        "path": _path_points,
        "align": _alignment,
        "distance": _distances,
        "bayes": _posteriors,
    }
    batches = made[part](treatment)
    lab.store.ingest(run, 0, batches).result()
    lab.ledger.move(
        [Move(run, State.DONE, {"batches": len(batches)}, {"test/loss": 0.07, "test/accuracy": 0.98})]
    )


def _metrics(_treatment: str) -> list[tuple[str, pa.RecordBatch]]:
    rows = [
        {"member": member, "name": name, "step": step, "value": 1 / step + 0.01 * member}
        for member in range(4)
        for name in ("train/loss", "test/loss", "test/accuracy")
        for step in (1, 2, 3)
    ]
    return [("metric", pa.RecordBatch.from_pylist(rows, schema=tables()["metric"]))]


def _path_points(treatment: str) -> list[tuple[str, pa.RecordBatch]]:
    frame = points({treatment: HEIGHTS.get(treatment, 0.4)}, pairs=2)
    rows = [
        {
            "pair": row.pair,
            "alpha": row.alpha,
            "split": split,
            "loss": row.value,
            "accuracy": 1 - row.value / 5,
        }
        for split in ("train", "test")
        for row in frame.itertuples()
    ]
    return [("path_point", pa.RecordBatch.from_pylist(rows, schema=tables()["path_point"]))]


def _alignment(_treatment: str) -> list[tuple[str, pa.RecordBatch]]:
    row = {"restart": 0, "objective": 9.0, "identity_objective": 4.0, "sweeps": 3}
    rows = [row | {"pair": pair} for pair in range(2)]
    return [("alignment", pa.RecordBatch.from_pylist(rows, schema=tables()["alignment"]))]


def _distances(_treatment: str) -> list[tuple[str, pa.RecordBatch]]:
    row = {"count": 12, "distance": 3.0, "norm_a": 2.0, "norm_b": 2.5}
    rows = [
        row | {"pair": pair, "parameter": parameter, "entries": entries}
        for pair in range(2)
        for parameter in ("hidden.weight", "hidden.bias", "readout.weight")
        for entries in ("trainable", "all")
    ]
    return [("weight_distance", pa.RecordBatch.from_pylist(rows, schema=tables()["weight_distance"]))]


ACCURACIES = {"standard": (0.80, 0.81, 0.82), "w": (0.90, 0.91, 0.92)}
"""What made-up posteriors of the preset "smoke" predict rightly, network by network."""
EPOCHS, BINS, ENTROPIES = 10, 15, 40


def _posteriors(treatment: str) -> list[tuple[str, pa.RecordBatch]]:
    """Trainings that get better by the epoch, whose predictions are all of a confidence near 0.9 and strange images' unsure."""
    bins, entropies = [], []
    for member, accuracy in enumerate(ACCURACIES[treatment]):
        for place in range(BINS):
            seen = {"images": 100, "confidence": 0.9, "accuracy": accuracy}
            none = {"images": 0, "confidence": np.nan, "accuracy": np.nan}
            row = {"member": member, "split": "test", "bin": place}
            bins.append(row | (seen if place == 13 else none))
        for split, full in (("test", 0), ("outside", ENTROPIES - 1)):
            entropies += [
                {
                    "member": member,
                    "split": split,
                    "lower": place / ENTROPIES,
                    "upper": (place + 1) / ENTROPIES,
                    "images": 100 * (place == full),
                }
                for place in range(ENTROPIES)
            ]
    batches = {"metric": learning(treatment, EPOCHS), "reliability_bin": bins, "entropy_bin": entropies}
    return [(name, pa.RecordBatch.from_pylist(rows, schema=tables()[name])) for name, rows in batches.items()]


def learning(treatment: str, epochs: int) -> list[dict[str, object]]:
    """The metrics of made-up posteriors: accuracy rises evenly by the epoch; what is known at the end is there after the last one."""
    rows: list[dict[str, object]] = []
    for member, accuracy in enumerate(ACCURACIES[treatment]):
        for step in range(1, epochs + 1):
            known = {
                "train/loss": 1 / step,
                "test/loss": 2 / step,
                "test/accuracy": accuracy * step / EPOCHS,
            }
            if step == EPOCHS:
                known |= {"final/test/nll": 1 - accuracy, "final/test/accuracy": accuracy}
                known |= {"final/test/ece": 0.9 - 0.5 * accuracy, "final/outside/auroc": 1.0}
            rows += [
                {"member": member, "name": name, "step": step, "value": value}
                for name, value in known.items()
            ]
    return rows
