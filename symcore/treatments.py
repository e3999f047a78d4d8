"""What is done to a network's symmetries before training: nothing, fixed weights (W), or FiGLU (sigma)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from symcore.settings import Settings

Form = Literal["entry", "filter"]
"""Whether single weights of a row [in, k, k] are fixed, or whole filters [k, k]."""


class Standard(Settings):
    """The network as it is, with all its permutation symmetries."""

    label: ClassVar[str] = "standard"

    kind: Literal["standard"] = "standard"


class WAsymmetric(Settings):
    """Some weights of every row fixed to random constants (Lim et al. 2024, section 3.1): F + D * W."""

    label: ClassVar[str] = "W-Asymmetric"

    kind: Literal["w_asymmetric"] = "w_asymmetric"
    form: Form = "entry"
    """What is fixed: single weights, or whole filters, which are all weights that read one input channel."""
    n_fix: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """How many in each row, one number per weight matrix; none given: fan-in / 8, last layer fan-in / 2; with convolutions as in the paper's ResNet20, in graph networks 6, in recurrent networks half of each row."""
    kappa: tuple[Annotated[float, Field(ge=0, le=1e3)], ...] | None = None
    """Standard deviation of the fixed weights, one per weight matrix; none given: 1, the last two 1/2 and 1/4; with convolutions 2; in graph networks 1/2; for maps from a hidden state 0.9 / sqrt(n_fix)."""


class SigmaAsymmetric(Settings):
    """Every hidden nonlinearity replaced by FiGLU, sigmoid(F x) * x (Lim et al. 2024, section 3.2)."""

    label: ClassVar[str] = "σ-Asymmetric"

    kind: Literal["sigma_asymmetric"] = "sigma_asymmetric"
    std: float | None = Field(default=None, gt=0, le=1e3)
    """Standard deviation of F's entries; none given: 1 / sqrt(width), in feature maps 1 / sqrt(channels). The paper's MNIST code uses 1."""


Treatment = Annotated[Standard | WAsymmetric | SigmaAsymmetric, Field(discriminator="kind")]
"""Union of the treatments."""
