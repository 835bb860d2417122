"""1,797 handwritten digits of 8x8 pixels, in the scikit-learn package: real images without a download.

Source: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI, 1998.
"""

import torch

from lookaround.data.in_memory import LabelledImages, grey_preprocessing
from lookaround.data.source import Settings, Source, Splits, set_aside

TEST_FRACTION = 0.2
TEST_SEED = 0  # the same test images whatever the run's seed, so that runs can be compared
# Of all 1,797 images, scaled from 0 … 16 to 0 … 1.
MEAN, STD = 0.3053, 0.3760


def prepare(settings: Settings) -> None:
    """Do nothing: the images come with a package."""


def load(settings: Settings) -> Splits:
    """Return the digits: 20 % to test, the same for every seed, and a fraction of the others to validate."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.as_tensor(digits.images) * (255 / 16)
    images = LabelledImages(pixels.round().to(torch.uint8)[:, None], torch.as_tensor(digits.target).long())
    names = [str(digit) for digit in range(10)]
    rest, test = set_aside(images, TEST_FRACTION, TEST_SEED, names)
    train, validation = set_aside(rest, settings.validation_fraction, settings.seed, names)
    return Splits(train, validation, test, names, grey_preprocessing(settings, 8, MEAN, STD))


SOURCE = Source(prepare, load)
