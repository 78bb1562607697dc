"""Multinomial logistic regression: what a linear probe learns from embeddings. Numbers in, labels out; needs no torch."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

STEPS = 1000
C = 1.0  # weighs the examples' losses against the penalty of the weights


def classify_linearly(
    examples: NDArray[np.floating[Any]], labels: NDArray[np.int64], others: NDArray[np.floating[Any]], *, classes: int
) -> NDArray[np.int64]:
    """Learn classes from labelled examples, and tell those of others.

    Every feature is brought to zero mean and unit variance over the examples. What is minimised is C = 1 times the sum of the
    examples' cross entropies plus half the sum of the squared weights, the intercepts left out; it is convex, and L-BFGS ends
    at its one minimum, whatever the order of the examples.

    Args:
        examples: `[N, F]`.
        labels: `[N]`, 0 to K - 1.
        others: `[M, F]`.
        classes: K.

    Returns:
        The most probable class of each of the others, `[M]`.
    """
    mean, deviation = examples.mean(axis=0, dtype=np.float64), examples.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1
    inputs, answers = _with_intercept((examples - mean) / deviation), np.eye(classes)[labels]
    weights = fit(inputs, answers)
    return (_with_intercept((others - mean) / deviation) @ weights).argmax(axis=1)


def _with_intercept(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([features, np.ones(len(features))])


def fit(inputs: NDArray[np.float64], answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights `[F + 1, K]` of inputs `[N, F + 1]`, ones in the last column, and one-hot answers `[N, K]`."""
    shape = (inputs.shape[1], answers.shape[1])
    is_penalised = np.arange(shape[0])[:, None] < shape[0] - 1

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Its value over N, and its gradient."""
        weights = flat.reshape(shape)
        log_probabilities = log_softmax(inputs @ weights, axis=1)
        penalised = np.where(is_penalised, weights, 0) / (C * len(inputs))
        value = -(answers * log_probabilities).sum() / len(inputs) + (penalised * weights).sum() / 2
        gradient = inputs.T @ (np.exp(log_probabilities) - answers) / len(inputs) + penalised
        return float(value), gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    if not found.success:
        warnings.warn(f"logistic regression stopped early ({found.message}); its accuracy may be too low", stacklevel=3)
    return found.x.reshape(shape)
