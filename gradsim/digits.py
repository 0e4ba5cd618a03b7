"""Scikit-learn's handwritten digits (Alpaydin & Kaynak 1998), 8 x 8 pixels, as real inputs."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from gradsim import arguments

SEQUENCES = ("pixels", "rows")


def digits() -> Float[np.ndarray, "1797 64"]:
    """The 1,797 images as rows of 64 pixels, standardised.

    One mean and one deviation for all pixels: some are constant, and have no deviation of their own.
    Raises: ImportError, with what to install, where scikit-learn is missing.
    """
    pixels = np.asarray(_loaded().data, np.float64)
    return (pixels - pixels.mean()) / pixels.std()


def labels() -> Int[np.ndarray, " 1797"]:
    """Which digit each image shows, 0 … 9, in the order of `digits`."""
    return np.asarray(_loaded().target, np.int32)


def _loaded() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits: scikit-learn is not installed; pip install gradsim[digits]") from error
    return load_digits()


def digits_sequence(by: str = "pixels") -> Float[np.ndarray, "1797 time features"]:
    """Every image as a sequence [samples, time, features], from the top left to the bottom right.

    `by="pixels"` reads one pixel a step, [1797, 64, 1]; `by="rows"` one row of eight, [1797, 8, 8].
    Raises: ValueError or TypeError for another `by`, ImportError as `digits` does.
    """
    features = {"pixels": 1, "rows": 8}[arguments.choice("by", by, SEQUENCES)]
    return digits().reshape(len(digits()), -1, features)
