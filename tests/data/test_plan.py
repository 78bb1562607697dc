"""The plan against a slow, obvious one: a loop over rows, a list for each image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipseg.data.sampling import group_by_image, shuffled_by_image


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 2**32))
def test_rows_are_grouped_by_image_in_their_order(images, most, seed):
    image_of_task = np.array(images)
    rows = np.random.default_rng(seed).permutation(len(images))[: max(1, len(images) - 2)]
    of_image = {image: [row for row in rows.tolist() if images[row] == image] for image in sorted(set(images))}
    expected = [of[i : i + most] for of in of_image.values() for i in range(0, len(of), most)]
    plan = group_by_image(rows, image_of_task, most=most)
    assert [plan[item].tolist() for item in range(len(plan))] == expected
    shuffled = shuffled_by_image(rows, image_of_task, most=most, seed=1, epoch=2)
    assert sorted(shuffled.tasks.tolist()) == sorted(rows.tolist())
    assert len(shuffled) == len(plan)


@pytest.mark.parametrize("most", [1, 3])
def test_an_epoch_is_a_function_of_seed_and_epoch(most):
    images = np.arange(30) // 4

    def items(seed, epoch):
        plan = shuffled_by_image(np.arange(30), images, most=most, seed=seed, epoch=epoch)
        return [tuple(plan[item].tolist()) for item in range(len(plan))]

    assert items(1, 2) == items(1, 2)
    assert items(1, 2) != items(1, 3)
    assert items(1, 2) != items(2, 2)
