"""Curves, layer-wise paths, training runs' surfaces, slices and curvature as runs: their ends are the networks'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kind_tools import carried_out, records, trained
from pydantic import ValidationError
from safetensors.torch import load_file

from jobs import registry
from jobs.inputs import snapshot
from jobs.kinds import align, curvature, curve, interpolate, layerwise, surface, train, valley
from jobs.kinds.surface_trajectory import TrajectoryPlane
from jobs.specs import RunSpec, spec_hash
from symcore.data.sources import load as load_data
from symcore.landscape.curvature import Hessian, trace
from symcore.landscape.surfaces import subset
from symcore.networks.mlp import MLPSpec
from symcore.population import build, load
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TREATMENTS = {"standard": Standard(), "sigma": SigmaAsymmetric(), "w": WAsymmetric()}
PAIRS = ((0, 1), (2, 0))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Hash and folder of a train run of three networks per treatment that kept two snapshots."""
    found = {}
    for name, treatment in TREATMENTS.items():
        spec, folder = trained(treatment, snapshots=2), tmp_path_factory.mktemp(name)
        assert carried_out(spec, folder, {}).state == "done"
        found[name] = spec_hash(spec), folder
    return found


def final(folder: Path, split: str = "test", quantity: str = "loss") -> dict[int, float]:
    """Loss or accuracy of each trained network."""
    rows = records(folder, "metric").to_pylist()
    return {row["member"]: row["value"] for row in rows if row["name"] == f"final/{split}/{quantity}"}


def curve_of(source: str, **change: Any) -> curve.Spec:
    settings = {"data": "digits", "source": source, "pairs": PAIRS, "training": {"epochs": 3}, "points": 5}
    return curve.Spec.model_validate(settings | change)


def test_a_run_that_keeps_no_snapshots_asks_what_it_asked_before() -> None:
    assert spec_hash(trained(Standard(), snapshots=0)) == spec_hash(trained(Standard()))
    assert "snapshots" not in trained(Standard()).model_dump()
    kept = trained(Standard(), snapshots=2)
    assert registry.run_spec(kept.model_dump(mode="json")) == kept
    assert spec_hash(kept) != spec_hash(trained(Standard()))


def test_snapshots_begin_with_initialisation_and_change_nothing(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    _, folder = networks["w"]
    carried_out(trained(WAsymmetric()), tmp_path / "plain", {})
    with_them, without = (load(at / "weights.safetensors") for at in (folder, tmp_path / "plain"))
    start = load(folder / snapshot(0))
    initial = build(start.design)
    for name, weights in with_them.parameters.items():
        assert weights.equal(without.parameters[name])
        assert start.parameters[name].equal(initial.parameters[name])
    assert [file.name for file in sorted(folder.glob("snapshot*"))] == [snapshot(0), snapshot(2)]
    artifacts = records(folder, "artifact").column("path").to_pylist()
    assert artifacts == ["weights.safetensors", snapshot(0), snapshot(2)]


def test_a_stopped_run_keeps_the_snapshots_of_an_undisturbed_one(tmp_path: Path) -> None:
    spec = trained(Standard(), training=TrainingSpec(epochs=30), snapshots=5)
    for stop in (20.0, 50.0):
        assert carried_out(spec, tmp_path / "stopped", {}, stop_at=stop).state == "interrupted"
    assert carried_out(spec, tmp_path / "stopped", {}).state == "done"
    assert carried_out(spec, tmp_path / "whole", {}).state == "done"
    assert len(train.snapshot_epochs(spec)) == 5
    for epoch in train.snapshot_epochs(spec):
        files = [(tmp_path / name / snapshot(epoch)).read_bytes() for name in ("stopped", "whole")]
        assert files[0] == files[1]


def _onward(name: str, source: str, averaged: int, **change: Any) -> train.Spec:
    """Training of one of `TREATMENTS` that goes on from a run of `networks`."""
    return trained(TREATMENTS[name], start=source, averaged=averaged, snapshots=1, **change)


@pytest.mark.parametrize("name", TREATMENTS)
@pytest.mark.parametrize("averaged", [0, 1, 2])
def test_training_goes_on_from_the_average_of_the_last_snapshots_and_the_end(
    networks: dict[str, tuple[str, Path]], tmp_path: Path, name: str, averaged: int
) -> None:
    """Of effective weights; what D fixes stays what it was, and training moves the rest."""
    source, folder = networks[name]
    outcome = carried_out(_onward(name, source, averaged), tmp_path, {source: folder})
    assert outcome.state == "done", outcome.error
    files = [snapshot(0), snapshot(2), "weights.safetensors"][2 - averaged :]
    each = [load(folder / file).effective() for file in files]
    start, end = (load(tmp_path / file) for file in (snapshot(0), "weights.safetensors"))
    for parameter, weights in start.effective().items():
        expected = sum(one[parameter].double() for one in each) / len(each)
        torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-6)
        moved = weights != end.effective()[parameter]
        if start.asymmetry and parameter in start.asymmetry.trainable:
            fixed = ~start.asymmetry.trainable[parameter]
            assert torch.equal(weights[:, fixed], each[-1][parameter][:, fixed])
            assert not moved[:, fixed].any()
        assert moved.any()


