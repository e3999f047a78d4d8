"""From the lab to DataFrames that charts and tables take; nothing here draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from app import theme, wording
from app.charts.quantities import QUANTITIES, Quantity
from jobs import planning, queries, registry
from jobs.estimates import Estimate
from jobs.service import Service, current
from jobs.specs import StudySpec, spec_hash
from jobs.states import FINISHED, UnknownError


def is_going_on(state: str) -> bool:
    """Whether a run or study in this state will still change by itself."""
    return state not in FINISHED


def results(study: str, state: str) -> Mapping[str, pa.Table]:
    """A study's result tables; those of a finished one stay as they are and are kept in memory."""
    lab = current()
    return _finished(lab.folder, study) if state == "done" else lab.results(study)


@lru_cache(maxsize=256)
def _finished(_folder: Path, study: str) -> Mapping[str, pa.Table]:
    return current().results(study)


def paths(
    results: Mapping[str, pa.Table], quantity: Quantity, split: str, columns: Sequence[str] = ()
) -> pd.DataFrame:
    """Every pair's path: treatment, further columns, pair, alpha, value (in the unit that people read)."""
    frame = _chosen(results["paths"], quantity, split)
    return frame[["treatment", *columns, "pair", "alpha"]].assign(
        value=_finite(frame["value"]) * quantity.factor
    )


def barriers(
    results: Mapping[str, pa.Table],
    quantity: Quantity,
    split: str,
    which: str,
    columns: Sequence[str] = ("pair",),
    into: str = "value",
) -> pd.DataFrame:
    """Every pair's barrier: treatment, the columns that name the pair, and `into`. `which` is "midpoint" or "maximum"."""
    frame = _chosen(results["pairs"], quantity, split)
    return frame[["treatment", *columns]].assign(
        **{into: _finite(frame[f"barrier_{which}"]) * quantity.factor}
    )


def layers(table: pa.Table, quantity: Quantity, split: str, which: str) -> pd.DataFrame:
    """What moving layers does in each pair: treatment, order, layer, name, pair, row (the layer), value. `which` is a column."""
    frame = _chosen(table, quantity, split)
    value = _finite(frame[which]) * quantity.factor
    kept = frame[["treatment", "order", "layer", "name", "pair"]]
    return kept.assign(row=frame["layer"].astype(str), value=value)


def slices(table: pa.Table, quantity: Quantity, split: str) -> pd.DataFrame:
    """Points of slices: treatment, direction, member, draw, position, value (in the unit that people read)."""
    frame: pd.DataFrame = table.to_pandas()
    frame = frame[frame["split"] == split]
    value = _finite(frame[quantity.key]) * quantity.factor
    return frame[["treatment", "direction", "member", "draw", "position"]].assign(value=value).dropna()


def curvature(table: pa.Table) -> pd.DataFrame:
    """Eigenvalues and traces with `row` (what it is), `told` (where), `shape` (hollow between networks) beside their columns."""
    frame: pd.DataFrame = table.to_pandas()
    ranks = ["" if pd.isna(rank) else f" {rank:.0f}" for rank in frame["rank"]]
    between = frame["place"] != "network"
    return frame.assign(
        row=[f"{quantity}{rank}" for quantity, rank in zip(frame["quantity"], ranks, strict=True)],
        told=[_at(point) for point in frame.itertuples()],
        shape=np.where(between, "diamond", "circle"),
    )


def _at(point: Any) -> str:  # noqa: ANN401 - a row of a frame
    """Where the curvature is, in words."""
    if point.place == "network" or pd.isna(point.alpha):
        return f"{point.place} {point.number}"
    return f"α = {point.alpha:g} from network {point.a:.0f} to {point.b:.0f}"


def curvature_along(found: pd.DataFrame) -> pd.DataFrame:
    """What `curvature` gives, by the pairs of networks that it lies between, those at their ends as well.

    Returns:
        The columns of `found` and `pair`, with a row for every pair that a network is in; what is not above zero is left
        out, and so are networks in no pair and points whose place is not known.
    """
    known = found[found["alpha"].notna() & (found["value"] > 0)]
    networks, between = known[known["shape"] == "circle"], known[known["shape"] == "diamond"]
    parts = []
    for pair, (a, b) in enumerate(dict.fromkeys(zip(between["a"], between["b"], strict=True))):
        own = between[(between["a"] == a) & (between["b"] == b)]
        ends = [networks[networks["number"] == end].assign(alpha=at) for end, at in ((a, 0.0), (b, 1.0))]
        parts.append(pd.concat([ends[0], own, ends[1]]).assign(pair=pair))
    return pd.concat(parts, ignore_index=True) if parts else known.assign(pair=0).iloc[:0]


