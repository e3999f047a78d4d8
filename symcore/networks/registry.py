"""The networks that a spec can name, as one union discriminated by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec


def _mlp_unless_said(given: Any) -> Any:  # noqa: ANN401 - what came from outside
    """Settings that name no kind are a multilayer perceptron's."""
    return {"kind": "mlp"} | dict(given) if isinstance(given, Mapping) else given


NetworkSpec = Annotated[
    MLPSpec | ResNetSpec | RecurrentSpec | GNNSpec,
    Field(discriminator="kind"),
    BeforeValidator(_mlp_unless_said),
]
"""Union of the network specs; a new network joins it here."""
