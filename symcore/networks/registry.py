"""The networks that a spec can name, as one union discriminated by `kind`."""

from __future__ import annotations

from symcore.networks.mlp import MLPSpec

NetworkSpec = MLPSpec
"""Union of the network specs; a new network joins it here."""
