"""The form in which the lab takes a person's own network: without dropout, with its own BatchNorm in the place of torch's.

So what the network computes depends on its inputs and parameters alone, and BatchNorm's statistics are estimated anew
wherever weights are evaluated (`symcore.networks.batchnorm`).
"""

from __future__ import annotations

from torch import nn

from symcore.networks.batchnorm import EPSILON, BatchNorm

DROPOUTS = {nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout}
BATCH_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}


def adopt(network: nn.Module) -> nn.Module:
    """Swaps dropout for nothing and torch's BatchNorm for the lab's, in place; weights stay the same tensors.

    Left as they are, and refused by `symcore.networks.checks` for what they do: subclasses, and BatchNorm without weights or
    with another epsilon than the lab's.
    """
    swapped: dict[nn.Module, nn.Module] = {}  # a module of several names stays one
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and module not in swapped:
            swapped[module] = _adopted(module)
        if name and swapped[module] is not module:
            network.set_submodule(name, swapped[module])
    return network


def _adopted(module: nn.Module) -> nn.Module:
    if type(module) in DROPOUTS:
        return nn.Identity()
    fits = type(module) in BATCH_NORMS and module.affine and module.eps == EPSILON
    if not fits:
        return module
    norm = BatchNorm(len(module.get_parameter("weight")))
    norm.weight, norm.bias = module.get_parameter("weight"), module.get_parameter("bias")
    return norm
