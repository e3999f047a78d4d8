"""Images of another data set come in the size and the range of one's own."""

from __future__ import annotations

import pytest
import torch

from symcore.data.reduction import as_of, reducible
from symcore.data.sources import SOURCES, Dataset, Split


def dataset(name, images, seed=0):
    source = SOURCES[name]
    g = torch.Generator().manual_seed(seed)
    top = int(source.full_scale) + 1
    drawn = torch.randint(0, top, (images, *source.input_shape), dtype=torch.uint8, generator=g)
    split = Split(drawn, torch.arange(images) % source.classes)
    return Dataset(source, {"train": split, "test": split})


def test_larger_images_become_means_of_their_parts_in_the_range_of_the_others():
    own, strange = dataset("digits", 30), dataset("mnist", 7)
    found = as_of(strange, "test", own)
    assert found.source == own.source
    images = found.splits["outside"].images
    assert images.shape == (7, 8, 8)
    assert images.dtype == torch.uint8
    corner = strange.splits["test"].images[:, :4, :4].double().mean((1, 2)) * 16 / 255
    assert torch.equal(images[:, 0, 0], corner.round().to(torch.uint8))
    assert torch.equal(found.calibration, own.calibration)
    flat = Dataset(
        strange.source, {"test": Split(torch.full((1, 28, 28), 255, dtype=torch.uint8), torch.zeros(1))}
    )
    assert as_of(flat, "test", own).splits["outside"].images.unique().tolist() == [16]


@pytest.mark.parametrize(("strange", "own"), [("fashion-mnist", "mnist"), ("cifar-100", "cifar-10")])
def test_images_of_one_size_stay_as_they_are(strange, own):
    given = dataset(strange, 5)
    assert torch.equal(
        as_of(given, "test", dataset(own, 5, seed=1)).splits["outside"].images, given.splits["test"].images
    )


@pytest.mark.parametrize(
    ("strange", "own", "fits"),
    [
        ("mnist", "digits", True),
        ("digits", "mnist", False),
        ("cifar-10", "mnist", False),
        ("cora", "digits", False),
        ("digits", "cora", False),
    ],
)
def test_what_has_other_channels_or_fewer_pixels_does_not_fit(strange, own, fits):
    assert reducible(SOURCES[strange], SOURCES[own]) == fits
