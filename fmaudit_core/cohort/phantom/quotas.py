"""Quotas: numbers and choices that meet planned shares exactly, so that small cohorts also hold what is planted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Split `total` by `shares`, with the largest remainders rounded up so that the parts sum to `total`.

    References
    ----------
    Hare-Niemeyer method.
    """
    exact = [total * share / sum(shares) for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def spread(shares: Sequence[float], keys: Sequence[tuple[Any, ...]]) -> list[bool]:
    """Choose members by their shares, from 0 to 1, evenly over the order of their keys (systematic sampling).

    Whatever the keys begin with is balanced: of any run of neighbours, their expected number is chosen, give or take one.
    """
    chosen = [False] * len(shares)
    passed = 0.5
    for i in sorted(range(len(shares)), key=lambda i: keys[i]):
        before, passed = math.floor(passed), passed + shares[i]
        chosen[i] = math.floor(passed) > before
    return chosen