def test_training_that_went_on_and_was_stopped_ends_as_an_undisturbed_one(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["w"]
    sgd = TrainingSpec(epochs=30, optimizer="sgd", learning_rate=0.01)
    spec = _onward("w", source, 2, training=sgd)
    for stop in (20.0, 50.0):
        outcome = carried_out(spec, tmp_path / "stopped", {source: folder}, stop_at=stop)
        assert outcome.state == "interrupted", outcome.error
    for name in ("stopped", "whole"):
        assert carried_out(spec, tmp_path / name, {source: folder}).state == "done"
    ends = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert ends[0] == ends[1]


def test_a_start_must_have_trained_the_same_networks_and_kept_their_snapshots() -> None:
    source = trained(WAsymmetric(), snapshots=2)
    known: dict[str, RunSpec] = {spec_hash(source): source}
    matched = align.Spec(source=spec_hash(source), pairs=PAIRS)
    known[spec_hash(matched)] = matched
    train.check_inputs(_onward("w", spec_hash(source), 2), known)
    refused = {
        "averaged": (_onward("w", spec_hash(source), 3), "keeps 2 snapshots; accepted: as many or fewer"),
        "start": (_onward("w", spec_hash(matched), 2), "is align; accepted: the hash of a train run"),
        "seeds": (_onward("w", spec_hash(source), 2, seeds=(0, 1)), r"accepted: \[0, 1, 2\]"),
        "mask_seeds": (_onward("w", spec_hash(source), 2, mask_seeds=(7,)), r"accepted: \[0\]"),
        "treatment": (_onward("standard", spec_hash(source), 2), "accepted: .*w_asymmetric"),
    }
    for field, (spec, said) in refused.items():
        with pytest.raises(ValidationError, match=said) as caught:
            train.check_inputs(spec, known)
        assert caught.value.errors()[0]["loc"] == (field,)
    with pytest.raises(ValidationError, match=r"3, and start names no run .*; accepted: 0"):
        trained(Standard(), averaged=3)


def test_what_slices_average_must_be_of_the_same_networks() -> None:
    first = trained(Standard(), snapshots=2)
    onward = _onward("standard", spec_hash(first), 2)
    other = trained(WAsymmetric(), snapshots=2)
    known: dict[str, RunSpec] = {spec_hash(spec): spec for spec in (first, onward, other)}
    settings = {"data": "digits", "source": spec_hash(onward), "members": (0, 1), "directions": ("average",)}
    fits = valley.Spec.model_validate(settings | {"average_of": spec_hash(first), "averaged": 2})
    valley.check_inputs(fits, known)
    assert fits.inputs() == (spec_hash(onward), spec_hash(first))
    refused = [
        ("averaged", {"averaged": 3, "average_of": spec_hash(first)}, "average_of .* keeps 2 snapshots"),
        ("averaged", {"averaged": 2}, "source .* keeps 1 snapshots"),
        ("average_of", {"average_of": spec_hash(other)}, "by treatment, mask_seeds; accepted"),
    ]
    for field, change, said in refused:
        with pytest.raises(ValidationError, match=said) as caught:
            valley.check_inputs(valley.Spec.model_validate(settings | change), known)
        assert caught.value.errors()[0]["loc"] == (field,)
    with pytest.raises(ValidationError, match="no direction leads from an average"):
        valley.Spec.model_validate(settings | {"directions": ("sign",), "average_of": spec_hash(first)})


def test_a_run_without_a_start_asks_what_it_asked_before() -> None:
    assert not {"start", "averaged"} & trained(Standard()).model_dump().keys()
    assert trained(Standard()).inputs() == ()
    onward = _onward("standard", "0" * 32, 2)
    assert registry.run_spec(onward.model_dump(mode="json")) == onward
    assert onward.inputs() == ("0" * 32,)


def test_more_snapshots_than_epochs_are_refused() -> None:
    with pytest.raises(ValidationError, match="snapshots: 4 in 3 epochs; accepted: 0 to 3"):
        trained(Standard(), snapshots=4)


@pytest.mark.parametrize("name", TREATMENTS)
def test_a_curve_joins_its_networks_below_the_straight_path(
    networks: dict[str, tuple[str, Path]], tmp_path: Path, name: str
) -> None:
    source, folder = networks[name]
    outcome = carried_out(curve_of(source, training={"epochs": 20}), tmp_path / "curve", {source: folder})
    assert outcome.state == "done", outcome.error
    straight = interpolate.Spec(data="digits", source=source, pairs=PAIRS, points=5)
    carried_out(straight, tmp_path / "straight", {source: folder})
    both = [records(tmp_path / kind, "path_point").to_pandas() for kind in ("curve", "straight")]
    for split in ("train", "test"):
        losses = [
            points[points["split"] == split].pivot(index="pair", columns="alpha", values="loss").to_numpy()
            for points in both
        ]
        np.testing.assert_allclose(losses[0][:, [0, -1]], losses[1][:, [0, -1]], rtol=1e-5)
        assert (losses[0][:, 1:-1].mean(1) < losses[1][:, 1:-1].mean(1)).all()
    bends = load_file(tmp_path / "curve" / curve.BENDS)
    assert {len(weights) for weights in bends.values()} == {2}
    assert not (tmp_path / "curve" / "checkpoint.safetensors").exists()


def test_a_curve_that_was_stopped_goes_on_to_the_same_bytes(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["standard"]
    spec = curve_of(source, training={"epochs": 30}, bends=2)
    for stop in (10.0, 40.0):
        assert carried_out(spec, tmp_path / "a", {source: folder}, stop_at=stop).state == "interrupted"
    for name in "ab":
        assert carried_out(spec, tmp_path / name, {source: folder}).state == "done"
    for file in ("records.spool", curve.BENDS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_ends_of_layer_wise_paths_are_the_networks(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """All layers from the bottom, or from the top, make the second network; each path begins at the first."""
    source, folder = networks["w"]
    spec = layerwise.Spec(data="digits", source=source, pairs=PAIRS, points=3)
    outcome = carried_out(spec, tmp_path / "run", {source: folder})
    assert outcome.state == "done", outcome.error
    rows, losses = records(tmp_path / "run", "layer_point").to_pandas(), final(folder)
    assert rows["name"].unique().tolist() == ["hidden.0.linear", "readout"]
    for pair, (a, b) in enumerate(PAIRS):
        own = rows[rows["pair"] == pair]
        assert own[own["alpha"] == 0]["loss"].to_numpy() == pytest.approx(losses[a], rel=1e-4)
        whole = own[(own["alpha"] == 1) & (own["order"] == "bottom") & (own["layer"] == 1)]
        whole = [
            *whole["loss"],
            *own[(own["alpha"] == 1) & (own["order"] == "top") & (own["layer"] == 0)]["loss"],
        ]
        assert whole == pytest.approx([losses[b]] * 2, rel=1e-4)
    single = rows[rows["order"] == "single"].set_index(["pair", "layer", "alpha"])["loss"]
    bottom = rows[rows["order"] == "bottom"].set_index(["pair", "layer", "alpha"])["loss"]
    np.testing.assert_array_equal(single.xs(0, level="layer"), bottom.xs(0, level="layer"))


def test_layer_wise_runs_of_the_first_version_are_read_and_not_made() -> None:
    given = {"kind": "layerwise", "version": 1, "data": "digits", "source": "0" * 32, "pairs": [[0, 1]]}
    checksum = layerwise.Spec(data="digits", source="0" * 32, pairs=((0, 1),)).data_checksum
    assert registry.run_spec(given | {"data_checksum": checksum}, stored=True).version == 1
    with pytest.raises(ValidationError, match="of recurrent cells; accepted: 2") as caught:
        registry.run_spec(given)
    assert caught.value.errors()[0]["loc"] == ("version",)


def _aligned(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> tuple[str, align.Spec, dict[str, Path]]:
    """The standard networks' run, one that aligns their pairs, and the folders of both."""
    source, folder = networks["standard"]
    matched = align.Spec(source=source, pairs=PAIRS)
    carried_out(matched, tmp_path / "align", {source: folder})
    return source, matched, {source: folder, spec_hash(matched): tmp_path / "align"}


def test_aligned_networks_have_curves_and_layers_too(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, matched, inputs = _aligned(networks, tmp_path)
    layers = layerwise.Spec(
        data="digits", source=source, alignment=spec_hash(matched), pairs=PAIRS, points=3, orders=("bottom",)
    )
    for spec in (curve_of(source, alignment=spec_hash(matched)), layers):
        assert carried_out(spec, tmp_path / spec.kind, inputs).state == "done"
    ends = records(tmp_path / "layerwise", "layer_point").to_pandas()
    ends = ends[(ends["layer"] == 1) & (ends["alpha"] == 1)]["loss"].to_numpy()
    assert ends == pytest.approx([final(inputs[source])[b] for _, b in PAIRS], rel=1e-4)


def test_a_training_run_lies_on_its_plane_as_far_as_it_says(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """With two snapshots and the end all three lie on the plane, so nothing of the run is left out."""
    source, folder = networks["sigma"]
    spec = surface.Spec(data="digits", source=source, plane=TrajectoryPlane(member=1), cells=7, images=0)
    outcome = carried_out(spec, tmp_path / "run", {source: folder})
    assert outcome.state == "done", outcome.error
    rows = records(tmp_path / "run", "surface_snapshot").to_pandas()
    assert rows["epoch"].tolist() == [0, 2]
    np.testing.assert_allclose(rows["error"], 0, atol=1e-3)
    assert np.hypot(rows["x"], rows["y"]).max() == pytest.approx(1)
    assert records(tmp_path / "run", "surface_axis").to_pandas()["explained"].sum() == pytest.approx(1)
    (mark,) = records(tmp_path / "run", "surface_mark").to_pylist()
    assert (mark["x"], mark["y"]) == (0, 0)
    assert mark["loss"] == pytest.approx(final(folder)[1], rel=1e-4)
    cells = records(tmp_path / "run", "surface_cell").to_pandas()
    assert (cells["x"].min(), cells["x"].max()) == (-0.25, 1.25)
    assert (cells["y"].min(), cells["y"].max()) == (-0.75, 0.75)
    assert rows["loss"][0] > rows["loss"][1] > mark["loss"]


def test_a_trajectory_needs_snapshots() -> None:
    source = trained(Standard(), snapshots=1)
    spec = surface.Spec(data="digits", source=spec_hash(source), plane=TrajectoryPlane())
    with pytest.raises(
        ValidationError, match="keeps 1 snapshots; accepted: a train run that keeps 2 or more"
    ):
        surface.check_inputs(spec, {spec_hash(source): source})


@pytest.mark.parametrize("make", [valley.Spec, curvature.Spec], ids=["valley", "curvature"])
def test_networks_that_diverged_are_named(make: Any, tmp_path: Path) -> None:
    training = TrainingSpec(epochs=1, optimizer="sgd", learning_rate=10, weight_decay=10)
    source, folder = trained(Standard(), training=training, seeds=(0, 1)), tmp_path / "source"
    assert carried_out(source, folder, {}).state == "done"
    spec = make(data="digits", source=spec_hash(source), members=(0, 1))
    outcome = carried_out(spec, tmp_path / "run", {spec.source: folder})
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert outcome.error.startswith("ValueError: source: networks [0, 1] diverged in training")


@pytest.mark.parametrize("name", TREATMENTS)
def test_slices_go_through_the_networks_that_they_name(
    networks: dict[str, tuple[str, Path]], tmp_path: Path, name: str
) -> None:
    source, folder = networks[name]
    spec = valley.Spec(
        data="digits",
        source=source,
        members=(0, 2),
        directions=valley.DIRECTIONS,
        draws=2,
        averaged=1,
        points=5,
        splits=("test",),
        images=0,
    )
    outcome = carried_out(spec, tmp_path / "run", {source: folder})
    assert outcome.state == "done", outcome.error
    rows, losses = records(tmp_path / "run", "valley_point").to_pandas(), final(folder)
    at = rows.set_index(["direction", "member", "draw", "position"])["loss"]
    for member, other in ((0, 2), (2, 0)):
        for direction in valley.DRAWN:
            assert at[direction, member, 1, 0.0] == pytest.approx(losses[member], rel=1e-4)
        assert at["between", member, 0, 0.0] == pytest.approx(losses[member], rel=1e-4)
        assert at["between", member, 0, 1.0] == pytest.approx(losses[other], rel=1e-4)
        assert at["average", member, 0, 1.0] == pytest.approx(losses[member], rel=1e-4)
    slices = records(tmp_path / "run", "valley_slice").to_pandas()
    assert len(slices) == 2 * (6 * 2 + 2)
    whole = slices["direction"].isin(set(valley.DRAWN) - set(valley.PARTS))
    reach = slices[whole].groupby("member")["length"].agg(["min", "max"])
    np.testing.assert_allclose(reach["min"], reach["max"], rtol=1e-5)


def test_curvature_does_not_depend_on_what_stands_beside(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """And a midpoint of a network with itself is the network."""
    source, folder = networks["w"]
    base = {"data": "digits", "source": source, "images": 200, "eigenvalues": 2, "steps": 8, "probes": 4}
    together = curvature.Spec.model_validate(base | {"members": (0, 1, 2), "pairs": ((0, 1), (1, 1))})
    alone = curvature.Spec.model_validate(base | {"members": (1,)})
    for spec, name in ((together, "together"), (alone, "alone")):
        outcome = carried_out(spec, tmp_path / name, {source: folder})
        assert outcome.state == "done", outcome.error
    traces = records(tmp_path / "together", "curvature_trace").to_pandas().set_index(["place", "number"])
    (own,) = records(tmp_path / "alone", "curvature_trace").to_pylist()
    assert traces.loc[("network", 1), "trace"] == pytest.approx(own["trace"], rel=1e-3)
    assert traces.loc[("midpoint", 1), "trace"] == pytest.approx(own["trace"], rel=1e-3)
    population = load(folder / "weights.safetensors")
    assert population.asymmetry is not None
    fixed = sum(int((~d).sum()) for d in population.asymmetry.trainable.values())
    assert own["parameters"] == sum(p[0].numel() for p in population.parameters.values()) - fixed
    values = records(tmp_path / "together", "curvature_eigenvalue").to_pandas()
    assert (values.groupby(["place", "number"])["rank"].agg(list).map(lambda ranks: ranks == [0, 1])).all()
    first = values[values["rank"] == 0].set_index(["place", "number"])["value"]
    assert (first > 0).all()


def test_networks_with_batch_norm_have_curvature_and_every_direction(tmp_path: Path) -> None:
    source = trained(Standard(), network=MLPSpec(width=8, depth=1, norm="batch"), snapshots=1)
    carried_out(source, tmp_path / "train", {})
    inputs = {spec_hash(source): tmp_path / "train"}
    base = {"data": "digits", "source": spec_hash(source), "members": (0, 1), "images": 300}
    curved = curvature.Spec.model_validate(base | {"eigenvalues": 1, "steps": 6, "probes": 4})
    slices = valley.Spec.model_validate(
        base | {"directions": valley.DIRECTIONS, "draws": 1, "averaged": 1, "points": 5}
    )
    for spec in (curved, slices):
        outcome = carried_out(spec, tmp_path / spec.kind, inputs)
        assert outcome.state == "done", outcome.error
    tops = records(tmp_path / "curvature", "curvature_eigenvalue").to_pandas()
    assert (tops["value"] > 10 * tops["residual"]).all()
    reach = records(tmp_path / "valley", "valley_slice").to_pandas()
    lengths = reach[reach["member"] == 0].set_index("direction")["length"]
    assert np.hypot(lengths["norms"], lengths["others"]) == pytest.approx(lengths["uniform"], rel=1e-5)


def _curved(folder: Path) -> Any:
    """Largest eigenvalue and trace by place and number, with the positions."""
    tops = records(folder, "curvature_eigenvalue").to_pandas().set_index(["place", "number"])
    traces = records(folder, "curvature_trace").to_pandas().set_index(["place", "number"])
    points = records(folder, "curvature_point").to_pandas().set_index(["place", "number"])
    return points.assign(top=tops["value"], trace=traces["trace"])


def test_ends_of_aligned_paths_curve_as_their_networks(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """What is permuted has the same eigenvalues; midway it matters that it is."""
    source, matched, inputs = _aligned(networks, tmp_path)
    base = {"data": "digits", "source": source, "members": (0, 1, 2), "pairs": PAIRS, "images": 200}
    base |= {"eigenvalues": 1, "steps": 25, "probes": 2, "alphas": (0.0, 0.5, 1.0)}
    found = {}
    for alignment in (None, spec_hash(matched)):
        spec = curvature.Spec.model_validate(base | {"alignment": alignment})
        curvature.check_inputs(spec, {source: trained(Standard(), snapshots=2), spec_hash(matched): matched})
        outcome = carried_out(spec, tmp_path / str(alignment), inputs)
        assert outcome.state == "done", outcome.error
        found[alignment] = _curved(tmp_path / str(alignment))
        points = found[alignment].loc["path"]
        assert points[["a", "b"]].to_numpy().tolist() == [list(pair) for pair in PAIRS for _ in range(3)]
        assert points["alpha"].tolist() == [0.0, 0.5, 1.0] * 2
        own = found[alignment].loc["network"]["top"]
        ends = points[points["alpha"] != 0.5]["top"].to_numpy()
        np.testing.assert_allclose(ends, [own[member] for pair in PAIRS for member in pair], rtol=1e-3)
    plain, aligned = (points.loc[("path", 1), "top"] for points in found.values())
    assert plain != pytest.approx(aligned, rel=1e-2)


def test_curvature_is_had_on_trained_curves(networks: dict[str, tuple[str, Path]], tmp_path: Path) -> None:
    source, folder = networks["w"]
    bent = curve_of(source, bends=2)
    carried_out(bent, tmp_path / "curve", {source: folder})
    base = {"data": "digits", "source": source, "members": (0, 1), "pairs": PAIRS, "images": 200}
    base |= {"eigenvalues": 1, "steps": 4, "probes": 3, "curve": spec_hash(bent), "alphas": (0.0, 0.25)}
    spec = curvature.Spec.model_validate(base)
    curvature.check_inputs(spec, {source: trained(WAsymmetric(), snapshots=2), spec_hash(bent): bent})
    outcome = carried_out(spec, tmp_path / "run", {source: folder, spec_hash(bent): tmp_path / "curve"})
    assert outcome.state == "done", outcome.error
    found = _curved(tmp_path / "run")
    assert found.loc[("curve", 0), "trace"] == pytest.approx(found.loc[("network", 0), "trace"], rel=1e-4)

    kept, population = load_file(tmp_path / "curve" / curve.BENDS), load(folder / "weights.safetensors")
    assert population.asymmetry is not None
    a, b = (population.select([member]).effective() for member in PAIRS[1])
    weights = {n: (27 * w + 27 * kept[f"1/{n}"][1] + 9 * kept[f"2/{n}"][1] + b[n]) / 64 for n, w in a.items()}
    images = subset(load_data("digits", tmp_path), "train", 200, 0)
    split = images.splits["train"]
    hessian = Hessian(
        population.network,
        weights,
        population.buffers,
        images.normalise(split.images),
        split.labels,
        trainable=population.asymmetry.trainable,
    )
    expected = trace(hessian, probes=3, seed=0).mean[0]
    assert found.loc[("curve", 3), "trace"] == pytest.approx(expected, rel=1e-3)


def test_the_next_network_is_aligned_first_where_a_run_says_how(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["standard"]
    matched = align.Spec(source=source, pairs=((0, 2), (2, 0)))
    carried_out(matched, tmp_path / "align", {source: folder})
    inputs = {source: folder, spec_hash(matched): tmp_path / "align"}
    base = {"data": "digits", "source": source, "members": (0, 2), "directions": ("between",), "images": 0}
    losses, lengths = {}, {}
    for alignment in (None, spec_hash(matched)):
        spec = valley.Spec.model_validate(base | {"points": 5, "alignment": alignment})
        valley.check_inputs(spec, {source: trained(Standard(), snapshots=2), spec_hash(matched): matched})
        outcome = carried_out(spec, tmp_path / str(alignment), inputs)
        assert outcome.state == "done", outcome.error
        rows = records(tmp_path / str(alignment), "valley_point").to_pandas()
        rows = rows[(rows["split"] == "test") & rows["position"].isin([0.0, 1.0])]
        losses[alignment] = rows.set_index(["member", "position"])["loss"]
        lengths[alignment] = records(tmp_path / str(alignment), "valley_slice").to_pandas()["length"]
    plain, aligned = losses.values()
    np.testing.assert_allclose(plain, aligned, rtol=1e-4)
    plain, aligned = lengths.values()
    assert (aligned < plain).all()


def test_what_says_where_to_look_is_left_out_where_it_says_nothing_new() -> None:
    """So runs that were there before these settings are found again."""
    base = {"data": "digits", "source": "0" * 32, "members": (0, 1)}
    for kind, fields in ((curvature, {"alphas", "alignment", "curve"}), (valley, {"alignment"})):
        assert not fields & kind.Spec.model_validate(base).model_dump().keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "valley", "members": [0]}, "has no next network"),
        (
            {"kind": "valley", "members": [0], "directions": ["sign"], "alignment": "1" * 32},
            "accepted: none, or directions with between",
        ),
        ({"kind": "curvature", "members": [0], "alphas": [0.25]}, "no pair is named"),
        ({"kind": "curvature", "members": [0], "curve": "1" * 32}, "no pair is named"),
        ({"kind": "curvature", "members": [0], "pairs": [[0, 1]], "alphas": [0, 0]}, "a position twice"),
        ({"kind": "valley", "members": [1, 1]}, "holds a network twice"),
        (
            {"kind": "curvature", "members": [0], "eigenvalues": 50},
            "40 for 50 eigenvalues; accepted: 50 or more",
        ),
        ({"kind": "curve", "pairs": [[0, 1]], "training": {}, "bends": 9}, "less than or equal to 8"),
        (
            {"kind": "layerwise", "pairs": [[0, 1]], "orders": []},
            "accepted: one or more of single, bottom, top",
        ),
    ],
)
def test_a_wrong_field_names_itself(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        registry.run_spec({"data": "digits", "source": "0" * 32} | given)


def test_networks_that_were_not_trained_or_averaged_are_refused() -> None:
    source = trained(Standard(), snapshots=2)
    bent = curve_of(spec_hash(source))
    upstream: dict[str, RunSpec] = {spec_hash(source): source, spec_hash(bent): bent}
    base = {"data": "digits", "source": spec_hash(source)}
    for kind, given, message in (
        (valley, {"members": (0, 3)}, "members 0 to 2"),
        (curvature, {"members": (3,)}, "members 0 to 2"),
        (
            curvature,
            {"members": (0,), "pairs": ((0, 1),), "curve": spec_hash(bent)},
            "accepted: a curve run that does",
        ),
        (valley, {"members": (0, 1), "directions": ("average",), "averaged": 3}, "keeps 2 snapshots"),
    ):
        with pytest.raises(ValidationError, match=message):
            kind.check_inputs(kind.Spec.model_validate(base | given), upstream)


LOOKS: dict[str, tuple[type[RunSpec], dict[str, Any], str, tuple[int, ...]]] = {
    "straight": (interpolate.Spec, {"pairs": PAIRS, "points": 3}, "of the networks", (0, 1, 2)),
    "curve": (
        curve.Spec,
        {"pairs": PAIRS, "points": 3, "training": {"epochs": 1}},
        "of the networks",
        (0, 1, 2),
    ),
    "layers": (layerwise.Spec, {"pairs": PAIRS, "points": 3}, "of the first networks", (0, 2)),
    "around": (surface.Spec, {"plane": {"kind": "random"}, "cells": 5, "images": 0}, "in the middle", (0,)),
    "through": (
        surface.Spec,
        {"plane": {"kind": "through", "margin": 1.0}, "cells": 5, "images": 0},
        "of the networks",
        (0, 1, 2),
    ),
    "along": (
        surface.Spec,
        {"plane": {"kind": "trajectory", "member": 1}, "cells": 5, "images": 0},
        "at the end",
        (1,),
    ),
    "slices": (
        valley.Spec,
        {"members": (0, 2), "directions": ("sign",), "draws": 1, "points": 3, "images": 0},
        "of the networks",
        (0, 2),
    ),
    "curvature": (
        curvature.Spec,
        {"members": (0, 2), "split": "test", "eigenvalues": 1, "steps": 2, "probes": 2, "images": 0},
        "of the networks",
        (0, 2),
    ),
}
"""What runs of each kind ask, how their summaries call their networks, and which of the source's these are."""


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_every_run_says_what_its_networks_reach(
    networks: dict[str, tuple[str, Path]], tmp_path: Path, treatment: str, name: str
) -> None:
    """As training found it: mean, and spread of several."""
    source, folder = networks[treatment]
    model, asked, where, members = LOOKS[name]
    spec = model.model_validate({"data": "digits", "source": source} | asked)
    outcome = carried_out(spec, tmp_path / "run", {source: folder})
    assert outcome.state == "done", outcome.error
    for quantity in ("loss", "accuracy"):
        reached = [final(folder, quantity=quantity)[member] for member in members]
        told = f"test/{quantity} {where}"
        assert outcome.summary[told] == pytest.approx(np.mean(reached), rel=1e-4)
        spread = outcome.summary.get(f"{told}, spread")
        assert spread == (pytest.approx(np.std(reached, ddof=1), rel=1e-3) if len(members) > 1 else None)
