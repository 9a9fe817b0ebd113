"""Files of slice embeddings with a planted answer, and what a network is compared with."""

from __future__ import annotations

import numpy as np
import polars as pl

from fmaudit_core.encoders.embeddings_writer import written_embeddings
from fmaudit_core.encoders.pooling import POOLINGS, pooled

SPLITS = ("train", "val", "test")


def planted(path, *, n=600, d=24, focal=True, seed=0, length=(14, 26), strength=2.5):
    """A file of embeddings whose positives differ in two slices (focal) or a little in every slice (diffuse).

    Slices come from the feet upwards, the studies in an order of their own, written in batches that cut through studies.
    """
    rng = np.random.default_rng(seed)
    studies = [f"s{k:04d}" for k in rng.permutation(n)]
    counts = rng.integers(*length, n)
    y = rng.random(n) < 0.4
    sign = np.zeros(d)
    sign[:3] = strength
    bags = []
    for count, positive in zip(counts, y, strict=True):
        # what differs between patients everywhere drowns a faint sign in the mean of many slices
        slices = rng.normal(size=(count, d)) + 0.5 * rng.normal(size=d)
        if positive and focal:
            slices[rng.choice(count, 2, replace=False)] += sign
        elif positive:
            slices += 0.16 * sign
        bags.append(slices.astype(np.float32))
    split = rng.choice(SPLITS, n, p=(0.5, 0.2, 0.3))
    with written_embeddings(path, d) as writer:
        for start in range(0, n, 50):
            some = slice(start, start + 50)
            writer.add_slices(studies[some], counts[some], np.concatenate(bags[some]))
        for pooling in POOLINGS:
            writer.add_studies(pooling, studies, np.stack([pooled(bag, pooling) for bag in bags]))
        writer.tell({"version": "v"})
    frame = pl.DataFrame({"study_id": studies, "patient_id": studies, "split": split}).sort("study_id")
    labels = pl.DataFrame({"study_id": studies, "task": ["pe"] * n, "label": y}).sort("study_id")
    return frame, labels, dict(zip(studies, bags, strict=True))
