"""Align runs: old specs keep their hashes, data is named where it is read, and a stop loses nothing but time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kind_tools import carried_out, records
from pydantic import ValidationError
from safetensors.torch import load_file

from jobs import registry
from jobs.inputs import PERMUTATIONS, SIGNS
from jobs.kinds import align, interpolate, train
from jobs.specs import RunSpec, canonical_json, spec_hash
from symcore.align.activations import ActivationMatching
from symcore.align.cycle import CycleConsistent
from symcore.align.learning import LOOK
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.align.weights import WeightMatching
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard

NOWHERE = "0" * 32
PAIRS = ((0, 1), (2, 0))
METHODS: dict[str, Any] = {
    "weights": WeightMatching(),
    "activations": ActivationMatching(images=500),
    "straight through": StraightThrough(steps=LOOK + 5),
    "sinkhorn": Sinkhorn(steps=LOOK + 5),
    "distance": Sinkhorn(steps=LOOK + 5, objective="distance"),
    "cycle": CycleConsistent(),
}
LEARNED = {"straight through", "sinkhorn", "distance"}


def trained(network: Any = MLPSpec(width=16, depth=1)) -> train.Spec:  # noqa: B008 - settings are immutable
    return train.Spec(
        data="digits",
        network=network,
        treatment=Standard(),
        training=TrainingSpec(epochs=8, learning_rate=3e-3),
        seeds=(0, 1, 2),
    )


def aligning(source: str, method: Any) -> align.Spec:
    return align.Spec(
        source=source, pairs=PAIRS, method=method, data="digits" if method.reads_images else None
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Hash and folder of a train run of three networks of each form."""
    found = {}
    for form in (MLPSpec(width=16, depth=1), RecurrentSpec(width=10)):
        spec, folder = trained(form), tmp_path_factory.mktemp(form.kind)
        assert carried_out(spec, folder, {}).state == "done"
        found[form.kind] = spec_hash(spec), folder
    return found


def test_weight_matching_is_asked_for_as_it_always_was() -> None:
    """These hashes name runs in people's labs."""
    plain = align.Spec(source=NOWHERE, pairs=((0, 1),))
    assert spec_hash(plain) == "f43b1e33727c295003b33f1a8610a167"
    text = '{"kind":"align","version":1,"method":"weight_matching","source":"%s","pairs":[[0,1],[2,3]],"restarts":3,"max_sweeps":7,"seed":5}'
    old = registry.run_spec(text % NOWHERE)
    assert spec_hash(old) == "efa5a62ba749a46e489c34a22dda6f6b"
    assert old.method == WeightMatching(restarts=3, max_sweeps=7)
    nested = {
        "kind": "align",
        "source": NOWHERE,
        "pairs": [[0, 1]],
        "method": {"kind": "weight_matching", "restarts": 1},
    }
    assert spec_hash(registry.run_spec(nested)) == spec_hash(plain)


@pytest.mark.parametrize("method", ["sinkhorn", "cycle_consistent"])
def test_what_left_signs_alone_is_another_version(method: str) -> None:
    """Stored runs are read under their hash and never taken for what is computed now; a new one of that version is refused."""
    written = {"kind": "align", "method": {"kind": method}, "source": NOWHERE, "pairs": [[0, 1]]}
    written |= {"data": "digits"} if method == "sinkhorn" else {}
    now, old = registry.run_spec(written), registry.run_spec(written | {"version": 1}, stored=True)
    assert (now.version, old.version) == (2, 1)
    assert spec_hash(now) != spec_hash(old)
    assert registry.run_spec(canonical_json(now)) == now
    assert registry.run_spec(canonical_json(old), stored=True) == old
    with pytest.raises(ValidationError, match=r"1 is of an earlier version of the lab; accepted: 2"):
        registry.run_spec(written | {"version": 1})


