"""Specs on graphs: what fits is planned as one step an epoch, and what does not fit is said at its field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jobs import planning
from jobs.kinds import align, curvature, inspect, interpolate, train, valley
from jobs.specs import RunSpec, canonical_json, spec_hash
from jobs.studies import lmc, lmc_gnn, matrix, valleys
from symcore.align.activations import ActivationMatching
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.data.sources import SOURCES
from symcore.networks.gnn import GNNSpec
from symcore.treatments import WAsymmetric

GNN = {"kind": "gnn", "width": 8}


def trained(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"data": "cora", "network": GNN, "treatment": {"kind": "standard"}}
    return given | {"training": {}, "seeds": (0,)} | changes


@pytest.mark.parametrize(
    ("changes", "at", "message"),
    [
        (
            {"data": "digits"},
            ("network", "kind"),
            r"reads the features of nodes; got .*\[8, 8\], from digits",
        ),
        ({"network": {"kind": "resnet"}}, ("network", "kind"), "is no image.*, from cora"),
        ({"network": {"kind": "recurrent"}}, ("network", "kind"), "reads images row by row.*, from cora"),
        ({"training": {"augment": "crop_flip"}}, ("training", "augment"), "cora is a graph; accepted: none"),
        (
            {
                "network": GNN | {"activation": "none"},
                "treatment": {"kind": "sigma_asymmetric"},
                "mask_seeds": (0,),
            },
            ("treatment",),
            "replaces activations, and the network has none",
        ),
    ],
)
def test_what_does_not_fit_is_said_at_its_field(
    changes: dict[str, Any], at: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        train.Spec.model_validate(trained(**changes))
    (error,) = caught.value.errors()
    assert error["loc"] == at


@pytest.mark.parametrize("study", [lmc.Spec, matrix.Spec])
def test_a_study_says_so_too(study: type[lmc.Spec | matrix.Spec]) -> None:
    with pytest.raises(ValidationError, match="reads the features of nodes") as caught:
        study.model_validate({"data": "digits", "network": GNN})
    assert caught.value.errors()[0]["loc"] == ("network", "kind")


@pytest.mark.parametrize("network", [GNN, {"kind": "mlp", "norm": "batch"}], ids=["gnn", "mlp"])
def test_nodes_can_be_read_with_and_without_neighbours(network: dict[str, Any]) -> None:
    assert train.Spec.model_validate(trained(network=network)).data == "cora"
    inspected = {"data": "cora", "network": network, "treatment": {"kind": "standard"}}
    assert inspect.Spec.model_validate(inspected)


def test_an_epoch_is_planned_as_one_step_on_all_nodes() -> None:
    planned = lmc_gnn.expand(lmc_gnn.PRESETS["laptop"])
    found = planning.estimates(planned)
    assert found["standard/train/0"].steps == 100
    network = GNNSpec(width=64).build((1433,), 7)
    products = sum(2 * p.numel() for p in network.parameters() if p.ndim == 2)
    passes = 3 + 1  # forward, backward twice its work, and evaluation
    assert found["standard/train/0"].flop == 10 * 100 * passes * SOURCES["cora"].nodes * products


def test_the_papers_row() -> None:
    """Lim et al. 2024, appendix E.1: width 256, 500 steps at 1e-3 after 25 at less, n_fix 6, F ~ .01 / sqrt(256)."""
    runs: dict[str, RunSpec] = {run.role: run.spec for run in lmc_gnn.expand(lmc_gnn.PRESETS["paper"])}
    assert [role for role in runs if role.startswith("w/train")] == ["w/train/0", "w/train/1", "w/train/2"]
    spec = runs["sigma/train/0"]
    assert isinstance(spec, train.Spec)
    assert spec.network == GNNSpec(width=256, depth=3, norm="batch")
    assert spec.treatment.std == 0.01 / 256**0.5  # type: ignore[union-attr]
    assert (spec.training.epochs, spec.training.learning_rate, spec.training.weight_decay) == (500, 1e-3, 0)
    assert [spec.training.rate(step) for step in (0, 12, 24, 25)] == [1 / 25, 13 / 25, 1, 1]
    assert lmc_gnn.PRESETS["paper"].w == WAsymmetric()


def test_every_preset_is_valid_and_its_gates_go_with_its_width() -> None:
    for preset in lmc_gnn.PRESETS.values():
        assert lmc_gnn.Spec.model_validate_json(canonical_json(preset)) == preset
        assert preset.sigma.std == pytest.approx(0.01 / preset.network.width**0.5)


NORMED = {"kind": "mlp", "width": 8, "norm": "batch"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": GNN, "data": "cora"}, "each step of training sees all of cora"),
        (
            {"network": {"kind": "resnet", "norm": "none"}, "data": "cifar-10", "directions": ("others",)},
            "no norm with parameters; accepted: directions without others",
        ),
    ],
)
def test_directions_that_networks_do_not_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        valleys.Spec.model_validate(changes)
    (error,) = caught.value.errors()
    assert error["loc"] == ("directions",)


@pytest.mark.parametrize(
    ("data", "network", "lacking"), [("digits", NORMED, ()), ("cora", GNN, ("noise",))], ids=["norm", "graph"]
)
def test_runs_take_what_else_there_is(data: str, network: dict[str, Any], lacking: tuple[str, ...]) -> None:
    source = train.Spec.model_validate(trained(data=data, network=network, seeds=(0, 1), snapshots=4))
    named = spec_hash(source)
    given = {"data": data, "source": named, "members": (0, 1)}
    curvature.check_inputs(curvature.Spec.model_validate(given), {named: source})
    known = [name for name in valley.DIRECTIONS if name not in lacking]
    valley.check_inputs(valley.Spec.model_validate(given | {"directions": known}), {named: source})
    for name in lacking:
        spec = valley.Spec.model_validate(given | {"directions": (name,)})
        with pytest.raises(ValidationError, match=f"accepted: directions without {name}") as caught:
            valley.check_inputs(spec, {named: source})
        assert caught.value.errors()[0]["loc"] == ("directions",)


def test_activations_are_compared_on_all_nodes_as_in_the_paper() -> None:
    runs: dict[str, RunSpec] = {run.role: run.spec for run in lmc_gnn.expand(lmc_gnn.PRESETS["smoke"])}
    aligned, source = runs["activations/align/0"], runs["standard/train/0"]
    assert isinstance(aligned, align.Spec)
    assert isinstance(aligned.method, ActivationMatching)
    assert aligned.method.similarity == "product"
    few = aligned.model_copy(update={"method": ActivationMatching(images=1)})
    upstream = {aligned.source: source}
    assert align.estimate(few, upstream).flop == align.estimate(aligned, upstream).flop


@pytest.mark.parametrize("method", [StraightThrough(), Sinkhorn()], ids=lambda method: method.kind)
def test_what_learns_from_minibatches_takes_the_whole_graph_as_one(
    method: StraightThrough | Sinkhorn,
) -> None:
    source = train.Spec.model_validate(trained(seeds=(0, 1)))
    upstream: dict[str, RunSpec] = {spec_hash(source): source}

    def flop(batch: int) -> float:
        chosen = method.model_copy(update={"batch": batch})
        spec = align.Spec(data="cora", method=chosen, source=spec_hash(source), pairs=((0, 1),))
        return align.estimate(spec, upstream).flop

    assert flop(1) == flop(64)
    assert flop(1) > 3 * SOURCES["cora"].nodes * method.steps


def test_repair_looks_at_all_nodes() -> None:
    source = train.Spec.model_validate(trained(seeds=(0, 1)))
    upstream: dict[str, RunSpec] = {spec_hash(source): source}

    def flop(**settings: Any) -> float:
        spec = interpolate.Spec(
            data="cora", source=spec_hash(source), pairs=((0, 1),), splits=("test",), **settings
        )
        return interpolate.estimate(spec, upstream).flop

    assert flop(repair=True, repair_images=2) == 2 * flop()