def surfaces(table: pa.Table | pd.DataFrame) -> pd.DataFrame:
    """Cells or marks of surfaces with their loss and accuracy in the units that people read."""
    frame: pd.DataFrame = table.to_pandas() if isinstance(table, pa.Table) else table
    read = {key: _finite(frame[key]) * quantity.factor for key, quantity in QUANTITIES.items()}
    return frame.assign(**read)


def surface_names(service: Service, limit: int) -> dict[str, str]:
    """The newest finished surfaces by run, each by its treatment and title."""
    found = queries.runs(service.store, kind="surface", state="done", limit=limit)
    titles = dict(zip(found["run"].to_pylist(), found["title"].to_pylist(), strict=True))
    treatments: dict[str, str] = {}
    for row in queries.roles(service.store, list(titles)).to_pylist():
        treatment, part, _ = row["role"].partition("/")
        if part:
            treatments[row["run"]] = f"{theme.treatment(treatment).label}: "
    return {run: f"{treatments.get(run, '')}{title} ({run})" for run, title in titles.items()}


def metrics(service: Service, run: str) -> pd.DataFrame:
    """A run's curves: columns quantity, split, member, step, value (in stored units)."""
    frame: pd.DataFrame = queries.metrics(service.store, [run]).to_pandas()
    frame = frame[frame["name"].str.count("/") == 1]
    frame[["split", "quantity"]] = frame["name"].str.split("/", expand=True).reindex(columns=[0, 1])
    frame["value"] = _finite(frame["value"])
    return frame[["quantity", "split", "member", "step", "value"]].reset_index(drop=True)


def studies(service: Service) -> pd.DataFrame:
    """Studies, newest first, with `spec` parsed and `heading` for people."""
    frame: pd.DataFrame = queries.studies(service.store).to_pandas()
    frame["spec"] = [json.loads(text) for text in frame["spec"]]
    frame["heading"] = [
        wording.study_title(title, spec) for title, spec in zip(frame["title"], frame["spec"], strict=True)
    ]
    return frame


@dataclass(frozen=True)
class Filter:
    """What the run table shows."""

    text: str = ""
    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    sort: str = "created"
    descending: bool = True


def runs(service: Service, wanted: Filter, page: int, size: int) -> tuple[pd.DataFrame, int]:
    """One page of the run table and the number of runs on all pages.

    Args:
        service: The lab.
        wanted: Which runs, in which order.
        page: From 1.
        size: Rows on a page.

    Returns:
        Columns run, title, kind, state, progress (0 to 1), time (what is left or was taken), created, error.
    """
    chosen: dict[str, Any] = {
        "state": wanted.states or None,
        "kind": wanted.kinds or None,
        "text": wanted.text,
    }
    total = queries.count_runs(service.store, **chosen)
    table = queries.runs(
        service.store,
        **chosen,
        sort=wanted.sort,
        descending=wanted.descending,
        limit=size,
        offset=(page - 1) * size,
    )
    rows = [_run_row(service, row) for row in table.to_pylist()]
    names = ["run", "title", "kind", "state", "progress", "time", "created", "error"]
    return pd.DataFrame(rows, columns=names), total


def _run_row(service: Service, row: Mapping[str, Any]) -> dict[str, Any]:
    fraction, time = run_time(service, row["run"], row["state"], row["seconds"])
    kept = {name: row[name] for name in ("run", "title", "kind", "state", "created", "error")}
    return kept | {"progress": fraction, "time": time}


def run_time(service: Service, run: str, state: str, seconds: float | None) -> tuple[float, str]:
    """Share of a run that is done, and in words what is left of it or how long it took."""
    if state == "done":
        return 1.0, f"took {wording.duration(seconds)}"
    progress = service.progress(run) if is_going_on(state) else None
    if progress is None:
        return 0.0, ""
    left = "" if progress.eta is None else f"{wording.duration(progress.eta)} left"
    return progress.fraction, left


@dataclass(frozen=True)
class Forecast:
    """What a study will take before it is started."""

    runs: int
    reused: int
    """Of these, how many are done already and are taken as they are."""
    networks: int
    seconds: float
    """Rough, on this lab's device and slots."""
    memory: int
    """Bytes, of the largest run."""


