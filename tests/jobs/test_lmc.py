"""The LMC studies: which runs it plans, what they share, and that its numbers are the paper's definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from jobs import planning, registry
from jobs.kinds import interpolate, train
from jobs.specs import RunSpec, spec_hash
from jobs.studies import aligned, lmc, lmc_gnn, lmc_recipe, lmc_resnet20, lmc_resnet20x8, lmc_results
from symcore.align.weights import WeightMatching
from symcore.networks.resnet import ResNetSpec
from symcore.training import TrainingSpec
from symcore.treatments import (
    AsymmetricInit,
    FixedBiases,
    SigmaAsymmetric,
    Standard,
    Syre,
    WAsymmetric,
    WFiGLU,
)


def roles(spec: lmc.Spec) -> dict[str, RunSpec]:
    return {run.role: run.spec for run in lmc.expand(spec)}


def hashes(spec: lmc.Spec) -> dict[str, str]:
    return {role: spec_hash(run) for role, run in roles(spec).items()}


WIDE = {
    "smoke": "1da3118565d73afb9c85d98827b64c73",
    "laptop": "2753eee72eb85e4ebc6541caa2a2cc0f",
    "paper": "7b90b913e85944646f4c50ac2aa61ea6",
}
"""Hashes of the first runs of the wide networks' presets, as people have stored them."""
ROWS = (lmc, lmc_resnet20, lmc_resnet20x8, lmc_gnn)
MASKED = ("w", "w_figlu", "w0", "asym_init")
"""Treatments with the masks of `w`."""
PRESETS = {f"{row.Spec().kind}:{name}": spec for row in ROWS for name, spec in row.PRESETS.items()}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_run_comes_after_its_inputs(preset: lmc_recipe.LMCSpec) -> None:
    made: set[str] = set()
    for run in lmc_recipe.expand(preset.model_copy(update={"pairs": 12, "block": 5})):
        assert set(run.spec.inputs()) <= made
        made.add(spec_hash(run.spec))
    assert len(made) == 3 * 2 * len(preset.treatments)  # blocks, each with a train or align run and a path


def test_a_finished_run_of_an_earlier_version_is_found_again() -> None:
    found = hashes(lmc.Spec())
    assert found["sigma/train/0"] == "91d09bd9b8ef504aaa3bf14fbd242714"
    assert found["rebasin/path/0"] == "dc21b8606dd9ca804dbff352375bb32e"


