"""What is believed of weights before the data are seen, and how much that counts."""

from __future__ import annotations

from pydantic import Field

from symcore.posteriors.method import MethodSpec


class Prior(MethodSpec):
    """Base of the methods with a Gaussian prior N(0, 1 / (precision n)) of each weight, n the outputs of a linear layer or the input channels of a convolution."""

    precision: float = Field(default=1.0, gt=0, le=1e9)
    """What 1 over the prior's variance is n times."""
    temperature: float = Field(default=1.0, gt=0, le=1e3)
    """What the prior counts, in parts of what Bayes' rule has it count; below 1 the posterior is called cold. The authors' code has 1/4, and 1/8 where images are mirrored."""
