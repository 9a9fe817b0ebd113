"""Choice of the one series of a study, on quality rows: no CT is read for it.

Rules come first: a series that violates one is no candidate. Of the candidates, the one that the cohort's table names, else in
this order: a preferred pattern; ORIGINAL before DERIVED (ImageType value 1); thin before thick, by the larger of thickness and
step; the most slices; the lowest series number; the series UID in the order of its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fmaudit_core.imaging.rules import SeriesRules

Row = Mapping[str, Any]

#: criteria after which a candidate may be chosen or passed over, in their order, and their meaning on the page
CRITERIA: Final = {
    "preferred": "matches `imaging: series: prefer`",
    "original": "original before derived",
    "thinnest": "thin slices before thick ones",
    "most_slices": "most slices",
    "series_number": "lowest series number",
    "tie": "series UID in the order of its text",
}
ONLY: Final = "only_candidate"
NAMED: Final = "named"
CHOICES: Final = {ONLY: "the only series that fits", NAMED: "named by the cohort's table", **CRITERIA}
_NO_NUMBER: Final = 1 << 31


def judged(rows: Sequence[Row], rules: SeriesRules, *, named: str = "") -> list[dict[str, Any]]:
    """Return the quality rows of a study with the verdict of the rules and the choice: the chosen one first.

    Parameters
    ----------
    rows : sequence of mapping, columns of `SLICE_QUALITY` without `used` and `choice`
    named : str, optional
        Series UID that the cohort's table names.

    Returns
    -------
    The rows, with `used`, and with `choice`: by what the used one was chosen, and by what the other candidates were passed over.
    If no candidate has the named UID, one more row has the reason `series_not_found`.
    """
    verdicts = [_verdict(row, rules) for row in rows]
    candidates = [row for row in verdicts if row["status"] == "accepted"]
    rest = [row for row in verdicts if row["status"] != "accepted"]
    order = sorted(candidates, key=lambda row: _key(row, rules))
    if named:
        order.sort(key=lambda row: row["series_uid"] != named)
        if not order or order[0]["series_uid"] != named:
            return [{**row, "choice": NAMED} for row in order] + rest + [_not_found(named)]
    return [
        {**row, "used": at == 0, "choice": _choice(order, at, rules, named=bool(named))} for at, row in enumerate(order)
    ] + rest


def _not_found(named: str) -> dict[str, Any]:
    verdict = {"series_uid": named, "status": "quarantined", "reason": "series_not_found", "flags": "", "choice": ""}
    return {**verdict, "used": False, "n_slices": 0, "n_files": 0}


def stored_at(rows: Sequence[Row], rules: SeriesRules, *, named: str = "") -> int | None:
    """Return the index of the row whose slices are stored: the one that `judged` chooses, or would if rules excluded none."""
    accepted = [at for at, row in enumerate(rows) if row["status"] == "accepted"]
    return min(accepted, key=lambda at: _stored_first(rows[at], rules, named), default=None)


def _stored_first(row: Row, rules: SeriesRules, named: str) -> tuple[Any, ...]:
    return rules.broken_by(row) is not None, bool(named) and row["series_uid"] != named, *_key(row, rules)


def _verdict(row: Row, rules: SeriesRules) -> dict[str, Any]:
    broken = rules.broken_by(row) if row["status"] == "accepted" else None
    verdict = {"status": "quarantined", "reason": broken} if broken else {}
    return {**row, **verdict, "used": False, "choice": ""}


def _key(row: Row, rules: SeriesRules) -> tuple[Any, ...]:
    """Return what candidates are ordered by, an entry per criterion."""
    number = row["series_number"]
    return (
        rules.preference(row),
        row["image_type"].startswith("DERIVED"),
        round(max(row["spacing_mm"], row["thickness_mm"] or 0.0), 1),
        -row["n_slices"],
        _NO_NUMBER if number is None else number,
        row["series_uid"],
    )


def _choice(order: Sequence[Row], at: int, rules: SeriesRules, *, named: bool) -> str:
    """Return the criterion that decides between a candidate and the chosen one, or the chosen one and the next."""
    if len(order) == 1 and not named:
        return ONLY
    if named:
        return NAMED
    mine, other = (_key(order[one], rules) for one in (at, 0 if at else 1))
    return next((name for name, a, b in zip(CRITERIA, mine, other, strict=True) if a != b), "tie")