@pytest.mark.parametrize("more", [6, 10, 13, 20])
def test_more_pairs_reuse_the_full_blocks(more: int) -> None:
    five, many = hashes(lmc.Spec(pairs=5)), hashes(lmc.Spec(pairs=more))
    assert five.items() <= many.items()
    assert len(many) == 8 * -(-more // 5)


def test_each_treatment_trains_two_networks_a_pair_from_the_same_seeds() -> None:
    planned = roles(lmc.Spec(pairs=7, block=3))
    for name in ("standard", "sigma", "w"):
        trained = [run for role, run in planned.items() if role.startswith(f"{name}/train")]
        assert [seed for run in trained for seed in run.seeds] == list(range(14))
    paths = [run for role, run in planned.items() if role.startswith("w/path")]
    assert [run.pairs for run in paths] == [((0, 1), (2, 3), (4, 5)), ((0, 1), (2, 3), (4, 5)), ((0, 1),)]


def test_controls_share_seeds_masks_and_settings_with_what_they_control() -> None:
    spec = lmc.Spec(
        treatments=lmc_recipe.ALL,
        w=WAsymmetric(n_fix=(4, 8, 8, 32)),
        sigma=SigmaAsymmetric(std=0.5),
        sigma_learning_rate=1e-4,
        mask_seed=2,
    )
    planned = roles(spec)
    trained = {name: planned[f"{name}/train/0"] for name in (*MASKED, "syre", "fixed_biases")}
    assert len({run.seeds for run in trained.values()}) == 1
    assert {run.mask_seeds for run in trained.values()} == {(20_000,)}
    assert trained["w0"].treatment == WAsymmetric(n_fix=(4, 8, 8, 32), kappa=(0, 0, 0, 0))
    assert trained["w_figlu"].treatment == WFiGLU(n_fix=(4, 8, 8, 32), std=0.5)
    assert len({run.training for run in trained.values()}) == 1
    assert trained["asym_init"].treatment == AsymmetricInit(n_fix=(4, 8, 8, 32))
    assert (trained["syre"].treatment, trained["fixed_biases"].treatment) == (Syre(), FixedBiases())
    hashes_of = {spec_hash(run) for run in planned.values()}
    assert len(hashes_of) == 2 * len(lmc_recipe.ALL) - 1  # REPAIR has the alignment of Git Re-Basin


@pytest.mark.parametrize("row", [lmc, lmc_resnet20])
def test_the_controls_repeat_the_papers_networks_and_search_longer(row: Any) -> None:
    controls, paper = row.PRESETS["controls"], row.PRESETS["paper"]
    assert controls.treatments == ("standard", "rebasin", "w", "w0", "syre", "asym_init")
    assert (controls.restarts, paper.restarts) == (10, 1)
    assert hashes(paper)["w/path/0"] == hashes(controls)["w/path/0"]
    assert row.Spec.model_validate(controls.model_dump()) == controls


def test_the_controls_of_graph_networks_have_both_w_and_what_is_linear() -> None:
    """The authors' code has FiGLU besides the masks, whose gates are almost linear at the start."""
    controls, linear = hashes(lmc_gnn.PRESETS["controls"]), roles(lmc_gnn.PRESETS["linear"])
    paper = hashes(lmc_gnn.PRESETS["paper"])
    assert {role: paper[role] for role in paper if role in controls} == {
        role: found for role, found in controls.items() if role in paper
    }
    assert {role.partition("/")[0] for role in set(controls) - set(paper)} == {
        "w_figlu",
        "w0",
        "syre",
        "asym_init",
    }
    trained = roles(lmc_gnn.PRESETS["controls"])["w_figlu/train/0"]
    assert trained.treatment == WFiGLU(std=0.01 / 16)
    assert {run.network.activation for role, run in linear.items() if "/train/" in role} == {"none"}
    assert {role.partition("/")[0] for role in linear} == {"standard", "activations", "w"}


def test_another_study_seed_shares_no_network() -> None:
    seeds = [set(roles(lmc.Spec(pairs=1000, block=1000, seed=s))["w/train/0"].seeds) for s in (0, 1, 2)]
    assert len(set.union(*seeds)) == 3 * 2000


def test_rebasin_permutes_the_standard_networks_themselves() -> None:
    planned = roles(lmc.Spec())
    standard = spec_hash(planned["standard/train/0"])
    assert planned["rebasin/align/0"].source == planned["rebasin/path/0"].source == standard
    assert planned["rebasin/path/0"].alignment == spec_hash(planned["rebasin/align/0"])
    alone = roles(lmc.Spec(treatments=("rebasin",)))
    assert list(alone) == ["standard/train/0", "rebasin/align/0", "rebasin/path/0"]


def test_each_method_of_alignment_is_a_row_of_the_same_networks() -> None:
    plain, spec = roles(lmc.Spec()), lmc.Spec(treatments=aligned.ALL, restarts=3)
    planned = roles(spec)
    assert planned["rebasin/align/0"].method == WeightMatching(restarts=3)
    assert planned["rebasin_unsigned/align/0"].method == WeightMatching(restarts=3, signs=False)
    made = [name for name in aligned.ALL if f"{name}/align/0" in planned]
    assert made == list(spec.methods()) == list(aligned.ALL[1:7])
    for name in made:
        matched, path = planned[f"{name}/align/0"], planned[f"{name}/path/0"]
        assert matched.source == path.source == spec_hash(plain["standard/train/0"])
        assert path.alignment == spec_hash(matched)
    assert len({spec_hash(planned[f"{name}/align/0"]) for name in made}) == len(made)
    alone = roles(lmc.Spec(treatments=("sinkhorn",)))
    assert list(alone) == ["standard/train/0", "sinkhorn/align/0", "sinkhorn/path/0"]


def test_masks_are_shared_by_the_study_or_by_a_pair() -> None:
    shared = roles(lmc.Spec(pairs=4, block=2, mask_seed=3))
    assert {shared[f"w/train/{b}"].mask_seeds for b in (0, 1)} == {(30_000,)}
    own = roles(lmc.Spec(pairs=4, block=2, mask_seed=3, mask_per_pair=True))
    assert own["w/train/1"].mask_seeds == own["sigma/train/1"].mask_seeds == (30_002, 30_002, 30_003, 30_003)
    assert own["standard/train/1"] == shared["standard/train/1"]


def test_a_setting_repeats_only_the_runs_that_it_touches() -> None:
    base = hashes(lmc.Spec())

    def touched(**change: Any) -> set[str]:
        return {role for role, found in hashes(lmc.Spec(**change)).items() if base[role] != found}

    assert touched(w=WAsymmetric(n_fix=(1, 1, 1, 1))) == {"w/train/0", "w/path/0"}
    assert touched(sigma=SigmaAsymmetric(std=1)) == {"sigma/train/0", "sigma/path/0"}
    assert touched(restarts=2) == {"rebasin/align/0", "rebasin/path/0"}
    assert touched(points=27) == {f"{name}/path/0" for name in aligned.PAPERS}
    assert touched(mask_seed=1) == {
        f"{name}/{part}/0" for name in ("sigma", "w") for part in ("train", "path")
    }
    assert touched(seed=1) == set(base)


def test_the_paper_preset_is_the_papers_setting() -> None:
    planned = roles(lmc.PRESETS["paper"])
    trained = [planned[f"{name}/train/0"] for name in ("standard", "sigma", "w")]
    assert [t.treatment for t in trained] == [
        Standard(),
        SigmaAsymmetric(std=1),
        WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25)),
    ]
    for spec in trained:
        assert isinstance(spec, train.Spec)
        assert (spec.data, spec.network.width, spec.network.depth) == ("mnist", 512, 3)
        training = spec.training
        assert (training.epochs, training.batch, training.learning_rate, training.weight_decay) == (
            25,
            64,
            1e-3,
            0.03,
        )
        assert len(spec.seeds) == 10
    path = planned["w/path/0"]
    assert isinstance(path, interpolate.Spec)
    assert (path.points, len(path.pairs), path.splits) == (25, 5, ("train", "test"))


