"""What each ATen operation says about its axes: which ones carry the same neurons, in the same order.

Every operation has a rule that ties the axes of its arguments in a partition and gives the axes of its result. A rule is
added with `@rule("aten.name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from symcore.symmetry.partition import Axes, Axis, AxisClasses


class DerivationError(Exception):
    """A network's permutations cannot be derived: an operation has no rule, or its rule does not cover this use."""


@dataclass(frozen=True)
class Call:
    """One operation of a graph, with every tensor among its arguments replaced by that tensor's axes."""

    place: str
    """What it is and where it stands, for messages: operation, node and module."""
    arguments: dict[str, Any]
    """By name as in the ATen schema, with `self` called `input`."""
    tensors: tuple[Axes, ...]
    """The tensors among the arguments, in order."""
    shape: tuple[int, ...]
    """Shape of the result."""


Rule = Callable[[AxisClasses, Call], Axes]
RULES: dict[str, Rule] = {}
"""By operation, "aten.linear" say, for all its overloads."""


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Registers a rule for some operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return register


def broadcast(axes: AxisClasses, tensors: Sequence[Axes]) -> Axes:
    """Ties tensors as elementwise operations do, last axes first; axes of size 1 stretch and tie nothing."""
    result: list[Axis] = []
    for place in range(max(map(len, tensors))):
        met = [tensor[-1 - place] for tensor in tensors if len(tensor) > place]
        wide = [axis for axis in met if axis.size != 1] or met[:1]
        for other in wide[1:]:
            axes.tie(wide[0], other)
        result.insert(0, wide[0])
    return tuple(result)


def elementwise(axes: AxisClasses, call: Call) -> Axes:
    """The result has the operands' axes, tied to each other. Holds for every operation that ATen tags pointwise."""
    return broadcast(axes, call.tensors)


rule(
    "aten.alias",
    "aten.contiguous",
    "aten.detach",
    "aten.detach_",
    "aten.dropout",
    "aten.hardswish",
    "aten.lift_fresh_copy",
    "aten.log_sigmoid",
    "aten.to",
)(elementwise)


@rule("aten.prelu")
def _prelu(axes: AxisClasses, call: Call) -> Axes:
    """A slope for each channel of [batch, channel, ...], or one for all."""
    x, weight = call.tensors
    if weight and weight[0].size != 1:
        axes.tie(x[1], weight[0])
    return x


@rule("aten.softmax", "aten.log_softmax")
def _normalised_over_an_axis(_axes: AxisClasses, call: Call) -> Axes:
    """Sums over an axis do not depend on its order, so the result has the input's axes."""
    return call.tensors[0]


@rule(
    *(
        f"aten.{name}"
        for value in ("zeros", "ones", "full")
        for name in (value, f"{value}_like", f"new_{value}")
    )
)
def _constant(axes: AxisClasses, call: Call) -> Axes:
    """All entries are equal, so any permutation leaves the tensor as it is."""
    return axes.free(call.shape)


@rule("aten.linear")
def _linear(axes: AxisClasses, call: Call) -> Axes:
    x, weight, bias = call.arguments["input"], call.arguments["weight"], call.arguments["bias"]
    axes.tie(x[-1], weight[1])
    if bias is not None:
        axes.tie(weight[0], bias[0])
    return (*x[:-1], weight[0])


@rule("aten.matmul", "aten.mm", "aten.bmm")
def _matmul(axes: AxisClasses, call: Call) -> Axes:
    """[..., n, k] @ [..., k, m] -> [..., n, m]; a vector has no n, or no m."""
    first, second = call.tensors
    axes.tie(first[-1], second[-2] if len(second) > 1 else second[-1])
    batch = broadcast(axes, [first[:-2], second[:-2]]) if max(len(first), len(second)) > 2 else ()
    return (*batch, *first[-2:-1], *(second[-1:] if len(second) > 1 else ()))


@rule("aten.scaled_dot_product_attention")
def _attention(axes: AxisClasses, call: Call) -> Axes:
    """Queries [..., l, e], keys [..., s, e], values [..., s, v] -> [..., l, v]; queries and keys meet in inner products."""
    query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
    axes.tie(query[-1], key[-1])
    axes.tie(key[-2], value[-2])
    mask: Axes = call.arguments["attn_mask"] or ()
    if mask or call.arguments["is_causal"]:
        axes.pin((query[-2], key[-2], *mask[-2:]))
    return (*broadcast(axes, [x[:-2] for x in (query, key, value, mask)]), query[-2], value[-1])


@rule("aten.einsum")
def _einsum(axes: AxisClasses, call: Call) -> Axes:
    """Axes of one letter are one axis; with an ellipsis none of them may have neurons."""
    equation = call.arguments["equation"].replace(" ", "")
    if "." in equation:
        sources = tuple(axis for tensor in call.tensors for axis in tensor)
        return _ordered(axes, sources, call.shape, call, "with an ellipsis joins")
    operands, _, result = equation.partition("->")
    letters = operands.replace(",", "")
    named: dict[str, list[Axes]] = {}
    for letter, axis in zip(letters, (axis for x in call.tensors for axis in x), strict=True):
        named.setdefault(letter, []).append((axis,))
    met = {letter: broadcast(axes, found)[0] for letter, found in named.items()}
    once = sorted(letter for letter in met if letters.count(letter) == 1)
    return tuple(met[letter] for letter in (result if "->" in equation else once))


