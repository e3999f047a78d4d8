"""What is done to a network's symmetries before training: nothing, weights or biases fixed, offsets, FiGLU, another start."""

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


class Masks(Settings):
    """Base of the treatments that draw masks."""

    form: Form = "entry"
    """What is fixed: single weights, or whole filters, which are all weights that read one input channel."""
    n_fix: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """How many in each row, one number per weight matrix; none given: fan-in / 8, last layer fan-in / 2; with convolutions as in the paper's ResNet20, in graph networks 6, in recurrent networks half of each row; where kappa is 0 the nearest number that tells rows apart."""
    kappa: tuple[Annotated[float, Field(ge=0, le=1e3)], ...] | None = None
    """Standard deviation of the fixed weights, one per weight matrix; none given: 1, the last two 1/2 and 1/4; with convolutions 2; in graph networks 1/2; for maps from a hidden state 0.9 / sqrt(n_fix)."""


class WAsymmetric(Masks):
    """Some weights of every row fixed to random constants (Lim et al. 2024, section 3.1): F + D * W."""

    label: ClassVar[str] = "W-Asymmetric"

    kind: Literal["w_asymmetric"] = "w_asymmetric"


class AsymmetricInit(Masks):
    """A standard network that starts from a W-Asymmetric one's weights, F + D * W, and trains all of them.

    It tells what fixing weights does from what a shared, larger start does; the paper has no such control.
    """

    label: ClassVar[str] = "asymmetrically initialised"

    kind: Literal["asymmetric_init"] = "asymmetric_init"


class Gates(Settings):
    """Base of the treatments that replace activations by FiGLU."""

    std: float | None = Field(default=None, gt=0, le=1e3)
    """Standard deviation of F's entries; none given: 1 / sqrt(width), in feature maps 1 / sqrt(channels). The paper's MNIST code uses 1."""


class SigmaAsymmetric(Gates):
    """Every hidden nonlinearity replaced by FiGLU, sigmoid(F x) * x (Lim et al. 2024, section 3.2)."""

    label: ClassVar[str] = "σ-Asymmetric"

    kind: Literal["sigma_asymmetric"] = "sigma_asymmetric"


class WFiGLU(Gates, Masks):
    """W-Asymmetric with FiGLU for every hidden nonlinearity, as the graph networks of the authors' code are.

    The paper has those keep GELU, as `WAsymmetric` does here.
    """

    label: ClassVar[str] = "W-Asymmetric and FiGLU"

    kind: Literal["w_figlu"] = "w_figlu"


class Syre(Settings):
    """A small fixed offset F added to every parameter, while weight decay acts on W alone (Ziyin et al. 2025): F + W.

    Every network can still be expressed; what has no symmetry is the loss with its decay. Without weight decay the
    offset is no more than a part of the start that all networks share.
    """

    label: ClassVar[str] = "syre"

    kind: Literal["syre"] = "syre"
    std: float | None = Field(default=None, gt=0, le=1e3)
    """Standard deviation of the offsets; none given: 0.01 / sqrt(fan-in), for biases and norms 0.01 / sqrt(their length)."""


class FixedBiases(Settings):
    """The hidden layers' biases drawn from U[-bound, bound] and not trained (Lim et al. 2024, appendix E.3).

    A hidden layer without biases, as a convolution before a norm, or before BatchNorm, which takes them out again, has
    those of its norm fixed.
    """

    label: ClassVar[str] = "fixed-bias"

    kind: Literal["fixed_biases"] = "fixed_biases"
    bound: float = Field(default=1.0, gt=0, le=1e3)
    """The largest bias; the paper tries 1, 3, 9 and 27."""


Treatment = Annotated[
    Standard | WAsymmetric | SigmaAsymmetric | WFiGLU | AsymmetricInit | Syre | FixedBiases,
    Field(discriminator="kind"),
]
"""Union of the treatments."""