@pytest.mark.parametrize(("row", "width", "epochs"), [(lmc_resnet20, 1, 100), (lmc_resnet20x8, 8, 50)])
def test_the_paper_presets_of_residual_networks_are_the_papers_settings(
    row: Any, width: int, epochs: int
) -> None:
    spec = row.PRESETS["paper"]
    assert (spec.data, spec.network.depth, spec.network.width) == ("cifar-10", 20, width)
    planned = {run.role: run.spec for run in row.expand(spec)}
    names = ("standard", "sigma", "w")
    rates = {
        name: [planned[f"{name}/train/0"].training.rate(epoch) for epoch in range(epochs)] for name in names
    }
    for name, peak, growth in (("standard", 1e-2, 1.259), ("sigma", 1e-3, 1.122), ("w", 1e-2, 1.259)):
        training = planned[f"{name}/train/0"].training
        assert (training.batch, training.weight_decay, training.augment) == (128, 0, "crop_flip")
        assert (training.epochs, training.learning_rate) == (epochs, peak)
        rate = np.array(rates[name]) * peak
        assert rate[0] == pytest.approx(1e-4)
        assert rate[1:21] / rate[:20] == pytest.approx(growth, abs=1e-3)
        assert rate[20:] == pytest.approx(peak)
    networks = [len(run.seeds) for role, run in planned.items() if role.startswith("w/train")]
    assert sum(networks) == 10


def test_what_is_8_times_as_wide_is_so_unless_another_width_is_given() -> None:
    """However little of it is given; presets ask for the runs that they always asked for."""
    bare = registry.study_spec({"kind": "lmc_resnet20x8"})
    assert bare == lmc_resnet20x8.Spec()
    for given, network in (
        ({}, ResNetSpec(width=8)),
        ({"network": {"depth": 8}}, ResNetSpec(depth=8, width=8)),
        ({"network": {"kind": "resnet", "depth": 8, "width": 2}}, ResNetSpec(depth=8, width=2)),
        ({"network": ResNetSpec(depth=8)}, ResNetSpec(depth=8)),
    ):
        spec = lmc_resnet20x8.Spec.model_validate(given)
        assert {run.spec.network for run in lmc_resnet20x8.expand(spec) if run.role.endswith("train/0")} == {  # type: ignore[attr-defined]
            network
        }
    for name, first in WIDE.items():
        preset = lmc_resnet20x8.PRESETS[name]
        assert registry.study_spec(preset.model_dump(mode="json")) == preset
        assert spec_hash(lmc_resnet20x8.expand(preset)[0].spec) == first


