"""The symmetry study: which runs it plans, and that its answer is what the theory says of each treatment."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from jobs import planning, registry
from jobs.inputs import WEIGHTS
from jobs.job import Job
from jobs.kinds import inspect
from jobs.records import COMMON
from jobs.specs import spec_hash
from jobs.spool import Spool
from jobs.studies import symmetry
from symcore.networks.recurrent import RecurrentSpec
from symcore.population import Design, build, load
from symcore.symmetry.inspector import TRANSFORMATIONS
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

SMOKE = symmetry.PRESETS["smoke"]


class Kept(Job):
    """A job whose rows stay in memory."""

    rows: dict[str, list[dict[str, Any]]]

    def emit(self, table: str, **columns: Any) -> None:
        super().emit(table, **columns)
        self.rows.setdefault(table, []).extend(pa.table(columns).to_pylist())


def executed(spec: inspect.Spec, folder: Path) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """A run's headline numbers and its records by table."""
    folder.mkdir(exist_ok=True)
    with Spool(folder / "records.spool") as spool:
        job = Kept(
            folder, spool, COMMON | inspect.TABLES, device="cpu", data_folder=folder / "no data", inputs={}
        )
        job.rows = {}
        return inspect.execute(spec, job), job.rows


def results_of(spec: symmetry.Spec, folder: Path) -> dict[str, pa.Table]:
    """The results of a study that is carried out."""
    folder.mkdir(exist_ok=True)
    roles, rows = {}, dict[str, list[dict[str, Any]]]()
    for number, run in enumerate(symmetry.expand(spec)):
        assert isinstance(run.spec, inspect.Spec)
        roles[run.role] = f"r{number}"
        for table, made in executed(run.spec, folder / f"r{number}")[1].items():
            rows.setdefault(table, []).extend({"run": f"r{number}"} | row for row in made)
    return symmetry.results(
        spec, roles, {name: pa.Table.from_pylist(rows[name][::-1]) for name in symmetry.RECORDS}
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """The results of the smoke preset."""
    return results_of(SMOKE, tmp_path_factory.mktemp("smoke"))


def test_the_paper_preset_is_the_papers_setting() -> None:
    runs = {run.role: run.spec for run in symmetry.expand(symmetry.PRESETS["paper"])}
    assert {role: run.treatment for role, run in runs.items()} == {
        "standard/inspect/0": Standard(),
        "sigma/inspect/0": SigmaAsymmetric(std=1),
        "w/inspect/0": WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
    }
    assert {(run.data, run.network.width, run.network.depth) for run in runs.values()} == {("mnist", 512, 3)}


def test_masks_do_not_touch_the_standard_network() -> None:
    first, second = (
        {run.role: spec_hash(run.spec) for run in symmetry.expand(symmetry.Spec(mask_seed=seed))}
        for seed in (0, 1)
    )
    assert {role for role in first if first[role] != second[role]} == {"sigma/inspect/0", "w/inspect/0"}


def test_only_the_standard_network_has_permutations_and_sigma_keeps_what_norms_allow(
    found: dict[str, pa.Table],
) -> None:
    standard, sigma, w = found["summary"].to_pylist()
    assert [row["treatment"] for row in (standard, sigma, w)] == ["standard", "sigma", "w"]
    factorials = 2 * math.log10(math.factorial(64))
    assert standard["log10_least"] == standard["log10_most"] == pytest.approx(factorials)
    assert standard["certificate"] == "interchangeable"
    assert [row["log10_most"] for row in (sigma, w)] == [0, 0]
    assert {row["neurons"] for row in (standard, sigma, w)} == {128}
    kept = {
        name: [row[f"{name}_max"] is not None and row[f"{name}_max"] < 5e-3 for row in (standard, sigma, w)]
        for name in TRANSFORMATIONS
    }
    assert kept == {
        "swap": [True, False, False],
        "permutation": [True, False, False],
        "sign": [False, False, False],  # GELU is not odd, and the signs that a gate could change its F holds
        "rescale": [False, False, False],  # GELU is not homogeneous
        "scale": [True, True, False],
        "shift": [True, True, False],
    }


def test_medians_and_maxima_are_over_all_draws(found: dict[str, pa.Table]) -> None:
    changes = found["changes"].to_pandas()
    grouped = changes.groupby(["treatment", "transformation"])["change"].agg(["median", "max", "size"])
    assert (grouped["size"] == SMOKE.draws).all()
    for row in found["summary"].to_pylist():
        for name in TRANSFORMATIONS:
            if (row["treatment"], name) not in grouped.index:
                assert row[f"{name}_median"] is None
                continue
            expected = grouped.loc[row["treatment"], name]
            assert (row[f"{name}_median"], row[f"{name}_max"]) == (expected["median"], expected["max"])
    tried = {key: list(own["transformation"].unique()) for key, own in changes.groupby("treatment")}
    weightless = [name for name in TRANSFORMATIONS if name != "sign"]
    assert tried == {"standard": weightless, "sigma": list(TRANSFORMATIONS), "w": weightless}
    assert changes["draw"].tolist() == list(range(SMOKE.draws)) * sum(map(len, tried.values()))


def test_every_hidden_layer_is_a_group(found: dict[str, pa.Table]) -> None:
    groups = found["groups"].to_pandas()
    for _, own in groups.groupby("treatment"):
        assert set(own["group"]) == {"hidden.0", "hidden.1"}
        assert own["size"].tolist() == [64, 64]
    cells = groups.groupby("treatment")["cells"].sum().to_dict()
    assert cells == {"standard": 2, "sigma": 128, "w": 128}


def test_the_terminal_answers_in_eighty_columns(found: dict[str, pa.Table]) -> None:
    told = symmetry.headline({name: table.to_pylist() for name, table in found.items()})
    assert [row[:2] for row in told.rows] == [
        ("Standard", "10^178.2"),
        ("σ-Asymmetric", "1"),
        ("W-Asymmetric", "1"),
    ]
    widths = [
        max(map(len, (*heading.split("\n"), *cells)))
        for heading, *cells in zip(told.columns, *told.rows, strict=True)
    ]
    assert sum(widths) + 2 * len(widths) <= 80
    assert max(map(len, told.caption.split("\n"))) <= 80


def test_a_cells_order_is_told_with_its_signs(tmp_path: Path) -> None:
    """A cell of tanh has 2^H H! signed permutations; masks of zeros leave its 2^H sign changes alone."""
    spec = symmetry.Spec(
        network=RecurrentSpec(width=6),
        treatments=("standard", "w", "w0"),
        w=WAsymmetric(n_fix=(4, 3, 3)),
        draws=2,
        probes=8,
    )
    tables = {name: table.to_pylist() for name, table in results_of(spec, tmp_path).items()}
    told = {row["treatment"]: (row["sign_changes"], symmetry.signed_order(row)) for row in tables["summary"]}
    assert told == {"standard": (6, "46,080"), "w": (0, "1"), "w0": (6, "64")}
    headline = symmetry.headline(tables)
    assert headline.columns[1:3] == ("permu-\ntations", "with\nsigns")
    assert [row[1:3] for row in headline.rows] == [("720", "46,080"), ("1", "1"), ("1", "64")]


def test_runs_of_the_first_version_are_read_and_no_longer_begun(found: dict[str, pa.Table]) -> None:
    (first, *_) = symmetry.expand(SMOKE)
    old = first.spec.model_dump(mode="json") | {"version": 1}
    read = registry.run_spec(old, stored=True)
    assert read.model_dump(mode="json") == old == json.loads(read.model_dump_json())
    assert spec_hash(read) != spec_hash(first.spec)
    with pytest.raises(ValidationError, match="earlier version of the lab; accepted: 2"):
        registry.run_spec(old)
    order = dict.fromkeys(inspect.TABLES["symmetry_order"].names) | {
        name: found["summary"].to_pylist()[0][name]
        for name in ("certificate", "log10_least", "log10_most", "rounds")
    }
    tables = {
        name: pa.Table.from_pylist([{"run": "r", "draw": 0, "transformation": "swap", "change": 0.5} | order])
        if name != "symmetry_group"
        else pa.table({"run": pa.array([], pa.string())})
        for name in symmetry.RECORDS
    }
    read_tables = symmetry.results(SMOKE, {first.role: "r"}, tables)
    (row,) = read_tables["summary"].to_pylist()
    assert (row["swap_median"], row["rescale_median"], row["sign_changes"]) == (0.5, None, None)
    (told,) = symmetry.headline({name: table.to_pylist() for name, table in read_tables.items()}).rows
    assert told == ("Standard", "10^178.2", "0.5")


@pytest.mark.parametrize(
    ("least", "most", "told"),
    [
        (0, 0, "1"),
        (math.log10(576), math.log10(576), "576"),
        (0, math.log10(120), "1 to 120"),
        (5.9999, 5.9999, "999,770"),
        (3499.62, 3499.62, "10^3499.6"),
        (7, 12.34, "10^7.0 to 10^12.3"),
    ],
)
def test_orders_are_written_out_while_they_are_small(least: float, most: float, told: str) -> None:
    assert symmetry.order(least, most) == told


def test_nothing_done_gives_empty_tables() -> None:
    empty = {
        name: schema.append(pa.field("run", pa.string())).empty_table()
        for name, schema in inspect.TABLES.items()
    }
    results = symmetry.results(SMOKE, {"w/inspect/0": "r"}, empty)
    assert {name: table.num_rows for name, table in results.items()} == dict.fromkeys(results, 0)
    assert symmetry.headline({name: table.to_pylist() for name, table in results.items()}).rows == ()


def test_a_run_keeps_the_network_it_looked_at_and_repeats_itself(tmp_path: Path) -> None:
    spec = symmetry.expand(SMOKE)[2].spec
    assert isinstance(spec, inspect.Spec)
    summary, rows = executed(spec, tmp_path / "first")
    assert (summary, rows) == executed(spec, tmp_path / "second")
    assert summary["certified trivial"] == 1
    kept = load(tmp_path / "first" / WEIGHTS)
    again = build(Design(spec.network, spec.treatment, (8, 8), 10, (spec.seed,), (spec.mask_seed or 0,)))
    assert kept.asymmetry is not None
    assert again.asymmetry is not None
    for name, trainable in kept.asymmetry.trainable.items():
        assert (trainable == again.asymmetry.trainable[name]).all()
        assert (kept.asymmetry.fixed[name] == again.asymmetry.fixed[name]).all()


def test_costs_grow_with_what_is_asked() -> None:
    def cost(spec: symmetry.Spec) -> Any:
        return planning.total(planning.estimates(planning.plan(spec)).values())

    assert cost(symmetry.Spec(draws=40)).flop == pytest.approx(2 * cost(symmetry.Spec()).flop)
    assert cost(symmetry.PRESETS["paper"]).flop > cost(symmetry.PRESETS["laptop"]).flop > 0


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"treatments": []}, ("treatments",), "none is chosen"),
        ({"treatments": ["standard", "rebasin"]}, ("treatments", 1), "'asym_init' or 'fixed_biases'"),
        ({"w": {"n_fix": [65, 16, 16, 64]}}, ("w", "n_fix"), "accepted: 0 to 64"),
        ({"draws": 0}, ("draws",), "greater than or equal to 1"),
        ({"probes": 0}, ("probes",), "greater than or equal to 1"),
    ],
)
def test_a_wrong_field_names_itself_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.study_spec({"kind": "symmetry"} | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("treatment", "mask_seed", "accepted"),
    [("standard", 3, "none for a standard network"), ("sigma_asymmetric", None, "an integer from 0")],
)
def test_a_mask_seed_goes_with_what_it_seeds(treatment: str, mask_seed: int | None, accepted: str) -> None:
    given = {
        "kind": "inspect",
        "data": "digits",
        "network": {"kind": "mlp"},
        "treatment": {"kind": treatment},
    }
    with pytest.raises(ValidationError, match=accepted):
        registry.run_spec(given | {"mask_seed": mask_seed})
