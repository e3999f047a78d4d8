"""Scores are their definitions, summed slowly; a calibrated predictor is found calibrated, as far as a sample can tell."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from torch import Tensor

from symcore.posteriors.predictions import Mixture, agreement, total_variation
from symcore.posteriors.reliability import adaptive_reliability, reliability
from symcore.posteriors.scores import auroc, entropies, score

SEEDS = st.integers(0, 10_000)
MEMBERS, IMAGES, CLASSES = 3, 60, 5


def predicted(seed: int, members: int = MEMBERS, images: int = IMAGES) -> tuple[Tensor, Tensor]:
    """Log-probabilities of members that know something of the labels, each as sure of itself as chance will have it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    sureness = 4 * torch.rand(members, 1, 1, generator=generator)
    noise = torch.randn(members, images, CLASSES, generator=generator)
    return (sureness * (noise + torch.nn.functional.one_hot(labels, CLASSES))).log_softmax(-1), labels


def calibrated(seed: int, members: int, images: int, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Predictions p that are right about themselves, P(y | p) = p_y: p is uniform and y drawn from it.

    Members share labels, hence the other way round: y is uniform and p of its posterior given y, which is Dirichlet(1 + e_y).
    """
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=images)
    gammas = random.standard_gamma(1 + np.eye(classes)[labels], size=(members, images, classes))
    return torch.tensor(np.log(gammas / gammas.sum(-1, keepdims=True))), torch.tensor(labels)


def one_hot(tops: list[list[int]], classes: int = CLASSES) -> Tensor:
    """Log-probabilities that are 0 for one class and -inf for all others, from tops [member, image]."""
    return torch.nn.functional.one_hot(torch.tensor(tops), classes).double().log()


def by_hand(confidences: list[float], right: list[bool], groups: list[list[int]]) -> float:
    """Calibration error over groups of images, in plain Python."""
    error = 0.0
    for group in groups:
        if group:
            accuracy = sum(right[i] for i in group) / len(group)
            confidence = sum(confidences[i] for i in group) / len(group)
            error += len(group) / len(right) * abs(accuracy - confidence)
    return error


@given(seed=SEEDS, bins=st.integers(1, 20), images=st.integers(1, IMAGES))
def test_calibration_errors_are_those_of_images_sorted_into_bins_by_hand(seed, bins, images):
    log_probabilities, labels = predicted(seed, images=images)
    found = score(log_probabilities, labels, bins)
    for member, predictions in enumerate(log_probabilities.double().exp().tolist()):
        confidences = [max(p) for p in predictions]
        right = [p.index(max(p)) == y for p, y in zip(predictions, labels.tolist(), strict=True)]
        equal_width = [
            [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins] for b in range(bins)
        ]
        assert found.ece[member] == pytest.approx(by_hand(confidences, right, equal_width))
        order = sorted(range(images), key=confidences.__getitem__)
        starts = [math.ceil(Fraction(b * images, bins)) for b in range(bins + 1)]
        equal_mass = [order[first:end] for first, end in pairwise(starts)]
        if len(set(confidences)) == images:
            assert found.adaptive_ece[member] == pytest.approx(by_hand(confidences, right, equal_mass))


@given(seed=SEEDS)
def test_other_scores_are_those_of_other_libraries(seed):
    log_probabilities, labels = predicted(seed)
    found = score(log_probabilities, labels)
    for member, p in enumerate(log_probabilities.double().softmax(-1).numpy()):
        of_sklearn = {"y_true": labels.numpy(), "y_proba": p, "labels": range(CLASSES)}
        nll = log_loss(labels.numpy(), p, labels=range(CLASSES))
        assert found.nll[member] == pytest.approx(nll, rel=1e-6)
        assert found.brier[member] == pytest.approx(
            brier_score_loss(**of_sklearn, scale_by_half=False), abs=1e-6
        )
        assert found.accuracy[member] == np.mean(p.argmax(-1) == labels.numpy())
        assert found.entropy[member] == pytest.approx(entropy(p, axis=-1).mean(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("diagram", [reliability, adaptive_reliability])
def test_a_calibrated_predictor_has_no_more_calibration_error_than_a_sample_of_labels_makes(diagram):
    members, images, chance = 100, 3_000, 1e-6
    log_probabilities, labels = calibrated(0, members, images)
    found = diagram(log_probabilities, labels)
    # Given the predictions, the sum of right - c over a bin has mean 0 and a variance of at most n_b c_b (1 - c_b), so that
    # its size is in the mean at most the root (Jensen). A label moves the error by 1 / images at most (McDiarmid).
    c = np.nan_to_num(found.confidence)
    roots = np.sqrt(found.images * c * (1 - c))
    most = roots.sum(-1) / images + math.sqrt(math.log(members / chance) / (2 * images))
    assert (found.calibration_error < most).all()
    # Sums over a bin are nearly normal, of which the size is in the mean sqrt(2 / pi) of the root; the mean over members
    # is off by sampling, and by as much as c varies within bins and small bins are not normal.
    expected = math.sqrt(2 / math.pi) * roots.sum(-1).mean() / images
    error = found.calibration_error
    assert error.mean() == pytest.approx(expected, rel=0.02, abs=5 * error.std() / math.sqrt(members))
    # the same predictions, too sure of themselves, are found out
    sharpened = diagram((2 * log_probabilities).log_softmax(-1), labels)
    assert (sharpened.calibration_error > most).all()


def test_a_calibrated_predictor_knows_its_scores():
    members, images = 20, 5_000
    log_probabilities, labels = calibrated(1, members, images)
    found, p = score(log_probabilities, labels), log_probabilities.exp()
    beliefs = {
        "nll": found.entropy,
        "accuracy": p.amax(-1).mean(-1).numpy(),
        "brier": 1 - p.square().sum(-1).mean(-1).numpy(),
    }
    for name, belief in beliefs.items():
        difference = getattr(found, name) - belief
        # members are independent, so that their spread gives the error of their mean
        assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(members), name
        assert difference.std() < 0.05, name


@given(seed=SEEDS, confidence=st.floats(0.21, 0.99))
def test_a_predictor_that_always_says_the_same_has_its_closed_form(seed, confidence):
    """Both calibration errors are |accuracy - confidence|, whatever the order of the images."""
    _, labels = predicted(seed)
    others = (1 - confidence) / (CLASSES - 1)
    row = torch.tensor([confidence] + [others] * (CLASSES - 1), dtype=torch.float64).log()
    found = score(row.expand(1, IMAGES, CLASSES), labels)
    share = (labels == 0).double().mean().item()
    assert found.accuracy == pytest.approx(share)
    assert found.ece == pytest.approx(abs(share - confidence))
    assert found.adaptive_ece == pytest.approx(abs(share - confidence))
    assert found.nll == pytest.approx(-share * math.log(confidence) - (1 - share) * math.log(others))
    # Brier: to the label's one-hot vector, where the first class is the label and where another is
    right = (1 - confidence) ** 2 + (CLASSES - 1) * others**2
    wrong = confidence**2 + (1 - others) ** 2 + (CLASSES - 2) * others**2
    assert found.brier == pytest.approx(share * right + (1 - share) * wrong)


def test_a_bin_has_its_upper_edge_and_not_its_lower_one():
    rows = [[1.0, 0, 0], [0.5, 0.25, 0.25], [0.625, 0.375, 0], [0.75, 0.125, 0.125]]
    found = reliability(torch.tensor([rows]).double().log(), torch.zeros(4, dtype=torch.int64), bins=4)
    assert found.images.tolist() == [[0, 1, 2, 1]]
    np.testing.assert_allclose(found.confidence, [[np.nan, 0.5, 0.6875, 1]])
    np.testing.assert_array_equal(found.accuracy, [[np.nan, 1, 1, 1]])


def test_equally_many_images_stand_in_adaptive_bins_but_for_equal_confidences():
    log_probabilities, labels = predicted(0, images=50)
    assert set(np.unique(adaptive_reliability(log_probabilities, labels, 15).images)) == {3, 4}
    sure = one_hot([[0] * 30]).expand(3, 30, CLASSES)
    mixed = torch.cat([log_probabilities.double(), sure], dim=1)
    labels = torch.cat([labels, torch.zeros(30, dtype=torch.int64)])
    found = adaptive_reliability(mixed, labels, 8).images
    # the 50 that are less sure fill the bins from below, ten in each; bin 5 begins with the first of those that are sure
    assert found.tolist() == [[10] * 5 + [30, 0, 0]] * 3
    order = torch.randperm(80)
    again = adaptive_reliability(mixed[:, order], labels[order], 8)
    np.testing.assert_allclose(
        again.calibration_error, adaptive_reliability(mixed, labels, 8).calibration_error
    )


def test_scores_of_certainty_are_numbers_and_a_wrong_one_has_infinite_nll():
    labels = torch.tensor([0, 1, 2, 3])
    right, half, wrong = [0, 1, 2, 3], [0, 1, 0, 0], [1, 2, 3, 4]
    found = score(one_hot([right, half, wrong]), labels)
    expected = {
        "nll": [0, np.inf, np.inf],
        "accuracy": [1, 0.5, 0],
        "brier": [0, 1, 2],
        "ece": [0, 0.5, 1],
        "adaptive_ece": [0, 0.5, 1],
        "entropy": [0, 0, 0],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


def test_a_member_that_predicts_nan_has_no_score_and_leaves_the_others_theirs():
    log_probabilities, labels = predicted(0)
    healthy = score(log_probabilities[:2], labels)
    log_probabilities[2, 7] = torch.nan
    found = dataclasses.asdict(score(log_probabilities, labels))
    for name in ("nll", "brier", "ece", "adaptive_ece", "entropy"):
        np.testing.assert_array_equal(np.isnan(found[name]), [False, False, True], err_msg=name)
        np.testing.assert_array_equal(found[name][:2], getattr(healthy, name), err_msg=name)
    area = auroc(entropies(log_probabilities), entropies(predicted(1)[0]))
    np.testing.assert_array_equal(np.isnan(area), [False, False, True])


def test_a_member_has_the_scores_it_has_alone_and_chunks_change_none(monkeypatch):
    log_probabilities, labels = predicted(3)
    other = predicted(4)[0]
    together = dataclasses.asdict(score(log_probabilities, labels))
    distance = total_variation(log_probabilities, other)
    for member in range(MEMBERS):
        alone = dataclasses.asdict(score(log_probabilities[[member]], labels))
        for name, values in alone.items():
            np.testing.assert_allclose(values, together[name][[member]], rtol=1e-12, err_msg=name)
    monkeypatch.setattr("symcore.posteriors.predictions.NUMBERS", 4 * MEMBERS * CLASSES)
    for name, values in dataclasses.asdict(score(log_probabilities, labels)).items():
        np.testing.assert_array_equal(values, together[name], err_msg=name)
    np.testing.assert_array_equal(total_variation(log_probabilities, other), distance)


def test_any_layout_of_memory_and_either_precision_will_do():
    log_probabilities, labels = predicted(5)
    strided = log_probabilities.transpose(0, 1).contiguous().transpose(0, 1)
    expected = dataclasses.asdict(score(log_probabilities, labels))
    for same in (strided, log_probabilities.double()):
        for name, values in dataclasses.asdict(score(same, labels)).items():
            assert values.dtype == np.float64
            np.testing.assert_allclose(values, expected[name], rtol=1e-12, err_msg=name)
    known, strange = entropies(log_probabilities), entropies(predicted(6)[0])
    layouts = (scores.T.contiguous().T for scores in (known, strange))
    np.testing.assert_array_equal(auroc(*layouts), auroc(known, strange))


def test_entropy_is_log_of_the_number_of_classes_where_all_are_alike_and_0_where_one_is_certain():
    uniform = torch.full((1, 1, CLASSES), -math.log(CLASSES), dtype=torch.float64)
    both = torch.cat([uniform, one_hot([[3]])], dim=1)
    np.testing.assert_allclose(entropies(both), [[math.log(CLASSES), 0]])


@given(seed=SEEDS, levels=st.sampled_from([1, 2, 7, 1_000_000]), images=st.integers(1, 40))
def test_area_under_roc_is_that_of_sklearn_with_ties(seed, levels, images):
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randint(levels, (MEMBERS, images), generator=generator).float()
    outside = torch.randint(levels, (MEMBERS, 23), generator=generator).float() + levels // 3
    strange = np.repeat([0, 1], [images, 23])
    expected = [roc_auc_score(strange, member) for member in torch.cat([inside, outside], dim=1).numpy()]
    np.testing.assert_allclose(auroc(inside, outside), expected)


def test_area_under_roc_of_scores_that_tell_all_or_nothing():
    inside, outside = torch.tensor([[0.0, 1], [2, 3], [1, 1]]), torch.tensor([[2.0, 3], [0, 1], [1, 1]])
    np.testing.assert_array_equal(auroc(inside, outside), [1, 0, 0.5])


@given(seed=SEEDS, reference=st.sampled_from([1, MEMBERS]))
def test_predictions_are_compared_as_image_by_image(seed, reference):
    a, b = predicted(seed)[0], predicted(seed + 1, members=reference)[0]
    agrees, differs = agreement(a, b), total_variation(a, b)
    for member in range(MEMBERS):
        p, q = (x.double().exp().numpy() for x in (a[member], b[min(member, reference - 1)]))
        assert agrees[member] == np.mean(p.argmax(-1) == q.argmax(-1))
        # the largest difference of the probabilities of any event, which the classes that p finds likelier make up
        assert differs[member] == pytest.approx(np.mean(np.maximum(p - q, 0).sum(-1)), abs=1e-6)


def test_a_prediction_agrees_with_itself_and_certain_others_are_disjoint():
    a = predicted(0)[0]
    np.testing.assert_array_equal(agreement(a, a), 1)
    np.testing.assert_array_equal(total_variation(a, a), 0)
    mine, other = one_hot([[0, 1, 2]]), one_hot([[1, 2, 3]])
    np.testing.assert_array_equal(total_variation(mine, other), 1)
    np.testing.assert_array_equal(agreement(mine, other), 0)


@given(seed=SEEDS, samples=st.integers(1, 6), spread=st.sampled_from([1, 30]))
def test_a_mixture_is_the_mean_probability_of_the_samples_so_far(seed, samples, spread):
    each = spread * torch.randn(samples, 2, 4, 3, generator=torch.Generator().manual_seed(seed))
    each = each.log_softmax(-1)
    mixture, buffer = Mixture(), torch.empty(2, 4, 3)
    for n, sample in enumerate(each, 1):
        buffer.copy_(sample)  # as a program does that gives its results in one place
        mixture.add(buffer)
        buffer.fill_(torch.nan)
        torch.testing.assert_close(mixture.log_mean().exp(), each[:n].double().exp().mean(0))
        assert mixture.samples == n


def test_a_mixture_keeps_probabilities_too_small_for_numbers_and_those_of_0():
    mixture = Mixture()
    for values in ([-1000.0, -torch.inf, -torch.inf, 0], [-1000.0, -torch.inf, 0, 0]):
        mixture.add(torch.tensor(values).view(1, 1, 4))
    np.testing.assert_allclose(mixture.log_mean()[0, 0], [-1000, -np.inf, -math.log(2), 0], atol=1e-15)


def test_what_does_not_fit_is_refused_by_name():
    log_probabilities, labels = predicted(0)
    for measured in (score, reliability, adaptive_reliability):
        with pytest.raises(ValueError, match=r"labels: shape \(1,\) for 60 images; accepted: one for each"):
            measured(log_probabilities, labels[:1])
        with pytest.raises(ValueError, match=r"labels: shape \(0,\) for 0 images; accepted: .* 1 or more"):
            measured(log_probabilities[:, :0], labels[:0])
        with pytest.raises(ValueError, match=r"bins: 0; accepted: 1 or more"):
            measured(log_probabilities, labels, 0)
    for compared in (agreement, total_variation):
        with pytest.raises(
            ValueError, match=r"b: \[image, class\] is \(1, 5\); accepted: that of a, \(60, 5\)"
        ):
            compared(log_probabilities, log_probabilities[:, :1])
    mixture = Mixture()
    with pytest.raises(ValueError, match=r"samples: 0 were added; accepted: 1 or more"):
        mixture.log_mean()
    mixture.add(log_probabilities)
    with pytest.raises(ValueError, match=r"log_probabilities: shape \(1, 60, 5\); accepted: .* \(3, 60, 5\)"):
        mixture.add(log_probabilities[:1])
