"""What a population of convolutional networks computes on maps [image, row, column, member, channel].

Side by side in one pixel, the channels of all members are one wide map to a library of convolutions, and a minibatch
flows through memory in one order. Each operation is one custom operator per direction, opaque to tracing and to the
compiler: plain tensor code on a CPU, the kernels of `kernels` on a GPU. Statistics and sums are float32 whatever the maps'
type is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


@torch.library.custom_op("symlab::normalise", mutates_args=())
def _normalise(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `normalise`; also the mean and 1 / standard deviation, float32 [image, member]."""
    if x.is_cuda:
        from symcore.interleaved.kernels import normalisation  # noqa: PLC0415 - Triton is there only where a GPU is

        return normalisation.normalise(x, weight, bias, residual, relu=relu, epsilon=epsilon)
    wide = x.float()
    mean = wide.mean((1, 2, 4))
    inverse = (wide.var((1, 2, 4), correction=0) + epsilon).rsqrt()
    y = _standardised(x, mean, inverse) * weight + bias
    if residual is not None:
        y = y + residual
    return (y.relu() if relu else y).to(x.dtype), mean, inverse


@torch.library.custom_op("symlab::normalise_backward", mutates_args=())
def _normalise_backward(
    gradient: Tensor,
    other: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: bool,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to x, residual (empty without one), and [weight, bias]; `y` is given for a ReLU after a sum.

    The gradient is the sum of two where the result was used twice.
    """
    if x.is_cuda:
        from symcore.interleaved.kernels import normalisation  # noqa: PLC0415

        return normalisation.normalise_backward(
            gradient, other, x, y, mean, inverse, weight, bias, residual=residual, relu=relu
        )
    standard, passed = _standardised(x, mean, inverse), gradient.float()
    if other is not None:
        passed = passed + other.float()
    if relu:
        passed = passed * ((standard * weight + bias if y is None else y) > 0)
    by_weight, by_bias = (passed * standard).sum((1, 2)), passed.sum((1, 2))
    entries = x[0, :, :, 0].numel()
    shift = ((by_bias * weight).sum(-1) / entries)[:, None, None, :, None]
    slope = ((by_weight * weight).sum(-1) / entries)[:, None, None, :, None]
    by_x = (passed * weight - shift - standard * slope) * inverse[:, None, None, :, None]
    by_residual = passed.to(x.dtype, copy=True) if residual else x.new_empty(0)
    return by_x.to(x.dtype), by_residual, torch.stack([by_weight.sum(0), by_bias.sum(0)])


def _standardised(x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    return (x.float() - mean[:, None, None, :, None]) * inverse[:, None, None, :, None]


class _Normalise(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        relu: bool,
        epsilon: float,
        uses: int,
    ) -> tuple[Tensor, ...]:
        x, residual = x.contiguous(), residual if residual is None else residual.contiguous()
        y, mean, inverse = torch.ops.symlab.normalise(x, weight, bias, residual, relu, epsilon)
        # without a sum, what a ReLU let pass follows from x
        ctx.save_for_backward(x, y if relu and residual is not None else None, mean, inverse, weight, bias)
        ctx.relu, ctx.residual = relu, residual is not None
        return y, *(y.view_as(y) for _ in range(uses - 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        first, *others = (gradient.contiguous() for gradient in gradients)
        by_x, by_residual, by_affine = torch.ops.symlab.normalise_backward(
            first, others[0] if others else None, *ctx.saved_tensors, ctx.residual, ctx.relu
        )
        return by_x, by_affine[0], by_affine[1], by_residual if ctx.residual else None, None, None, None


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    relu: bool = False,
    epsilon: float = 1e-5,
    uses: int = 1,
) -> tuple[Tensor, ...]:
    """Layer normalisation of each image of each member over pixels and channels, then + residual, then ReLU.

    Args:
        x: maps [image, row, column, member, channel]; so is what comes out.
        weight: float32 [member, channel].
        bias: likewise.
        residual: maps of x's shape.
        relu: whether negative values become 0.
        epsilon: what is added to variances.
        uses: 1, or 2 for a result that is used twice.

    Returns:
        One tensor for each use; all share memory, and their gradients are added where they are needed first.
    """
    out: tuple[Tensor, ...] = _Normalise.apply(x, weight, bias, residual, relu, epsilon, uses)  # type: ignore[no-untyped-call]
    return out


@torch.library.custom_op("symlab::gate", mutates_args=())
def _gate(x: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """See `gate`; also what the backward pass wants of the mixture F x, empty where it is made again."""
    if x.is_cuda:
        from symcore.interleaved.kernels import gates  # noqa: PLC0415

        return gates.gate(x, mixing)
    return (x @ mixing.T).sigmoid() * x, x.new_empty(0)


@torch.library.custom_op("symlab::gate_backward", mutates_args=())
def _gate_backward(
    gradient: Tensor, other: Tensor | None, x: Tensor, mixed: Tensor, mixing: Tensor
) -> Tensor:
    """The gradient with respect to x, of the sum of two where the result was used twice."""
    if x.is_cuda:
        from symcore.interleaved.kernels import gates  # noqa: PLC0415

        return gates.gate_backward(gradient, other, x, mixed, mixing)
    passed = gradient if other is None else gradient + other
    opened = (x @ mixing.T).sigmoid()
    return passed * opened + (passed * x * opened * (1 - opened)) @ mixing


class _Gate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mixing: Tensor, uses: int) -> tuple[Tensor, ...]:  # noqa: ANN401
        x, mixing = x.contiguous(), mixing.to(x.dtype).contiguous()
        y, mixed = torch.ops.symlab.gate(x, mixing)
        ctx.save_for_backward(x, mixed, mixing)
        return y, *(y.view_as(y) for _ in range(uses - 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        first, *others = (gradient.contiguous() for gradient in gradients)
        return (
            torch.ops.symlab.gate_backward(first, others[0] if others else None, *ctx.saved_tensors),
            None,
            None,
        )


def gate(x: Tensor, mixing: Tensor, *, uses: int = 1) -> tuple[Tensor, ...]:
    """FiGLU, sigmoid(F x) * x, of every pixel of every member (Lim et al. 2024, section 3.2).

    Args:
        x: maps [image, row, column, member, channel]; so is what comes out.
        mixing: F [channel, channel], one for all members; it has no gradient.
        uses: as in `normalise`.
    """
    out: tuple[Tensor, ...] = _Gate.apply(x, mixing, uses)  # type: ignore[no-untyped-call]
    return out


@torch.library.custom_op("symlab::convolve", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """See `convolve`."""
    if _own_kernel(x, weight, stride):
        from symcore.interleaved.kernels import convolutions  # noqa: PLC0415

        return convolutions.convolve(x, weight, stride)
    size = weight.shape[2]
    out = torch.conv2d(_as_channels(x), _as_filters(weight), None, stride, size // 2, 1, x.shape[3])
    return _as_maps(out, x.shape[3])


@torch.library.custom_op("symlab::convolve_by_input", mutates_args=())
def _convolve_by_input(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The gradient with respect to a convolution's input."""
    if _own_kernel(x, weight, stride):
        from symcore.interleaved.kernels import convolutions  # noqa: PLC0415

        return convolutions.convolve_by_input(gradient, weight, stride, x.shape[1], x.shape[2])
    return _as_maps(_library_backward(gradient, x, weight, stride, 0), x.shape[3])


@torch.library.custom_op("symlab::convolve_by_weight", mutates_args=())
def _convolve_by_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The gradient with respect to a convolution's filters, [member, out, k, k, in]; float32 unless the library gives it."""
    if _own_kernel(x, weight, stride):
        from symcore.interleaved.kernels import convolutions  # noqa: PLC0415

        return convolutions.convolve_by_weight(gradient, x, weight.shape[2], stride)
    found = _library_backward(gradient, x, weight, stride, 1)
    return found.permute(0, 2, 3, 1).contiguous().view(weight.shape)


def _own_kernel(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether cuDNN would go through the members one by one: its grouped kernels know equal channels and stride 1."""
    members, channels_out, size, _, channels_in = weight.shape
    one_by_one = channels_in != channels_out or stride > 1 or size == 1
    whole = x.shape[1] % stride == 0 and x.shape[2] % stride == 0
    return x.is_cuda and members > 1 and one_by_one and whole


def _as_channels(x: Tensor) -> Tensor:
    """Maps as torch's convolutions take them: [image, member * channel, row, column], in channels-last order."""
    return x.flatten(3).permute(0, 3, 1, 2)


def _as_filters(weight: Tensor) -> Tensor:
    return weight.flatten(0, 1).permute(0, 3, 1, 2)


def _as_maps(x: Tensor, members: int) -> Tensor:
    images, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).contiguous().view(images, height, width, members, channels // members)


def _library_backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, which: int) -> Tensor:
    padding, mask = weight.shape[2] // 2, [which == 0, which == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        _as_channels(gradient),
        _as_channels(x),
        _as_filters(weight),
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        False,  # noqa: FBT003 - not transposed
        [0, 0],
        x.shape[3],
        mask,
    )[which]
    return found


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:  # noqa: ANN401
        x, filters = x.contiguous(), weight.permute(0, 1, 3, 4, 2).to(x.dtype).contiguous()
        ctx.save_for_backward(x, filters)
        ctx.stride = stride
        out: Tensor = torch.ops.symlab.convolve(x, filters, stride)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, filters = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:
            by_x = torch.ops.symlab.convolve_by_input(gradient, x, filters, ctx.stride)
        if ctx.needs_input_grad[1]:
            found = torch.ops.symlab.convolve_by_weight(gradient, x, filters, ctx.stride)
            by_weight = found.permute(0, 1, 4, 2, 3)
        return by_x, by_weight, None


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Each member's convolution, padded by half the filter's size.

    Args:
        x: maps [image, row, column, member, in].
        weight: [member, out, in, k, k], k odd; it is rounded to x's type, its gradient where a library makes it.
        stride: rows and columns from one output to the next; both divide the map's.

    Returns:
        Maps [image, row / stride, column / stride, member, out].
    """
    out: Tensor = _Convolve.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return out
