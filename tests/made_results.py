"""Results of evaluations that never ran."""

from typing import Any

import numpy as np

from clipseg.measure.metrics import count
from clipseg.measure.results import Results


def made_results(*, seed: int = 0, quality: float = 0.4, images: int = 20, **changes: Any) -> Results:
    """Two samples an image on the same masks whatever the seed; maps are the better the more quality they have."""
    samples = 2 * images
    masks = (np.random.default_rng(99).random((samples, 12, 12)) < 0.4).astype(np.uint8)
    noise = np.random.default_rng(seed).random(masks.shape)
    counts = count((1 - quality) * noise + quality * masks, masks)
    keys = np.array([f"test/{sample}__0" for sample in range(samples)])
    columns: dict[str, Any] = {
        "key": keys,
        "image_key": np.array([f"image {sample // 2}" for sample in range(samples)]),
        "phrase": keys,
        "group": keys,
        "height": np.full(samples, 12),
        "width": np.full(samples, 12),
        "counts": counts,
        "official_intersection": counts.tp[:, 14],
        "official_union": counts.positives + counts.fp[:, 14],
        "threshold": 0.3,
        "seconds": 1.0,
        "provenance": {"benchmark": "phrasecut", "split": "test", "experiment": "phrasecut_pc", "protocol": "released"},
    }
    return Results(**columns | changes)
