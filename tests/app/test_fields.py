"""A form holds every spec of every study, gives it back unchanged, and says what is wrong where it is wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import BaseModel, Field, ValidationError

from app import fields
from app.controls import Choice, Items, Json, Models, Number, Switch, Text, accepted, read, shortest, show
from jobs import registry
from jobs.studies import lmc
from symcore.settings import Settings
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

PRESETS = [
    pytest.param(module.Spec, spec, id=f"{kind} {name}")
    for kind, module in registry.studies().items()
    for name, spec in module.PRESETS.items()
]


class Anything(Settings):
    """A spec with a field of each sort."""

    kind: Literal["anything"] = "anything"
    treatment: Treatment = Standard()
    perhaps: WAsymmetric | None = None
    """A model that may be left out."""
    rate: float = Field(default=0.1, gt=0, lt=1)
    limit: float | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: Annotated[int, Field(ge=1, le=9)] = 2
    names: tuple[Literal["a", "b"], ...] = ("a",)
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    tags: tuple[str, ...] = ("x",)
    pairs: tuple[tuple[int, int], ...] = ((0, 1),)
    order: Literal["up", "down"] | None = None
    on: bool = False
    note: str = ""


def round_trip(model: type[BaseModel], spec: BaseModel) -> BaseModel:
    return model.model_validate(fields.data(model, fields.initial(model, spec)))


@pytest.mark.parametrize(("model", "spec"), PRESETS)
def test_every_preset_of_every_study_comes_back_unchanged(model: type[BaseModel], spec: BaseModel) -> None:
    assert round_trip(model, spec) == spec


@given(
    some.builds(
        Anything,
        treatment=some.sampled_from(
            [Standard(), WAsymmetric(n_fix=(8, 64), kappa=(1, 0.25)), SigmaAsymmetric(std=0.01)]
        ),
        perhaps=some.sampled_from([None, WAsymmetric(), WAsymmetric(kappa=(0, 1e-7))]),
        rate=some.floats(0, 1, exclude_min=True, exclude_max=True),
        limit=some.none() | some.floats(allow_nan=False, allow_infinity=False),
        seed=some.integers(0, 2**63 - 1),
        steps=some.integers(1, 9),
        names=some.sampled_from([(), ("a",), ("b", "a")]),
        sizes=some.lists(some.integers(1, 10**6), max_size=4).map(tuple),
        tags=some.lists(some.sampled_from(["x", "y"]), max_size=3).map(tuple),
        pairs=some.lists(some.tuples(some.integers(), some.integers()), max_size=3).map(tuple),
        order=some.sampled_from([None, "up", "down"]),
        on=some.booleans(),
        note=some.just("") | some.just("plain words"),
    )
)
def test_every_sort_of_field_comes_back_unchanged(spec: Anything) -> None:
    assert round_trip(Anything, spec) == spec


def test_each_type_is_edited_in_its_own_way() -> None:
    controls = {field.path: field.control for field in fields.fields(Anything)}
    assert controls == {
        "treatment": Models(
            {member.model_fields["kind"].default: member for member in get_args(get_args(Treatment)[0])}
        ),
        "perhaps": Models({"w_asymmetric": WAsymmetric}),
        "rate": Number(integer=False, low=0, high=1, open_low=True, open_high=True),
        "limit": Number(integer=False),
        "seed": Number(integer=True, low=0, high=2**63, open_high=True),
        "steps": Number(integer=True, low=1, high=9),
        "names": Choice(("a", "b"), many=True),
        "sizes": Items(Number(integer=True, low=1)),
        "tags": Items(Text()),
        "pairs": Json(),
        "order": Choice(("up", "down")),
        "on": Switch(),
        "note": Text(),
    }


def test_help_is_the_fields_description() -> None:
    for field in fields.fields(lmc.Spec):
        assert field.help == " ".join((lmc.Spec.model_fields[field.path].description or "").split())
        assert field.help


def test_a_union_keeps_the_values_of_the_members_that_are_not_chosen() -> None:
    values = fields.initial(Anything, Anything(treatment=WAsymmetric(kappa=(1, 0.5))))
    assert values["treatment[w_asymmetric].kappa"] == "1, 0.5"
    away = values | {"treatment": "standard"}
    assert Anything.model_validate(fields.data(Anything, away)).treatment == Standard()
    assert {field.path for field in fields.chosen(Anything, away)}.isdisjoint({"treatment.kappa"})


WRONG = [
    ("network[mlp].width", 0, "network.width", "network.width: 0; accepted: an integer from 1 to 8192"),
    ("pairs", None, "pairs", "pairs: nothing given; accepted: an integer from 1 to 1000"),
    ("seed", -1, "seed", "seed: -1; accepted: an integer at least 0 and below 4294967296"),
    (
        "points",
        4,
        "points",
        "points: 4 is even, so that no point lies halfway; accepted: an odd number from 3",
    ),
    (
        "training[TrainingSpec].learning_rate",
        "fast",
        "training.learning_rate",
        "training.learning_rate: 'fast'; accepted: a number above 0 and at most 10",
    ),
    (
        "w[w_asymmetric].n_fix",
        "8, x",
        "w.n_fix",
        "w.n_fix: 'x'; accepted: a list, each an integer at least 0",
    ),
    (
        "treatments",
        [],
        "treatments",
        "treatments: none is chosen; accepted: one or more of standard, rebasin, rebasin_repair, rebasin_unsigned, activations, straight_through, sinkhorn, cycle, sigma, w, w_figlu, w0, syre, asym_init, fixed_biases",
    ),
]


@pytest.mark.parametrize(("key", "value", "path", "sentence"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_value_is_told_at_its_field(key: str, value: Any, path: str, sentence: str) -> None:
    values = fields.initial(lmc.Spec) | {key: value}
    assert key in fields.initial(lmc.Spec)
    with pytest.raises(ValidationError) as caught:
        lmc.Spec.model_validate(fields.data(lmc.Spec, values))
    assert fields.problems(caught.value, fields.chosen(lmc.Spec, values)) == {path: sentence}


def test_a_mismatch_with_the_network_is_told_at_the_field_that_can_mend_it() -> None:
    values = fields.initial(lmc.Spec) | {"w[w_asymmetric].n_fix": "900, 16, 16, 64"}
    with pytest.raises(ValidationError) as caught:
        lmc.Spec.model_validate(fields.data(lmc.Spec, values))
    ((path, sentence),) = fields.problems(caught.value, fields.chosen(lmc.Spec, values)).items()
    assert path == "w.n_fix"
    assert sentence.startswith("n_fix: 900")
    assert "accepted: 0 to 64" in sentence


@pytest.mark.parametrize(
    ("typed", "value"), [("1e-3", 0.001), (" 0.5 ", 0.5), ("−1", -1.0), ("", None), ("x", "x")]
)
def test_real_numbers_are_read_as_they_are_typed(typed: str, value: Any) -> None:
    assert read(Number(integer=False), typed) == value


@pytest.mark.parametrize("typed", ["8, 16, 64", "8 16 64", "(8, 16, 64)", "8;16;64,"])
def test_lists_are_read_however_they_are_separated(typed: str) -> None:
    assert read(Items(Number(integer=True)), typed) == [8, 16, 64]


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_the_shortest_text_of_a_number_reads_back_as_the_number(value: float) -> None:
    assert float(shortest(value)) == value
    assert read(Number(integer=False), show(Number(integer=False), value)) == value


def test_what_is_accepted_is_said_in_words() -> None:
    assert accepted(Number(integer=True, low=1)) == "an integer at least 1"
    assert accepted(Number(integer=False)) == "a number"
    assert accepted(Choice(("a", "b"))) == "one of a, b"
    assert accepted(Switch()) == "true or false"
