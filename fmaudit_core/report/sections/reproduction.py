"""Published figures next to ours, as the page shows them. What they are: `fmaudit_core/reproduction/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.reproduction.compare import WIDEST_AUROC, WIDEST_RATE
from fmaudit_core.reproduction.published_values import citation

Row = dict[str, Any]

VERDICTS: Final = {"same": "Same", "different": "Different", "not_comparable": "Not comparable"}
_QUANTITIES: Final = {
    "auroc": "AUROC",
    "udr": "Missed (UDR)",
    "tpr": "Found (TPR)",
    "udr_gap": "Gap in missed",
    "auroc_difference_test": "AUROC against CT-LRCN",
    "auroc_lr_minus_best_mlp": "AUROC, logistic less best MLP",
    "auroc_ct_ehr_minus_ct": "AUROC, CT and record less CT",
    "relative_gap_reduction": "Share of the gap that went",
    "auroc_cost": "AUROC lost",
    "macro_f1": "Macro-F1 of the attribute",
    "female_tpr_below_male_at_every_threshold": "Women found less at every threshold",
    "hispanic_disparity_p": "p of Hispanic patients",
    "race_gap_widens_under_importance_weighting": "Gap widens under importance weighting",
    "subgroup_n": "Studies of a subgroup",
    "embedding_dim": "Width of the embedding",
    "parameters_millions": "Parameters (millions)",
    "permutations": "Permutations",
    "alpha_grid": "Coefficients of the adversary",
    "hidden_sizes": "Hidden layers of the MLPs",
    "studies": "Studies",
    "patients": "Patients",
}  # fmt: skip
_WHOLE: Final = ("studies", "patients", "embedding_dim", "permutations", "alpha_grid")


@dataclass(frozen=True)
class PublishedLine:
    """A published figure next to this audit's, as text."""

    title: str
    where: str
    published: str
    ours: Estimate
    verdict: str
    verdict_title: str
    reason: str


@dataclass(frozen=True)
class PaperView:
    """The comparison with a paper; `aside` has the figures that cannot be compared, by the reason."""

    citation: str
    counts: Sequence[tuple[str, int]]
    labels_file: str
    rows: Sequence[PublishedLine]
    aside: Sequence[tuple[str, Sequence[str]]]
    widest_auroc: str
    widest_rate: str


def paper_view(rows: list[Row], titles: dict[str, str]) -> PaperView | None:
    """Return the section on the paper's figures; None if they were not compared.

    Parameters
    ----------
    titles : encoder -> name for people
    """
    if not rows:
        return None
    aside: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "not_comparable" and row["ours"] is None:
            aside.setdefault(row["reason"], []).append(_title(row, titles))
    return PaperView(
        citation=citation(),
        counts=[(title, sum(row["verdict"] == verdict for row in rows)) for verdict, title in VERDICTS.items()],
        labels_file=next((row["labels_file"] for row in rows if row["labels_file"]), ""),
        rows=[_line(row, titles) for row in rows if row["ours"] is not None or row["ours_p"] is not None],
        aside=[(reason[:1].upper() + reason[1:], list(dict.fromkeys(of))) for reason, of in aside.items()],
        widest_auroc=f"{WIDEST_AUROC:g}",
        widest_rate=f"{WIDEST_RATE:g}",
    )


def _line(row: Row, titles: dict[str, str]) -> PublishedLine:
    ours = _number(row, row["ours"]) if row["ours"] is not None else formatting.p_text(row["ours_p"])
    return PublishedLine(
        title=_title(row, titles),
        where=row["where"],
        published=row["published"],
        ours=Estimate(ours, formatting.between(row["ours_low"], row["ours_high"])),
        verdict=row["verdict"],
        verdict_title=VERDICTS[row["verdict"]],
        reason=row["reason"][:1].upper() + row["reason"][1:],
    )


def _number(row: Row, value: float) -> str:
    return f"{value:,.0f}" if row["quantity"] in _WHOLE else formatting.signed(value, 3, plus=False)


def _title(row: Row, titles: dict[str, str]) -> str:
    parts = [
        _QUANTITIES.get(row["quantity"], row["quantity"].replace("_", " ")),
        titles.get(row["model"], row["model"].replace("_", "-").upper() if row["model"] == "ct_lrcn" else row["model"]),
        formatting.task_title(row["task"], {}) if row["task"] else "",
        vocabulary.subgroup_title(row["subgroup"]) if row["subgroup"] else
        formatting.attribute_title(row["attribute"]) if row["attribute"] else "",
        f"{row['strategy']} by {formatting.attribute_title(row['target_attribute']).lower()}" if row["target_attribute"]
        else row["strategy"] if row["strategy"] not in ("", "none") else "",
    ]  # fmt: skip
    return ", ".join(part for part in parts if part)
