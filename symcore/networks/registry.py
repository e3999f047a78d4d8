"""The networks that a spec can name, as one union discriminated by `kind`; `register` adds a person's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.registered import RegisteredSpec, register
from symcore.networks.resnet import ResNetSpec

__all__ = ["NetworkSpec", "register"]


def _of_a_kind(given: Any) -> Any:  # noqa: ANN401 - what came from outside
    """Settings that name no kind are a multilayer perceptron's; those with defaults of their own are of the kind they name."""
    if isinstance(given, Mapping):
        return {"kind": "mlp"} | dict(given)
    derived = isinstance(given, ResNetSpec) and type(given) is not ResNetSpec
    return given.model_dump() if derived else given


NetworkSpec = Annotated[
    MLPSpec | ResNetSpec | RecurrentSpec | GNNSpec | RegisteredSpec,
    Field(discriminator="kind"),
    BeforeValidator(_of_a_kind),
]
"""Union of the network specs; a new network joins it here."""
