"""Batch normalisation (Ioffe and Szegedy 2015) without running statistics, so that what a network does depends on its weights alone.

Called as it is, the module normalises by the batch that it sees, as in training. To evaluate weights, statistics are
estimated for these very weights (`symcore.calibration`) and given in the call like weights, under the names that
`observed` gives. So they are never interpolated, permuted or saved, and two equal networks always evaluate equally.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Each channel of [batch, channel] or [batch, channel, h, w] less its mean and over its standard deviation, then an affine map."""

    mean: Tensor | None
    variance: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        # names for statistics that a functional call may give; the module itself never holds any
        self.register_buffer("mean", None)
        self.register_buffer("variance", None)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; by the statistics of x itself unless the call gives others."""
        batch = self.mean is None
        # not nn.functional's, which refuses one image: its outputs are the bias, and shapes are read off such a pass
        return torch.batch_norm(
            x, self.weight, self.bias, self.mean, self.variance, batch, 0.0, EPSILON, cudnn_enabled=False
        )


def batch_norms(network: nn.Module) -> list[str]:
    """Names of a network's BatchNorm modules, in its own order."""
    return [name for name, module in network.named_modules() if isinstance(module, BatchNorm)]


def observed(network: nn.Module, call: Callable[[], object]) -> dict[str, Tensor]:
    """Mean and unbiased variance, [channel], of what each BatchNorm gets during one call of the network, as buffers by name."""
    seen: dict[str, Tensor] = {}

    def look(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1)
        seen[f"{name}.mean"], seen[f"{name}.variance"] = x.mean(1), x.var(1)

    hooks = [
        network.get_submodule(name).register_forward_pre_hook(partial(look, name))
        for name in batch_norms(network)
    ]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return seen
