"""The methods of alignment that a spec can name, as one union discriminated by `kind`.

Each is its settings with one verb: `match(networks, images, seed=..., watch=...)` gives a `Matching` of all pairs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from symcore.align.activations import ActivationMatching
from symcore.align.cycle import CycleConsistent
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.align.weights import WeightMatching

Method = Annotated[
    WeightMatching | ActivationMatching | StraightThrough | Sinkhorn | CycleConsistent,
    Field(discriminator="kind"),
]
"""Union of the methods; a new one joins it here."""