@rule("aten.embedding")
def _embedding(axes: AxisClasses, call: Call) -> Axes:
    """A row [feature] of weight [row, feature] for each index; the rows are known by their places."""
    row, feature = call.arguments["weight"]
    axes.pin([row])
    return (*call.arguments["indices"], feature)


@rule("aten.addmm")
def _addmm(axes: AxisClasses, call: Call) -> Axes:
    first, second = call.arguments["mat1"], call.arguments["mat2"]
    axes.tie(first[1], second[0])
    return broadcast(axes, [(first[0], second[1]), call.arguments["input"]])


@rule("aten.layer_norm", "aten.rms_norm")
def _layer_norm(axes: AxisClasses, call: Call) -> Axes:
    """Mean and variance do not depend on the order; scale and shift belong to the normalised axes, the last ones."""
    x: Axes = call.arguments["input"]
    for affine in (call.arguments["weight"], call.arguments.get("bias")):
        if affine is not None:
            broadcast(axes, [x, affine])
    return x


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def _convolution(axes: AxisClasses, call: Call) -> Axes:
    """[..., in, *positions] with weight [out, in, *kernel] -> [..., out, *positions]; positions have an order."""
    x, weight, bias = call.arguments["input"], call.arguments["weight"], call.arguments["bias"]
    leading, channel, positions = _features(x, len(weight) - 2)
    axes.pin((*positions, *weight[2:]))
    if bias is not None:
        axes.tie(weight[0], bias[0])
    if call.arguments["groups"] == 1:
        axes.tie(channel, weight[1])
    elif (
        call.arguments["groups"] == channel.size == weight[0].size
    ):  # depthwise: each channel is filtered by itself
        axes.tie(channel, weight[0])
    else:
        reason = f"{call.place} has several groups of channels and works on neurons that can be permuted"
        axes.refuse((channel, weight[0], weight[1]), reason)
    return (*leading, weight[0], *axes.pinned(call.shape[len(leading) + 1 :]))


def _features(x: Axes, dimensions: int) -> tuple[Axes, Axis, Axes]:
    """The axes of feature maps with so many dimensions: those before the channels, the channels, the positions."""
    place = len(x) - dimensions - 1
    return x[:place], x[place], x[place + 1 :]


def _pooling(dimensions: int) -> Rule:
    """Every channel is pooled alike, over neighbouring positions."""

    def pool(axes: AxisClasses, call: Call) -> Axes:
        leading, channel, positions = _features(call.arguments["input"], dimensions)
        axes.pin(positions)
        return (*leading, channel, *axes.pinned(call.shape[len(leading) + 1 :]))

    return pool


for _dimensions in (1, 2, 3):
    rule(*(f"aten.{name}_pool{_dimensions}d" for name in ("avg", "max", "adaptive_avg")))(
        _pooling(_dimensions)
    )
    rule(f"aten.upsample_nearest{_dimensions}d", f"aten._upsample_nearest_exact{_dimensions}d")(
        _pooling(_dimensions)
    )
rule("aten.upsample_linear1d")(_pooling(1))
rule("aten.upsample_bilinear2d", "aten.upsample_bicubic2d")(_pooling(2))


def _ordered(axes: AxisClasses, sources: Axes, sizes: Iterable[int], call: Call, what: str) -> Axes:
    """Axes of so many entries made of some that must have no neurons."""
    axes.refuse(sources, f"{call.place} {what} neurons that can be permuted")
    return axes.following(sources, sizes)


@rule("aten.pad")
def _pad(axes: AxisClasses, call: Call) -> Axes:
    """Positions are added at the ends of some axes; the others stay."""
    x: Axes = call.arguments["input"]
    return tuple(
        axis if axis.size == size else _ordered(axes, (axis,), [size], call, "adds to")[0]
        for axis, size in zip(x, call.shape, strict=True)
    )


@rule("aten.cat")
def _concatenate(axes: AxisClasses, call: Call) -> Axes:
    """One axis is joined of several that have no neurons; on the others all tensors have the same."""
    place = call.arguments.get("dim", 0) % len(call.shape)
    joined = _ordered(axes, tuple(x[place] for x in call.tensors), [call.shape[place]], call, "joins")
    before, after = (
        broadcast(axes, [x[part] for x in call.tensors]) for part in (slice(place), slice(place + 1, None))
    )
    return (*before, *joined, *after)


@rule("aten.stack")
def _stack(axes: AxisClasses, call: Call) -> Axes:
    """The new axis has the order of the tensors."""
    result = list(broadcast(axes, call.tensors))
    result.insert(call.arguments.get("dim", 0) % len(call.shape), axes.pinned([len(call.tensors)])[0])
    return tuple(result)


