"""What a hash promises: equal for equal questions whoever asks, another for every field that can change a number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from jobs import registry
from jobs.kinds import align, distance, interpolate, train
from jobs.specs import RunSpec, canonical_json, spec_hash
from symcore.data.sources import SOURCES
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TRAIN = train.Spec(
    data="digits",
    network=MLPSpec(width=16, depth=2),
    treatment=WAsymmetric(n_fix=(2, 2, 8), kappa=(1, 1, 0.5)),
    training=TrainingSpec(epochs=3),
    seeds=(1, 2),
    mask_seeds=(7,),
)
SIGMA = TRAIN.model_copy(update={"treatment": SigmaAsymmetric(std=0.5)})
ALIGN = align.Spec(source=spec_hash(TRAIN), pairs=((0, 1),))
PATH = interpolate.Spec(
    data="digits", source=spec_hash(TRAIN), alignment=spec_hash(ALIGN), pairs=((0, 1), (1, 0))
)
DISTANCE = distance.Spec(source=spec_hash(TRAIN), alignment=spec_hash(ALIGN), pairs=((0, 1), (1, 0)))
RUNS: list[RunSpec] = [TRAIN, SIGMA, ALIGN, PATH, DISTANCE]

OTHER: dict[str, Any] = {
    "data": "mnist",
    "data_checksum": None,  # the data says which it is
    "kind": None,  # another kind is another model
    "version": None,  # one version exists of each
    "method": None,
    "activation": "relu",
    "augment": "crop_flip",
    "norm": "none",
    "precision": "tf32",
    "warmup_start": 0.5,
    "form": "filter",
    "source": "0" * 32,
    "alignment": "0" * 32,
    "splits": ["test"],
    "mask_seeds": [7, 8],
    "points": 27,
}
"""Another valid value where adding 1 to a number does not give one."""


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*at, name))
    elif isinstance(value, list) and at[-1] not in OTHER:
        for place, inner in enumerate(value):
            yield from leaves(inner, (*at, place))
    else:
        yield at, value


def changed(dump: Any, at: tuple[str | int, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(dump))
    inner = copy
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = value
    return copy


@pytest.mark.parametrize("spec", RUNS, ids=lambda spec: spec.kind)
def test_every_field_changes_the_hash(spec: RunSpec) -> None:
    dump = spec.model_dump(mode="json")
    hashes = {spec_hash(spec)}
    tried = 1
    for at, value in leaves(dump):
        named = next(step for step in reversed(at) if isinstance(step, str))
        other = OTHER[named] if named in OTHER else value + 1
        if other is None or (named == "depth" and spec is TRAIN):  # n_fix is given for this depth alone
            continue
        if named == "seeds":
            other = value + 10
        given = changed(dump, at, other)
        if named == "data":
            del given["data_checksum"]  # it goes with the data
        hashes.add(spec_hash(registry.run_spec(given)))
        tried += 1
    assert len(hashes) == tried > 5


@pytest.mark.parametrize("spec", RUNS, ids=lambda spec: spec.kind)
def test_a_spec_survives_its_json_with_the_same_hash(spec: RunSpec) -> None:
    text = canonical_json(spec)
    shuffled = dict(reversed(json.loads(text).items()))
    assert spec_hash(registry.run_spec(text)) == spec_hash(registry.run_spec(shuffled)) == spec_hash(spec)


def test_the_hash_is_the_same_on_every_machine_and_day() -> None:
    assert spec_hash(TRAIN) == "f553b5c2e2b20bfd7518ce487fb0d914"


def test_defaults_written_out_or_left_out_ask_the_same() -> None:
    given = {
        "kind": "train",
        "data": "digits",
        "network": {},
        "treatment": {"kind": "standard"},
        "training": {},
    }
    short = registry.run_spec(given | {"seeds": [0]})
    long = registry.run_spec(short.model_dump(mode="json"))
    assert spec_hash(short) == spec_hash(long)
    assert short.data_checksum == SOURCES["digits"].checksum


def test_no_spec_holds_a_name_for_people() -> None:
    for kind in registry.kinds().values():
        assert not {"title", "name", "priority", "slots", "device", "threads"} & set(kind.Spec.model_fields)


def test_every_field_says_what_it_is() -> None:
    for found in (registry.kinds() | registry.studies()).values():
        for name, field in found.Spec.model_fields.items():
            assert field.description or name in {"kind", "version", "data_checksum"}, name


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"seeds": [1, 1]}, ("seeds",), "accepted: each seed once"),
        ({"mask_seeds": [1, 2, 3]}, ("mask_seeds",), "got 3; accepted: 1 or 2"),
        ({"mask_seeds": []}, ("mask_seeds",), "got 0; accepted: 1 or 2"),
        ({"treatment": {"kind": "standard"}}, ("mask_seeds",), "got 1; accepted: 0"),
        ({"data": "svhn"}, ("data",), "'digits', 'digits-noisy', 'mnist'"),
        ({"title": "mine"}, ("title",), "not permitted"),
        ({"seeds": []}, ("seeds",), "at least 1"),
        ({"seeds": [1, -1]}, ("seeds", 1), "greater than or equal to 0"),
        (
            {"treatment": {"kind": "w_asymmetric", "n_fix": [2, 17, 2]}},
            ("treatment", "n_fix"),
            "accepted: 0 to 16",
        ),
        (
            {"treatment": {"kind": "w_asymmetric", "n_fix": [2, 2]}},
            ("treatment", "n_fix"),
            "the network has 3 weight matrices",
        ),
        (
            {"treatment": {"kind": "w_asymmetric", "n_fix": [0, 0, 16], "kappa": [0, 0, 0]}},
            ("treatment", "n_fix"),
            "kappa above 0",
        ),
    ],
)
def test_a_wrong_train_spec_names_the_field_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.run_spec(TRAIN.model_dump(mode="json") | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        ({"pairs": []}, ("pairs",), "at least 1"),
        ({"pairs": [[0, 1], [0, 1]]}, ("pairs",), "accepted: each pair once"),
        ({"points": 24}, ("points",), "accepted: an odd number from 3"),
        ({"source": "abc"}, ("source",), "match pattern"),
        ({"splits": ["test", "test"]}, ("splits",), "accepted: each split once"),
        ({"data_checksum": "0" * 64}, ("data_checksum",), f"accepted: {SOURCES['digits'].checksum}"),
    ],
)
def test_a_wrong_path_spec_names_the_field_and_what_is_accepted(
    change: dict[str, Any], at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.run_spec(PATH.model_dump(mode="json") | change)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("spec", "change", "at", "message"),
    [
        (PATH, {}, None, ""),
        (ALIGN, {}, None, ""),
        (PATH, {"pairs": ((0, 2),), "alignment": None}, ("pairs",), "[0, 2] is not in source"),
        (ALIGN, {"pairs": ((2, 0),)}, ("pairs",), "accepted: members 0 to 1"),
        (PATH, {"data": "mnist"}, ("data",), "accepted: digits"),
        (PATH, {"pairs": ((1, 0),)}, ("alignment",), "accepted: an align run that does"),
        (PATH, {"source": spec_hash(ALIGN)}, ("source",), "accepted: the hash of a train run"),
    ],
)
def test_a_run_fits_those_that_it_reads(
    spec: RunSpec, change: dict[str, Any], at: tuple[str, ...] | None, message: str
) -> None:
    matched = ALIGN.model_copy(update={"pairs": ((0, 1), (1, 0))})
    upstream: dict[str, RunSpec] = {spec_hash(known): known for known in (TRAIN, ALIGN, matched)}
    if isinstance(spec, interpolate.Spec):
        spec = spec.model_copy(update={"alignment": spec_hash(matched)})
    asked = spec.model_copy(update=change)
    check = registry.kind_of(asked).check_inputs
    if at is None:
        check(asked, upstream)
        return
    with pytest.raises(ValidationError) as caught:
        check(asked, upstream)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert message in error["msg"]


def test_a_wholly_fixed_layer_is_allowed_where_its_constants_tell_rows_apart() -> None:
    treatment = WAsymmetric(n_fix=(0, 0, 16), kappa=(1, 1, 1))
    assert registry.run_spec(TRAIN.model_dump() | {"treatment": treatment}).treatment == treatment


def test_the_treatments_are_told_apart_by_the_hash() -> None:
    bare = TRAIN.model_dump(mode="json")
    treatments = [WAsymmetric(), SigmaAsymmetric(), Standard()]
    specs = [
        registry.run_spec(bare | {"treatment": t, "mask_seeds": [] if t.kind == "standard" else [7]})
        for t in treatments
    ]
    assert len({spec_hash(s) for s in specs}) == 3


def test_what_trains_otherwise_now_is_another_version() -> None:
    """Fixed biases that BatchNorm took out: stored runs are read under their hash, and new ones are not taken for them."""
    written = TRAIN.model_dump(mode="json") | {"treatment": {"kind": "fixed_biases"}}
    del written["version"]
    assert registry.run_spec(written).version == TRAIN.version == 1
    written["network"] |= {"norm": "batch"}
    now, old = registry.run_spec(written), registry.run_spec(written | {"version": 1}, stored=True)
    assert (now.version, old.version) == (2, 1)
    assert spec_hash(now) != spec_hash(old)
    assert registry.run_spec(canonical_json(now)) == now
    assert registry.run_spec(canonical_json(old), stored=True) == old
    with pytest.raises(
        ValidationError, match=r"1 is of an earlier version of the lab; accepted: 2"
    ) as caught:
        registry.run_spec(written | {"version": 1})
    assert caught.value.errors()[0]["loc"] == ("version",)
