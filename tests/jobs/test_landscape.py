"""Surfaces and the landscape study: what a surface is, that stops and kills lose nothing, and what its numbers mean."""

from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from kind_tools import carried_out, records, study_tables, trained
from pydantic import ValidationError

from jobs import planning, registry, spool
from jobs.kinds import surface, surface_survey
from jobs.kinds.surface import EDGES, FLAT, RandomPlane, ThroughPlane
from jobs.specs import RunSpec, spec_hash
from jobs.studies import landscape, landscape_results
from jobs.studies.compared import PAPERS
from symcore.population import load
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TREATMENTS = {"standard": Standard(), "sigma": SigmaAsymmetric(), "w": WAsymmetric()}
CELLS = 13


def computed(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("records.spool", surface.GRID)}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Hash and folder of a train run of three networks per treatment."""
    found = {}
    for name, treatment in TREATMENTS.items():
        spec, folder = trained(treatment), tmp_path_factory.mktemp(name)
        assert carried_out(spec, folder, {}).state == "done"
        found[name] = spec_hash(spec), folder
    return found


def surface_of(source: str, plane: RandomPlane | ThroughPlane, **change: Any) -> surface.Spec:
    return surface.Spec(**{"data": "digits", "source": source, "plane": plane, "cells": CELLS} | change)


@pytest.fixture(scope="module")
def undisturbed(
    networks: dict[str, tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[surface.Spec, Path]:
    """A surface of many batches that nothing happened to."""
    source, folder = networks["standard"]
    spec, own = surface_of(source, ThroughPlane(), cells=33, images=100), tmp_path_factory.mktemp("surface")
    assert carried_out(spec, own, {source: folder}).state == "done"
    return spec, own


@pytest.mark.parametrize("name", TREATMENTS)
def test_on_every_plane_the_networks_have_the_loss_that_they_were_trained_to(
    networks: dict[str, tuple[str, Path]], tmp_path: Path, name: str
) -> None:
    source, folder = networks[name]
    metrics = records(folder, "metric").to_pylist()
    final = {row["member"]: row["value"] for row in metrics if row["name"] == "final/test/loss"}
    for place, plane in enumerate((RandomPlane(member=2), ThroughPlane(members=(2, 0, 1)))):
        own = tmp_path / str(place)
        assert carried_out(surface_of(source, plane, images=0), own, {source: folder}).state == "done"
        marks = {row["name"]: row for row in records(own, "surface_mark").to_pylist()}
        for mark, member in zip("abc", (2, 0, 1), strict=True):
            if mark in marks:
                assert marks[mark]["loss"] == pytest.approx(final[member], rel=1e-4)
        assert set(marks) == ({"a"} if place == 0 else {"a", "b", "c", *EDGES})


def test_a_midpoint_is_the_mean_of_its_networks_and_lies_between_them(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """The same number as an interpolation's, whose midpoint is half of each network's weights."""
    from jobs.kinds import interpolate

    source, folder = networks["standard"]
    path = interpolate.Spec(
        data="digits", source=source, pairs=((0, 1), (1, 2), (0, 2)), points=3, splits=("test",)
    )
    for spec, name in ((path, "path"), (surface_of(source, ThroughPlane(), images=0), "surface")):
        assert carried_out(spec, tmp_path / name, {source: folder}).state == "done"
    marks = {row["name"]: row for row in records(tmp_path / "surface", "surface_mark").to_pylist()}
    points = records(tmp_path / "path", "path_point").to_pylist()
    middles = {EDGES[row["pair"]]: row["loss"] for row in points if row["alpha"] == 0.5}
    for name, loss in middles.items():
        assert marks[name]["loss"] == pytest.approx(loss, rel=1e-4)
        for axis in ("x", "y"):
            ends = [marks[end][axis] for end in name]
            assert marks[name][axis] == pytest.approx(np.mean(ends))
    assert (marks["a"]["x"], marks["a"]["y"], marks["b"]["x"], marks["b"]["y"]) == (0, 0, 1, 0)


def test_lengths_through_three_networks_are_in_distances_between_the_first_two(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["w"]
    carried_out(surface_of(source, ThroughPlane()), tmp_path / "s", {source: folder})
    marks = {
        row["name"]: np.array([row["x"], row["y"]])
        for row in records(tmp_path / "s", "surface_mark").to_pylist()
    }
    weights = load(folder / "weights.safetensors").effective()

    def distance(one: int, other: int) -> float:
        return sum(float((w[one] - w[other]).double().square().sum()) for w in weights.values()) ** 0.5

    for ends in EDGES:
        on_plane = float(np.linalg.norm(marks[ends[0]] - marks[ends[1]]))
        assert on_plane == pytest.approx(
            distance(*("abc".index(end) for end in ends)) / distance(0, 1), rel=1e-4
        )


def test_every_cell_is_recorded_once_and_kept_as_a_grid(undisturbed: tuple[surface.Spec, Path]) -> None:
    spec, folder = undisturbed
    cells = records(folder, "surface_cell").to_pandas()
    assert len(cells) == spec.cells**2 == len(cells[["row", "column"]].drop_duplicates())
    with np.load(folder / surface.GRID) as grid:
        for name in ("loss", "accuracy"):
            np.testing.assert_array_equal(grid[name][cells["row"], cells["column"]], cells[name])
        np.testing.assert_array_equal(grid["x"][cells["column"]], cells["x"])
        np.testing.assert_array_equal(grid["y"][cells["row"]], cells["y"])
        assert (grid["x"][0], grid["x"][-1]) == (-0.25, 1.25)


def test_the_first_records_span_the_whole_surface(undisturbed: tuple[surface.Spec, Path]) -> None:
    spec, folder = undisturbed
    first = records(folder, "surface_cell").slice(0, 128).to_pandas()
    for name in ("row", "column"):
        known = np.sort(first[name].unique())
        assert (known[0], known[-1]) == (0, spec.cells - 1)
        assert np.diff(known).max() <= spec.cells // 4


@pytest.mark.parametrize("stops", [(1,), (200, 201), (700, 900), (1080,)])
def test_a_surface_that_was_stopped_goes_on_to_the_same_bytes(
    networks: dict[str, tuple[str, Path]],
    undisturbed: tuple[surface.Spec, Path],
    tmp_path: Path,
    stops: tuple[int, ...],
) -> None:
    (source, folder), (spec, whole) = networks["standard"], undisturbed
    own, recorded = tmp_path / "run", 0
    for stop in stops:
        assert carried_out(spec, own, {source: folder}, stop_at=stop).state == "interrupted"
        before, recorded = recorded, len(records(own, "surface_cell"))
        assert max(before, stop - surface_survey.BATCH) < recorded + 1
    assert carried_out(spec, own, {source: folder}).state == "done"
    assert computed(own) == computed(whole)


def test_a_surface_whose_records_are_cut_off_goes_on_from_those_that_are_whole(
    networks: dict[str, tuple[str, Path]], undisturbed: tuple[surface.Spec, Path], tmp_path: Path
) -> None:
    (source, folder), (spec, whole) = networks["standard"], undisturbed
    carried_out(spec, tmp_path, {source: folder}, stop_at=800)
    kept = (tmp_path / "records.spool").read_bytes()
    (tmp_path / "records.spool").write_bytes(kept[: len(kept) // 2])
    assert carried_out(spec, tmp_path, {source: folder}).state == "done"
    assert computed(tmp_path) == computed(whole)


@pytest.mark.slow
def test_killed_at_any_moment_the_next_attempt_reaches_the_same_bytes(
    networks: dict[str, tuple[str, Path]], undisturbed: tuple[surface.Spec, Path], tmp_path: Path
) -> None:
    (source, folder), (spec, whole) = networks["standard"], undisturbed
    own = tmp_path / "run"
    ends = []
    for batches in (1, 4, 7):
        process = multiprocessing.get_context("spawn").Process(
            target=carried_out, args=(spec, own, {source: folder})
        )
        process.start()
        while process.is_alive() and sum(1 for _ in spool.read(own / "records.spool")) < batches:
            time.sleep(0.001)
        process.kill()
        process.join()
        ends.append(process.exitcode)
    assert ends[0] == -signal.SIGKILL
    assert carried_out(spec, own, {source: folder}).state == "done"
    assert computed(own) == computed(whole)


def test_what_is_fixed_stays_fixed_on_a_random_plane(networks: dict[str, tuple[str, Path]]) -> None:
    population = load(networks["w"][1] / "weights.safetensors")
    section = surface._around(RandomPlane(member=1), CELLS, population)
    assert population.asymmetry is not None
    for name, free in population.asymmetry.trainable.items():
        for direction in (section.plane.first, section.plane.second):
            assert not direction[name][~free].any()
            assert direction[name][free].abs().min() > 0


def test_networks_with_masks_of_their_own_have_surfaces_too(tmp_path: Path) -> None:
    spec = trained(WAsymmetric(), mask_seeds=(4, 5, 6), training=TrainingSpec(epochs=1))
    carried_out(spec, tmp_path / "w", {})
    source = spec_hash(spec)
    outcome = carried_out(surface_of(source, RandomPlane(member=1)), tmp_path / "s", {source: tmp_path / "w"})
    assert outcome.state == "done"


def test_a_plane_needs_equal_gates_and_room_for_its_networks(tmp_path: Path) -> None:
    other = trained(SigmaAsymmetric(), mask_seeds=(4, 4, 5), training=TrainingSpec(epochs=1))
    carried_out(other, tmp_path / "sigma", {})
    gates = surface_of(spec_hash(other), ThroughPlane())
    outcome = carried_out(gates, tmp_path / "s", {spec_hash(other): tmp_path / "sigma"})
    assert "mask seeds [4, 4, 5]); accepted: equal ones" in outcome.error
    with pytest.raises(
        ValueError, match=r"margin: 0.1 leaves network c at \(0.5, 1.3\) outside; accepted: 0.3 or more"
    ):
        surface._check_inside(ThroughPlane(margin=0.1), [0.5, 1.3])


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"cells": 50}, ("cells",), "accepted: an odd number from 5"),
        ({"cells": 3}, ("cells",), "greater than or equal to 5"),
        ({"cells": 203}, ("cells",), "less than or equal to 201"),
        (
            {"plane": {"kind": "through", "members": [0, 1, 1]}},
            ("plane", "members"),
            "three networks",
        ),
        ({"plane": {"kind": "random", "span": 0}}, ("plane", "span"), "greater than 0"),
        ({"plane": {"kind": "flat"}}, ("plane", "kind"), "random"),
        ({"images": -1}, ("images",), "greater than or equal to 0"),
    ],
)
def test_a_wrong_field_of_a_surface_names_itself(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    given = {"kind": "surface", "data": "digits", "source": "0" * 32, "plane": {"kind": "random"}}
    with pytest.raises(ValidationError) as caught:
        registry.run_spec(given | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("plane", "at"), [(RandomPlane(member=3), "member"), (ThroughPlane(members=(0, 1, 3)), "members")]
)
def test_networks_that_were_not_trained_are_refused_before_the_run(
    plane: RandomPlane | ThroughPlane, at: str
) -> None:
    source = trained(Standard())
    with pytest.raises(ValidationError, match="accepted: members 0 to 2") as caught:
        surface.check_inputs(surface_of(spec_hash(source), plane), {spec_hash(source): source})
    assert caught.value.errors()[0]["loc"] == ("plane", at)


def roles(spec: landscape.Spec) -> dict[str, RunSpec]:
    return {run.role: run.spec for run in landscape.expand(spec)}


@pytest.mark.parametrize("preset", landscape.PRESETS.values(), ids=landscape.PRESETS)
def test_every_run_comes_after_its_inputs(preset: landscape.Spec) -> None:
    made: set[str] = set()
    for run in landscape.expand(preset.model_copy(update={"surfaces": 2})):
        assert set(run.spec.inputs()) <= made
        made.add(spec_hash(run.spec))
    assert len(made) == 3 * 5


def test_treatments_differ_in_nothing_but_the_treatment() -> None:
    planned = roles(landscape.Spec(surfaces=2, plane_seed=5, subset_seed=6))
    alike = [{"source"}, {"treatment", "mask_seeds"}]
    for part, but in (
        ("random/1", alike[0]),
        ("through/0", alike[0]),
        ("trajectory/0", alike[0]),
        ("train/0", alike[1]),
    ):
        left = [planned[f"{name}/{part}"].model_dump(exclude=but) for name in PAPERS]
        assert left[0] == left[1] == left[2]
    assert planned["w/random/1"].plane == RandomPlane(member=1, seed=5)


def test_more_surfaces_keep_the_earlier_ones() -> None:
    def hashes(surfaces: int) -> dict[str, str]:
        return {role: spec_hash(run) for role, run in roles(landscape.Spec(surfaces=surfaces)).items()}

    assert hashes(1).items() <= hashes(3).items()


def test_a_study_needs_the_networks_that_it_looks_at() -> None:
    with pytest.raises(ValidationError, match="4 of 3 networks; accepted: 0 to 3") as caught:
        landscape.Spec(surfaces=4)
    assert caught.value.errors()[0]["loc"] == ("surfaces",)


def test_costs_grow_with_cells_and_images_and_no_further_than_the_split() -> None:
    def flop(**change: Any) -> float:
        planned = planning.plan(
            landscape.Spec(data="mnist", training=TrainingSpec(epochs=1)).model_copy(update=change)
        )
        return planning.estimates(planned)["w/random/0"].flop

    assert flop(cells=101) == pytest.approx(flop() * (101 / 51) ** 2)
    assert flop(images=4000) == pytest.approx(2 * flop())
    assert flop(images=0) == flop(images=10_000) == flop(images=20_000)


def bowl(run: str, height: float, side: int = 21) -> list[dict[str, Any]]:
    """Cells of height * (x^2 + y^2) on [-1, 1]^2."""
    axis = np.linspace(-1, 1, side)
    return [
        {"run": run, "row": r, "column": c, "x": x, "y": y, "loss": height * (x * x + y * y), "accuracy": 1.0}
        for r, y in enumerate(axis)
        for c, x in enumerate(axis)
    ]


def marks(run: str, losses: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"run": run, "name": name, "x": 0.0, "y": 0.0, "loss": loss, "accuracy": 0.5}
        for name, loss in losses.items()
    ]


def results(
    cells: list[dict[str, Any]], at: list[dict[str, Any]], planned: dict[str, str]
) -> dict[str, pa.Table]:
    schemas = {
        name: pa.schema([pa.field("run", pa.string()), *surface.TABLES[name]]) for name in surface.TABLES
    }
    rows = {"surface_cell": cells, "surface_mark": at}
    tables = {
        name: pa.Table.from_pylist(rows.get(name, []), schema=schema) for name, schema in schemas.items()
    }
    return landscape.results(landscape.Spec(cells=21), planned, tables)


def test_the_flat_share_of_a_bowl_is_the_share_of_its_disc() -> None:
    planned = {"w/random/0": "r1", "w/random/1": "r2"}
    found = results(
        bowl("r1", 0.2) + bowl("r2", 0.4), marks("r1", {"a": 0.0}) + marks("r2", {"a": 0.0}), planned
    )
    inside = [np.mean([cell["loss"] <= FLAT for cell in bowl("", height)]) for height in (0.2, 0.4)]
    assert inside[0] == pytest.approx(
        np.pi * FLAT / 0.2 / 2.1**2, abs=0.01
    )  # cells reach half a cell beyond 1
    assert found["planes"]["flat_share"].to_pylist() == pytest.approx(inside)
    (row,) = found["summary"].to_pylist()
    assert row["flat_share"] == pytest.approx(np.mean(inside))
    assert row["flat_share_std"] == pytest.approx(np.std(inside, ddof=1))
    assert (row["surfaces"], row["images"], row["split"]) == (2, 497, "test")
    assert row["highest_loss"] == pytest.approx((0.4 + 0.8) / 2)
    assert row["barrier_midpoint"] is None


def test_barriers_between_three_networks_are_the_papers_definition() -> None:
    losses = {"a": 1.0, "b": 2.0, "c": 3.0, "ab": 2.5, "bc": 2.5, "ac": 5.0}
    found = results([], marks("r", losses), {"standard/through/0": "r"})
    (row,) = found["summary"].to_pylist()
    assert row["barrier_midpoint"] == pytest.approx(np.mean([1, 0, 3]))
    assert row["barrier_midpoint_std"] == pytest.approx(np.std([1, 0, 3], ddof=1))
    assert (row["loss"], row["networks"], row["pairs"]) == (pytest.approx(2), 3, 3)
    assert row["flat_share"] is None


def test_half_a_surface_says_nothing_of_flatness() -> None:
    found = results(bowl("r", 1.0)[:-1], marks("r", {"a": 0.0}), {"w/random/0": "r"})
    (plane,) = found["planes"].to_pylist()
    assert (plane["cells"], plane["flat_share"], plane["highest_loss"]) == (440, None, None)
    assert found["surfaces"].num_rows == 440


def test_rows_in_any_order_and_of_other_runs_give_the_same_results() -> None:
    planned = {"w/random/0": "r1", "standard/random/0": "r2", "w/train/0": "r3"}
    cells, at = bowl("r1", 0.2) + bowl("r2", 0.4), marks("r1", {"a": 0.0}) + marks("r2", {"a": 0.0})
    mixed = [cells[i] for i in np.random.default_rng(0).permutation(len(cells))] + bowl("r3", 1.0)
    found, again = results(cells, at, planned), results(mixed, at[::-1], planned)
    assert found == again
    assert found["planes"]["treatment"].to_pylist() == ["standard", "w"]


def test_a_study_of_which_nothing_is_done_has_empty_tables_and_a_headline() -> None:
    found = results([], [], {"w/random/0": "r"})
    assert {name: table.num_rows for name, table in found.items()} == dict.fromkeys(found, 0)
    assert found["summary"].schema == landscape_results.SUMMARY
    assert landscape.headline({name: table.to_pylist() for name, table in found.items()}).rows == ()


@pytest.mark.slow
def test_the_smoke_study_runs_from_end_to_end(tmp_path: Path) -> None:
    """Its answer is the paper's: no barrier between W-Asymmetric networks, where standard ones have one."""
    spec = landscape.PRESETS["smoke"]
    found = landscape.results(spec, *study_tables(landscape, spec, tmp_path))
    rows = {row["treatment"]: row for row in found["summary"].to_pylist()}
    assert rows["standard"]["barrier_midpoint"] > 0.3
    assert rows["w"]["barrier_midpoint"] < 0.1 * rows["standard"]["barrier_midpoint"]
    assert found["surfaces"].num_rows == 3 * 3 * spec.cells**2
    assert found["snapshots"].num_rows == 3 * spec.kept
    held = [row for row in found["planes"].to_pylist() if row["plane"] == "trajectory"]
    assert all(0.8 < row["explained_x"] + row["explained_y"] <= 1 for row in held)
    said = landscape.headline({name: table.to_pylist() for name, table in found.items()})
    assert [row[0] for row in said.rows] == ["Standard", "σ-Asymmetric", "W-Asymmetric"]
    assert "497 test images" in said.caption
