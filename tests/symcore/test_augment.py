"""An augmented image is a crop of the padded one, mirrored or not, and every one of them is as likely as any other."""

import numpy as np
import pytest
import torch

from symcore.data import augment
from symcore.randomness import stream

EVERY = torch.arange(augment.CHOICES, dtype=torch.uint8)


def by_hand(image: torch.Tensor, choice: int) -> torch.Tensor:
    """Pads, cuts and mirrors one image [..., row, column]."""
    height, width = image.shape[-2:]
    mirrored, place = divmod(choice, 81)
    row, column = divmod(place, 9)
    padded = torch.nn.functional.pad(image, [4, 4, 4, 4])
    cut = padded[..., row : row + height, column : column + width]
    return cut.flip(-1) if mirrored else cut


@pytest.mark.parametrize("shape", [(3, 32, 32), (28, 28), (2, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_every_choice_is_a_crop_of_the_padded_image(shape, dtype):
    images = torch.randint(1, 256, (augment.CHOICES, *shape)).to(dtype)
    found = augment.crop_flip(images, EVERY)
    for choice in range(augment.CHOICES):
        assert torch.equal(found[choice], by_hand(images[choice], choice))


def test_one_choice_leaves_an_image_and_another_mirrors_it():
    image = torch.randn(3, 32, 32)
    same, mirrored = augment.crop_flip(
        image.expand(2, 3, 32, 32), torch.tensor([40, 81 + 40], dtype=torch.uint8)
    )
    assert torch.equal(same, image)
    assert torch.equal(mirrored, image.flip(-1))


def test_images_of_many_networks_are_changed_each_by_its_own_choice():
    images, choices = torch.randn(2, 5, 3, 8, 8), EVERY[70:80].view(2, 5)
    together = augment.crop_flip(images, choices)
    for member in range(2):
        assert torch.equal(together[member], augment.crop_flip(images[member], choices[member]))


def test_every_choice_is_equally_likely():
    """Pearson's statistic of 162,000 draws, chi-squared with 161 degrees of freedom: 161 on average, spread 18."""
    counts = np.bincount(augment.draw(stream(0, "augment", 0), 162_000), minlength=augment.CHOICES)
    assert len(counts) == augment.CHOICES
    assert ((counts - 1000) ** 2 / 1000).sum() < 161 + 5 * 18
