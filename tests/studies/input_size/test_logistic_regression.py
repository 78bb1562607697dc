"""Logistic regression against a loss that is written out: its minimum, its penalty, and what it is indifferent to."""

import math

import numpy as np
import pytest

from clipseg.studies.input_size.logistic_regression import C, classify_linearly, fit


def made(seed=0, examples=60, features=5, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=examples)
    return rng.normal(size=(examples, features)) + 0.6 * np.eye(classes, features)[labels], labels


def slow_loss(weights, inputs, labels):
    """The sum over examples, one class after the other; the last row of the weights is not penalised."""
    total = sum(float(w) ** 2 for row in weights[:-1] for w in row) / 2
    for row, label in zip(inputs, labels, strict=True):
        scores = [sum(float(x) * float(w) for x, w in zip(row, column, strict=True)) for column in weights.T]
        total -= C * (scores[label] - math.log(sum(math.exp(score) for score in scores)))
    return total


def test_it_ends_at_the_minimum():
    features, labels = made()
    inputs = np.column_stack([features, np.ones(len(features))])
    weights = fit(inputs, np.eye(3)[labels])
    least = slow_loss(weights, inputs, labels)
    assert least < slow_loss(np.zeros_like(weights), inputs, labels)
    step = 1e-3
    for place in np.ndindex(weights.shape):
        ends = []
        for sign in (-1, 1):
            moved = weights.copy()
            moved[place] += sign * step
            ends.append(slow_loss(moved, inputs, labels))
        assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(0, abs=2e-2), "no slope at the minimum"
        assert min(ends) >= least - 1e-6


def test_classes_far_apart_are_told_apart_whatever_the_units():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    features = np.eye(3)[labels] + 0.05 * rng.normal(size=(60, 3))
    others = np.eye(3)[[2, 0, 1]]
    constant = np.column_stack([1e6 * features + 3e7, np.full(60, 5.0)]), np.column_stack([1e6 * others + 3e7, np.full(3, 5.0)])
    for examples, asked in ((features, others), constant):
        assert classify_linearly(examples, labels, asked, classes=3).tolist() == [2, 0, 1]


def test_the_order_of_the_examples_means_nothing():
    features, labels = made(seed=1)
    order = np.random.default_rng(2).permutation(len(labels))
    others = made(seed=3)[0]
    found = classify_linearly(features, labels, others, classes=3)
    assert len(set(found.tolist())) == 3
    assert np.array_equal(found, classify_linearly(features[order], labels[order], others, classes=3))