@pytest.mark.parametrize("method", [*METHODS.values(), WeightMatching(signs=False)], ids=repr)
def test_every_setting_of_a_method_is_in_the_hash(method: Any) -> None:
    spec = aligning(NOWHERE, method)
    assert registry.run_spec(canonical_json(spec)) == spec
    hashes = {spec_hash(spec)}
    for name in type(method).model_fields:
        value = getattr(method, name)
        if name != "kind":
            others = {"similarity": "product", "objective": "midpoint"}
            other = others.get(name) or (not value if isinstance(value, bool) else value + 1)
            hashes.add(spec_hash(aligning(NOWHERE, method.model_copy(update={name: other}))))
    assert len(hashes) == len(type(method).model_fields)


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"method": {"kind": "sinkhorn"}}, ("data",), "accepted: the data set of the train run"),
        ({"data": "digits"}, ("data",), "digits is not read by weight matching as it is set; accepted: none"),
        ({"method": {"kind": "sinkhorn", "objective": "distance"}, "data": "digits"}, ("data",), "none"),
        ({"method": {"kind": "hungarian"}}, ("method", "kind"), "one of 'weight_matching', 'activation_m"),
        ({"method": {"kind": "sinkhorn", "steps": 0}, "data": "digits"}, ("method", "steps"), "equal to 1"),
        ({"method": "weight_matching", "restarts": 0}, ("method", "restarts"), "equal to 1"),
    ],
)
def test_a_wrong_field_names_itself_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.run_spec({"kind": "align", "source": NOWHERE, "pairs": [[0, 1]]} | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


def test_images_are_those_that_the_networks_were_trained_on() -> None:
    source = trained()
    spec = align.Spec(
        source=spec_hash(source), pairs=PAIRS, method=ActivationMatching(), data="fashion-mnist"
    )
    with pytest.raises(ValidationError, match="accepted: digits"):
        align.check_inputs(spec, {spec_hash(source): source})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lowers_the_barrier_of_its_pairs(
    name: str, networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["mlp"]
    spec = aligning(source, METHODS[name])
    assert carried_out(spec, tmp_path / "align", {source: folder}).state == "done"
    known = records(tmp_path / "align", "alignment")
    assert known["pair"].to_pylist() == [0, 1]
    assert np.all(known["objective"].to_numpy() > known["identity_objective"].to_numpy())
    looks = records(tmp_path / "align", "alignment_look")
    expected = [(pair, step) for step in (0, LOOK, LOOK + 5) for pair in (0, 1)] if name in LEARNED else []
    assert list(zip(looks["pair"].to_pylist(), looks["step"].to_pylist(), strict=True)) == expected
    heights = {}
    for alignment in (None, spec_hash(spec)):
        path = interpolate.Spec(data="digits", source=source, alignment=alignment, pairs=PAIRS, points=3)
        own = tmp_path / f"path {alignment}"
        done = carried_out(path, own, {source: folder, spec_hash(spec): tmp_path / "align"})
        assert done.state == "done", done.error
        heights[alignment] = done.summary["train/barrier at midpoint"]
    before, after = heights.values()
    assert before is not None
    assert after is not None
    assert after < before


@pytest.mark.parametrize("name", sorted(METHODS.keys() - LEARNED))
def test_a_stopped_run_begins_again_and_ends_as_if_nothing_had_been(
    name: str, networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["mlp"]
    spec = aligning(source, METHODS[name])
    assert carried_out(spec, tmp_path / "calm", {source: folder}).state == "done"
    assert carried_out(spec, tmp_path / "torn", {source: folder}, stop_after=0).state == "interrupted"
    assert carried_out(spec, tmp_path / "torn", {source: folder}).state == "done"
    for file in ("records.spool", PERMUTATIONS):
        assert (tmp_path / "calm" / file).read_bytes() == (tmp_path / "torn" / file).read_bytes()


def test_signs_are_kept_only_where_they_are_asked_for(
    networks: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    source, folder = networks["recurrent"]
    kept = {}
    for signs in (True, False):
        spec, own = aligning(source, WeightMatching(signs=signs)), tmp_path / str(signs)
        assert carried_out(spec, own, {source: folder}).state == "done"
        kept[signs] = load_file(own / PERMUTATIONS)
    assert any(name.startswith(SIGNS) and torch.any(s < 0) for name, s in kept[True].items())
    assert not any(name.startswith(SIGNS) for name in kept[False])


def test_costs_grow_with_what_is_asked() -> None:
    upstream: dict[str, RunSpec] = {spec_hash(trained()): trained()}

    def flop(method: Any) -> float:
        return align.estimate(aligning(spec_hash(trained()), method), upstream).flop

    assert flop(WeightMatching(restarts=3)) == 3 * flop(WeightMatching())
    assert flop(ActivationMatching(images=100)) < flop(ActivationMatching(images=1000))
    assert flop(Sinkhorn(steps=200)) == 2 * flop(Sinkhorn(steps=100))
    assert flop(Sinkhorn(objective="distance")) < flop(Sinkhorn()) < flop(StraightThrough())
    assert flop(CycleConsistent()) > 0
