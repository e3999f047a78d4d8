"""A network is named by its kind; what is wrong with it is told at the field that a person wrote."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.settings import Settings


class Holder(Settings):
    """Settings with a network, as studies and runs have one."""

    network: NetworkSpec = MLPSpec()
    pairs: int = 1


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ({}, MLPSpec()),
        ({"width": 64}, MLPSpec(width=64)),
        ({"kind": "mlp", "depth": 2}, MLPSpec(depth=2)),
        ({"kind": "resnet"}, ResNetSpec(depth=20, width=1)),
        ({"kind": "resnet", "width": "0.875"}, ResNetSpec(width=0.875)),
        (ResNetSpec(depth=8), ResNetSpec(depth=8)),
        ({"kind": "recurrent", "cell": "gru"}, RecurrentSpec(cell="gru", width=64)),
    ],
)
def test_settings_without_a_kind_are_a_perceptrons(
    given: Any, network: MLPSpec | ResNetSpec | RecurrentSpec
) -> None:
    holder = Holder.model_validate({"network": given})
    assert holder.network == network
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    assert Holder().network == MLPSpec()


@pytest.mark.parametrize(
    ("given", "at", "value", "words"),
    [
        ({"kind": "kan"}, ("network", "kind"), "kan", "one of 'mlp', 'resnet', 'recurrent', 'gnn'"),
        ({"width": "wide"}, ("network", "width"), "wide", "valid integer"),
        ({"kind": "resnet", "depth": 9}, ("network", "depth"), 9, "9 is not 6 n + 2; accepted: 8, 14"),
        ({"kind": "resnet", "activation": "gelu"}, ("network", "activation"), "gelu", "not permitted"),
        (3, ("network",), 3, "dictionary"),
    ],
)
def test_a_wrong_network_is_told_at_the_field_without_the_kind_between(
    given: Any, at: tuple[str, ...], value: object, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"network": given, "pairs": "x"})
    network, pairs = caught.value.errors()
    assert (network["loc"], network["input"]) == (at, value)
    assert words in network["msg"]
    assert (pairs["loc"], pairs["type"]) == (("pairs",), "int_parsing")