def forecast(service: Service, spec: StudySpec, *, fresh: bool) -> Forecast:
    """Time and memory of a study, from the shapes of its runs."""
    planned = planning.plan(spec)
    costs = planning.estimates(planned)
    reused = [] if fresh else [run.role for run in planned if service.ledger.reusable(spec_hash(run.spec))]
    todo: list[Estimate] = [cost for role, cost in costs.items() if role not in reused]
    slots = service.dispatcher.slots
    device = slots[0].device if slots else "cpu"
    seconds = [cost.seconds(device) for cost in todo]
    at_once = max(1, min(len(slots), len(seconds)))
    return Forecast(
        runs=len(planned),
        reused=len(reused),
        networks=sum(len(getattr(run.spec, "seeds", ())) for run in planned),
        seconds=max([sum(seconds) / at_once, *seconds], default=0.0),
        memory=max((cost.bytes_memory for cost in todo), default=0),
    )


def tail(service: Service, run: str, lines: int = 200) -> str:
    """The last lines of a run's log; empty where it has none yet."""
    path = service.run_folder(run) / "log.txt"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 256 * lines))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def environment(service: Service, run: str) -> dict[str, str]:
    """Where a run was carried out: commit, versions, device; empty before it has started."""
    path = service.run_folder(run) / "environment.json"
    if not path.is_file():
        return {}
    return wording.flat(json.loads(path.read_text(encoding="utf-8")), missing="unknown")


def records(service: Service, table: str, run: str) -> pd.DataFrame:
    """All rows of one of a run's record tables."""
    frame: pd.DataFrame = queries.records(service.store, table, [run]).drop_columns("run").to_pandas()
    return frame


def recorded(service: Service, run: str) -> list[str]:
    """The record tables that a run has filled so far, but for that of its files."""
    known = [table for table in registry.tables() if table != "artifact"]
    return [table for table in known if queries.count_records(service.store, table, run)]


ALONE = "standard"
"""The treatment as whose a lone run's records are made into a result table, before it gets its own name."""


def as_results(
    service: Service,
    run: Mapping[str, Any],
    part: str,
    tables: Sequence[str],
    make: Callable[..., pa.Table],
) -> pa.Table:
    """A run's records as the result table that a study makes of them, so that a chart of studies draws it.

    Args:
        service: The lab.
        run: What `jobs.queries.run` knows of it.
        part: Which it plays in such a study, "layers" say.
        tables: The record tables.
        make: Takes those, with a `run` column, and the run of each role; its table has a column treatment.
    """
    taken = [queries.records(service.store, table, [run["run"]]) for table in tables]
    found = make(*taken, {f"{ALONE}/{part}/0": run["run"]})
    own = pa.array([treatment(run)] * found.num_rows, pa.string())
    return found.set_column(found.schema.get_field_index("treatment"), "treatment", own)


MADE = {
    "w_asymmetric": "w",
    "sigma_asymmetric": "sigma",
    "asymmetric_init": "asym_init",
    "weight_matching": "rebasin",
    "activation_matching": "activations",
    "cycle_consistent": "cycle",
}
"""What studies call a kind of treatment or of alignment, where that is not its own name."""
READ = ("alignment", "source")
"""Settings that name the run whose treatment one has that reads it, the first of them that is there."""


def treatment(run: Mapping[str, Any]) -> str:
    """The treatment of a run's networks, "other" where that cannot be said.

    A run of studies belongs to the one by which its parts are called; a single run to what it makes of networks, or to
    the treatment of the run that it reads.

    Args:
        run: What `jobs.queries.run` knows of it.
    """
    roles = [str(study["role"]) for study in run["studies"]]
    found = {role.partition("/")[0] for role in roles if "/" in role}
    if found:
        return found.pop() if len(found) == 1 else "other"
    spec = run["spec"]
    if made := spec.get("treatment") or spec.get("method"):
        kind = str(made["kind"] if isinstance(made, Mapping) else made)
        return MADE.get(kind, kind)
    read = next((run["inputs"].get(spec[name]) for name in READ if spec.get(name)), None)
    try:
        return treatment(queries.run(current().store, read)) if read else "other"
    except UnknownError:  # a single run that was imported comes without what it read
        return "other"


def _chosen(table: pa.Table, quantity: Quantity, split: str) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame[(frame["quantity"] == quantity.key) & (frame["split"] == split)].reset_index(drop=True)


def _finite(values: pd.Series) -> pd.Series:
    """Values with NaN for what is not a finite number."""
    return values.astype(float).where(np.isfinite(values.astype(float)))