def test_sigma_networks_own_learning_rate_starts_its_warm_up_where_the_others_do() -> None:
    training = TrainingSpec(learning_rate=1e-2, warmup_epochs=10, warmup_start=0.05)
    own = lmc.Spec(training=training, sigma_learning_rate=2e-3)
    planned = roles(own)
    assert planned["standard/train/0"].training == planned["w/train/0"].training == training
    sigma = planned["sigma/train/0"].training
    assert sigma.learning_rate == 2e-3
    assert sigma.rate(0) * 2e-3 == pytest.approx(training.rate(0) * 1e-2)
    lower = roles(own.model_copy(update={"sigma_learning_rate": 1e-4}))["sigma/train/0"].training
    assert {lower.rate(epoch) for epoch in range(20)} == {1.0}


def test_each_row_of_the_paper_has_its_own_numbers() -> None:
    mine = points("r", {"test": [tent(1, 2, 3)]})
    stated = []
    for row in ROWS:
        found = row.results(row.PRESETS["paper"], {"w/path/0": "r"}, {"path_point": mine})
        (loss,) = rows(found, "summary", quantity="loss")
        stated.append((loss["paper_barrier_midpoint"], loss["paper_barrier_midpoint_std"]))
        other = row.PRESETS["paper"].model_copy(update={"sigma_learning_rate": 3e-3})
        found = row.results(other, {"w/path/0": "r"}, {"path_point": mine})
        assert rows(found, "summary", quantity="loss")[0]["paper_barrier_midpoint"] is None
    assert stated == [(-0.012, 0.0), (0.934, 0.72), (0.031, 0.05), (0.095, 0.03)]


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"w": {"n_fix": [8, 16, 64]}}, ("w", "n_fix"), "the network has 4 weight matrices"),
        ({"w": {"n_fix": [65, 16, 16, 64]}}, ("w", "n_fix"), "accepted: 0 to 64"),
        ({"w": {"n_fix": [1, 16, 16, 64], "kappa": [0, 0, 0, 0]}}, ("w", "n_fix"), "64 ways"),
        ({"w": {"kappa": [1, 1]}}, ("w", "kappa"), "the network has 4 weight matrices"),
        ({"w": {"kappa": [1, 1, 1, -1]}}, ("w", "kappa", 3), "greater than or equal to 0"),
        ({"pairs": 0}, ("pairs",), "greater than or equal to 1"),
        ({"points": 10}, ("points",), "accepted: an odd number from 3"),
        ({"treatments": []}, ("treatments",), "accepted: one or more of standard, rebasin, rebasin_repair"),
        ({"treatments": ["tna"]}, ("treatments", 0), "'fixed_biases' or 'rebasin_repair'"),
        ({"treatments": ["w0"], "w": {"n_fix": [1, 16, 16, 64]}}, ("w", "n_fix"), "64 ways"),
        ({"treatments": ["asym_init"], "w": {"n_fix": [65, 16, 16, 64]}}, ("w", "n_fix"), "0 to 64"),
        ({"fixed_biases": {"bound": 0}}, ("fixed_biases", "bound"), "greater than 0"),
        (
            {
                "treatments": ["fixed_biases"],
                "network": {"kind": "resnet", "norm": "none"},
            },
            ("fixed_biases", "bound"),
            "no hidden biases",
        ),
        ({"network": {"width": 0}}, ("network", "width"), "greater than or equal to 1"),
        ({"pair": 3}, ("pair",), "not permitted"),
    ],
)
def test_a_wrong_field_names_itself_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.study_spec({"kind": "lmc"} | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


def test_settings_of_a_treatment_that_is_left_out_do_not_matter() -> None:
    spec = lmc.Spec(treatments=("sigma", "standard"), w=WAsymmetric(n_fix=(1, 2)))
    assert spec.treatments == ("standard", "sigma")
    assert set(roles(spec)) == {"standard/train/0", "standard/path/0", "sigma/train/0", "sigma/path/0"}


def test_costs_grow_with_what_is_asked() -> None:
    def cost(spec: lmc.Spec) -> Any:
        return planning.total(planning.estimates(planning.plan(spec)).values())

    laptop, paper = cost(lmc.PRESETS["laptop"]), cost(lmc.PRESETS["paper"])
    twice = cost(lmc.Spec(pairs=10))
    assert twice.flop == pytest.approx(2 * laptop.flop)
    assert twice.steps == 2 * laptop.steps
    assert twice.bytes_memory == laptop.bytes_memory
    assert paper.seconds("cpu") > 100 * laptop.seconds("cpu") > 1000 * laptop.seconds("cuda") > 0
    networks, images, weights = 10, 54_000, 784 * 512 + 2 * 512 * 512 + 512 * 10
    training = planning.estimates(planning.plan(lmc.PRESETS["paper"]))["w/train/0"].flop
    assert training > 6 * 25 * networks * images * weights


ALPHAS = np.linspace(0, 1, 25)


def points(run: str, losses: dict[str, Any], accuracy: float = 0.5) -> pa.Table:
    """Path points of one run: by split, loss [pair, alpha]."""
    rows = [
        {
            "run": run,
            "pair": pair,
            "alpha": alpha,
            "split": split,
            "loss": value,
            "accuracy": accuracy - value / 10,
        }
        for split, pairs in losses.items()
        for pair, path in enumerate(pairs)
        for alpha, value in zip(ALPHAS, path, strict=True)
    ]
    return pa.Table.from_pylist(rows)


def tent(start: float, end: float, height: float) -> Any:
    """A straight line from start to end with a tent of the given height above its middle."""
    return start + (end - start) * ALPHAS + height * (1 - np.abs(2 * ALPHAS - 1))


def rows(results: dict[str, pa.Table], table: str, **where: Any) -> list[dict[str, Any]]:
    return [
        row for row in results[table].to_pylist() if all(row[name] == value for name, value in where.items())
    ]


def test_barriers_are_the_papers_definition_over_all_blocks() -> None:
    spec = lmc.Spec(pairs=3, block=2)
    table = pa.concat_tables(
        [
            points("r2", {"test": [tent(1, 3, 6)]}),
            points("r1", {"test": [tent(1, 1, 2), tent(0, 2, 1)]}),
            points("other", {"test": [tent(9, 9, 9)]}),
        ]
    )
    found = lmc.results(
        spec, {"w/path/0": "r1", "w/path/1": "r2", "w/train/0": "other"}, {"path_point": table}
    )
    (loss,) = rows(found, "summary", quantity="loss")
    assert (loss["treatment"], loss["label"], loss["split"]) == ("w", "W-Asymmetric", "test")
    assert loss["barrier_midpoint"] == pytest.approx(3)
    assert loss["barrier_midpoint_std"] == pytest.approx(np.std([2, 1, 6], ddof=1))
    assert loss["pairs"] == 3
    assert loss["endpoint"] == pytest.approx(np.mean([1, 1, 0, 2, 1, 3]))
    assert loss["endpoint_std"] == pytest.approx(np.std([1, 1, 0, 2, 1, 3], ddof=1))
    assert loss["networks"] == 6
    assert loss["paper_barrier_midpoint"] is None
    dots = rows(found, "pairs", quantity="loss")
    assert [row["pair"] for row in dots] == [0, 1, 2]
    assert [row["barrier_midpoint"] for row in dots] == pytest.approx([2, 1, 6])
    assert [row["endpoint_b"] for row in dots] == pytest.approx([1, 2, 3])
    middle = rows(found, "curves", quantity="loss", alpha=0.5)
    assert [row["mean"] for row in middle] == pytest.approx([np.mean([3, 2, 8])])


def test_the_maximum_over_the_path_is_another_number_by_another_name() -> None:
    spike = tent(1, 2, 0)
    spike[6] += 0.7
    dip = tent(1, 2, -0.5)
    found = lmc.results(
        spec := lmc.Spec(), {"standard/path/0": "r"}, {"path_point": points("r", {"test": [spike, dip]})}
    )
    dots = rows(found, "pairs", quantity="loss")
    assert spec.points == len(ALPHAS)
    assert [row["barrier_midpoint"] for row in dots] == pytest.approx([0, -0.5])
    assert [row["barrier_maximum"] for row in dots] == pytest.approx([0.7, 0])


def test_a_drop_of_accuracy_is_a_positive_barrier() -> None:
    found = lmc.results(
        lmc.Spec(), {"w/path/0": "r"}, {"path_point": points("r", {"train": [tent(1, 2, 3)]})}
    )
    (loss,), (accuracy,) = (rows(found, "summary", quantity=q) for q in ("loss", "accuracy"))
    assert loss["barrier_midpoint"] == pytest.approx(3)
    assert accuracy["barrier_midpoint"] == pytest.approx(0.3)
    assert accuracy["barrier_maximum"] == pytest.approx(0.3)


def test_one_pair_has_no_spread() -> None:
    found = lmc.results(lmc.Spec(), {"w/path/0": "r"}, {"path_point": points("r", {"test": [tent(1, 2, 3)]})})
    (loss,) = rows(found, "summary", quantity="loss")
    assert loss["barrier_midpoint_std"] is None
    assert loss["endpoint_std"] == pytest.approx(np.std([1, 2], ddof=1))
    assert {row["std"] for row in rows(found, "curves")} == {None}


def test_the_papers_numbers_stand_only_beside_what_they_measure() -> None:
    mine = points("r", {"test": [tent(1, 2, 3)], "train": [tent(1, 2, 3)]})
    paper = lmc.PRESETS["paper"]
    alike: list[dict[str, Any]] = [{}, {"pairs": 9, "seed": 3, "points": 5, "restarts": 4}]
    apart: list[dict[str, Any]] = [
        {"data": "digits", "w": WAsymmetric()},
        {"network": paper.network.model_copy(update={"depth": 4})},
        {"training": paper.training.model_copy(update={"epochs": 2})},
        {"sigma": SigmaAsymmetric()},
        {"w": WAsymmetric()},
    ]
    for changes, expected in ((alike, [-0.012]), (apart, [])):
        for change in changes:
            spec = paper.model_copy(update=change)
            found = lmc.results(spec, {"w/path/0": "r"}, {"path_point": mine})
            stated = [row["paper_barrier_midpoint"] for row in rows(found, "summary")]
            assert [value for value in stated if value is not None] == expected


def test_a_study_of_which_nothing_is_done_has_empty_tables() -> None:
    nothing = points("r", {"test": [tent(1, 2, 3)]}).slice(0, 0)
    found = lmc.results(lmc.Spec(), {"w/path/0": "elsewhere"}, {"path_point": nothing})
    assert {name: table.num_rows for name, table in found.items()} == dict.fromkeys(found, 0)
    assert found["summary"].schema == lmc_results.SUMMARY


def test_rows_in_any_order_give_the_same_results() -> None:
    table = points("r", {"test": [tent(1, 2, 3), tent(2, 2, 1)], "train": [tent(0, 0, 1), tent(1, 2, 2)]})
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    found = [lmc.results(lmc.Spec(), {"sigma/path/0": "r"}, {"path_point": t}) for t in (table, shuffled)]
    assert found[0] == found[1]


def test_repair_is_a_path_beside_that_of_git_rebasin_on_the_same_alignment() -> None:
    planned = roles(lmc.Spec(treatments=("rebasin", "rebasin_repair"), temperature=True))
    assert set(planned) == {
        "standard/train/0", "rebasin/align/0", "rebasin/path/0", "rebasin_repair/path/0",
    }  # fmt: skip
    plain, repaired = planned["rebasin/path/0"], planned["rebasin_repair/path/0"]
    assert repaired == plain.model_copy(update={"repair": True})
    assert plain.temperature
    alone = roles(lmc.Spec(treatments=("rebasin_repair",)))
    assert set(alone) == {"standard/train/0", "rebasin/align/0", "rebasin_repair/path/0"}


def test_losses_at_fitted_temperatures_are_a_quantity_of_their_own() -> None:
    plain = points("r", {"test": [tent(1, 2, 3)], "train": [tent(1, 2, 3)]})
    best = points("r", {"test": [tent(1, 1, 0.5)], "train": [tent(1, 1, 0.5)]}).drop(["accuracy"])
    tables = {"path_point": plain, "path_calibrated": best}
    found = lmc.results(lmc.Spec(), {"w/path/0": "r"}, tables)
    barriers = {row["quantity"]: row["barrier_midpoint"] for row in rows(found, "summary", split="test")}
    assert barriers == pytest.approx({"loss": 3, "accuracy": 0.3, "calibrated loss": 0.5})
    without = lmc.results(lmc.Spec(), {"w/path/0": "r"}, {"path_point": plain})
    assert {row["quantity"] for row in rows(without, "summary")} == {"loss", "accuracy"}