@rule("aten.select", "aten.slice", "aten.narrow")
def _part(axes: AxisClasses, call: Call) -> Axes:
    """Some entries of an axis without neurons; a slice keeps the axis, `select` does not."""
    x: Axes = call.arguments["input"]
    place = call.arguments.get("dim", 0) % len(x)
    kept = call.shape[place : place + 1] if len(call.shape) == len(x) else ()
    if kept == (x[place].size,):
        return x
    return (*x[:place], *_ordered(axes, x[place : place + 1], kept, call, "takes some of"), *x[place + 1 :])


def _with_affine_channels(axes: AxisClasses, call: Call) -> Axes:
    """The input [batch, channel, ...]; scale and shift [channel] belong to its channels."""
    x: Axes = call.arguments["input"]
    for affine in (call.arguments["weight"], call.arguments["bias"]):
        if affine is not None:
            axes.tie(affine[0], x[1])
    return x


@rule("aten.group_norm")
def _group_norm(axes: AxisClasses, call: Call) -> Axes:
    """Mean and variance of a group do not depend on the order; one group is all channels, or each channel is one."""
    x = _with_affine_channels(axes, call)
    if call.arguments["num_groups"] not in {1, x[1].size}:
        reason = f"{call.place} has several groups of channels and works on neurons that can be permuted"
        axes.refuse(x[1:2], reason)
    return x


@rule("aten.batch_norm")
def _batch_norm(axes: AxisClasses, call: Call) -> Axes:
    """Each channel by itself; running statistics are buffers, which would have to be permuted too."""
    x = _with_affine_channels(axes, call)
    if call.arguments["running_mean"] is not None:
        reason = f"{call.place} has running statistics, buffers that no permutation reaches, for neurons that can be permuted"
        axes.refuse(x[1:2], reason)
    return x


@rule("symcore.sparse_product")
def _propagated(axes: AxisClasses, call: Call) -> Axes:
    """[node, channel]: the graph knows its nodes by their places, and treats every channel alike."""
    node, channel = call.arguments["x"]
    axes.pin([node])
    return (node, channel)


@rule("aten.sum", "aten.mean", "aten.amax", "aten.amin", "aten.linalg_vector_norm")
def _reduce(axes: AxisClasses, call: Call) -> Axes:
    """Reduced axes vanish, or stay with size 1."""
    x: Axes = call.arguments["input"]
    dims = call.arguments.get("dim")
    reduced = {d % len(x) for d in dims} if dims else set(range(len(x)))
    kept = [axis for place, axis in enumerate(x) if place not in reduced]
    if not call.arguments.get("keepdim"):
        return tuple(kept)
    return tuple(axes.pinned([1])[0] if place in reduced else axis for place, axis in enumerate(x))


@rule("aten.t", "aten.numpy_T")
def _reverse(_axes: AxisClasses, call: Call) -> Axes:
    return call.tensors[0][::-1]


@rule("aten.mT")
def _matrix_transpose(_axes: AxisClasses, call: Call) -> Axes:
    (*leading, row, column) = call.tensors[0]
    return (*leading, column, row)


@rule("aten.permute")
def _permute(_axes: AxisClasses, call: Call) -> Axes:
    x: Axes = call.arguments["input"]
    return tuple(x[d] for d in call.arguments["dims"])


@rule("aten.transpose")
def _transpose(_axes: AxisClasses, call: Call) -> Axes:
    x = list(call.arguments["input"])
    one, other = call.arguments["dim0"], call.arguments["dim1"]
    x[one], x[other] = x[other], x[one]
    return tuple(x)


@rule("aten.expand", "aten.expand_as")
def _expand(axes: AxisClasses, call: Call) -> Axes:
    """Stretched axes repeat one value, so nothing ties them; the others stay."""
    x = call.tensors[0]
    stretched = axes.free(call.shape)
    padded = (None,) * (len(stretched) - len(x)) + x
    return tuple(
        old if old and old.size == new.size else new for old, new in zip(padded, stretched, strict=True)
    )


@rule("aten.view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten.squeeze", "aten.unsqueeze")
def _reshape(axes: AxisClasses, call: Call) -> Axes:
    """Axes that pass unchanged stay; of others one is split, or several are merged."""
    old = [axis for axis in call.tensors[0] if axis.size != 1]
    new = [size for size in call.shape if size != 1]
    passed: list[Axis] = []
    while old:
        split, merged = [old.pop(0)], [new.pop(0)]
        while (many := prod(axis.size for axis in split)) != (few := prod(merged)):
            if many < few:
                split.append(old.pop(0))
            else:
                merged.append(new.pop(0))
        if len(split) == len(merged) == 1:
            passed += split
        elif len(merged) == 1:
            passed.append(axes.merge(tuple(split), call.place))
        elif len(split) == 1:
            passed += axes.split(split[0], merged, call.place)
        else:
            passed += _ordered(axes, tuple(split), merged, call, "splits and merges")
    remaining = iter(passed)
    return tuple(next(remaining) if size != 1 else axes.pinned([1])[0] for size in call.shape)
