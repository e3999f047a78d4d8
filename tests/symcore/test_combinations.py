"""Combinations of a few networks: the same results, with every product by a weight of the first layers made for the few alone."""

import numpy as np
import torch
from torch.nn import functional

from symcore.combinations import CombinationProgram, combine

FEW = 3
COEFFICIENTS = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, -2.0], [0.0, 0.0, 1.0], [-1.0, 0.3, 0.1], [2, 2, 2]])


def values_and_results(function, few, others):
    """What is computed for the few, and the results of their combinations, checked against each combination's own."""
    program = CombinationProgram(function)
    values = program.linear(few, others)
    results = program.rest([combine(COEFFICIENTS, value) for value in values], others)
    weights = [combine(COEFFICIENTS, w) for w in few]
    for member in range(len(COEFFICIENTS)):
        expected = function([w[member] for w in weights], others)
        one = program.rest([combine(COEFFICIENTS[[member]], value) for value in values], others)
        for together, alone, own in zip(results, one, expected, strict=True):
            torch.testing.assert_close(together[member], own, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone, own.unsqueeze(0), rtol=1e-4, atol=1e-5)
    return values, results


def draw(*shape):
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape)).float()


def test_combinations_are_sums():
    few = draw(FEW, 4, 2)
    torch.testing.assert_close(combine(COEFFICIENTS, few), torch.tensordot(COEFFICIENTS, few, dims=1))
    assert torch.equal(combine(COEFFICIENTS, few)[0], few[0])


def test_a_linear_regression_is_multiplied_for_the_few_alone_and_its_surface_is_a_quadratic():
    x, y = draw(30, 5), draw(30)

    def squares(weights, others):
        return ((others[0] @ weights[0].t() - others[1].unsqueeze(1)).square().sum(),)

    (few,) = weights = [draw(FEW, 1, 5)]
    values, (surface,) = values_and_results(squares, weights, [x, y])
    assert [value.shape for value in values] == [(FEW, 30, 1)]
    torch.testing.assert_close(values[0][..., 0], few[:, 0] @ x.t(), rtol=1e-4, atol=1e-5)
    residuals = COEFFICIENTS @ few[:, 0] @ x.t() - y
    torch.testing.assert_close(surface, residuals.square().sum(1), rtol=1e-4, atol=1e-4)


def test_a_first_convolution_its_bias_and_what_is_added_to_it_are_made_for_the_few_alone():
    def network(weights, others):
        kernel, bias, position, readout = weights
        hidden = functional.conv2d(others[0], kernel, bias, padding=1) + position
        return (hidden.relu_().flatten(1) @ readout,)

    weights = [draw(FEW, 4, 2, 3, 3), draw(FEW, 4), draw(FEW, 4, 6, 6), draw(FEW, 144, 10)]
    values, _ = values_and_results(network, weights, [draw(8, 2, 6, 6)])
    assert sorted(value.shape for value in values) == [(FEW, 8, 4, 6, 6), (FEW, 144, 10)]


def test_what_is_not_linear_in_the_weights_is_made_for_every_combination():
    """A product of two weights, a weight plus a constant, and a square: each takes its weights as they are."""

    def twice(weights, others):
        return (others[0] @ (weights[0] @ weights[1]),)

    def shifted(weights, others):
        return (others[0] @ (weights[0] + 1), others[0] @ weights[1] + others[0].sum())

    def squared(weights, others):
        return (others[0] @ weights[0] * (others[0] @ weights[0]) + weights[1].sum(),)

    for function in (twice, shifted, squared):
        values_and_results(function, [draw(FEW, 6, 6), draw(FEW, 6, 6)], [draw(9, 6)])
