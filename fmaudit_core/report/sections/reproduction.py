"""Published figures next to ours, as the page shows them. What they are: `fmaudit_core/reproduction/`."""

from __future__ import annotations

from typing import Any, Final

from fmaudit_core.common import vocabulary
from fmaudit_core.report.text import formatting
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


def paper_view(rows: list[Row], titles: dict[str, str]) -> Row | None:
    """Return the section on the paper's figures; None if they were not compared.

    Parameters
    ----------
    titles : encoder -> name for people
    """
    if not rows:
        return None
    counted = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    aside: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "not_comparable" and row["ours"] is None:
            aside.setdefault(row["reason"], []).append(_title(row, titles))
    return {
        "citation": citation(),
        "counts": [{"verdict": verdict, "title": title, "n": counted[verdict]} for verdict, title in VERDICTS.items()],
        "labels_file": next((row["labels_file"] for row in rows if row["labels_file"]), ""),
        "rows": [_line(row, titles) for row in rows if row["ours"] is not None or row["ours_p"] is not None],
        "aside": [
            {"reason": reason[:1].upper() + reason[1:], "figures": list(dict.fromkeys(of))} for reason, of in aside.items()
        ],
        "how": (
            "Same: the published value, or some of the published range, lies within our interval, and that is no wider than "
            f"{WIDEST_AUROC:g} for AUROC and {WIDEST_RATE:g} otherwise. Different: it lies outside. Tests are compared by their "
            "conclusion. The paper gives neither intervals nor counts, so its own uncertainty is not accounted for."
        ),
    }  # fmt: skip


def _line(row: Row, titles: dict[str, str]) -> Row:
    return {
        "title": _title(row, titles),
        "where": row["where"],
        "published": row["published"],
        "ours": _number(row, row["ours"]) if row["ours"] is not None else formatting.p_text(row["ours_p"]),
        "interval": formatting.between(row["ours_low"], row["ours_high"]),
        "verdict": row["verdict"],
        "verdict_title": VERDICTS[row["verdict"]],
        "reason": row["reason"][:1].upper() + row["reason"][1:],
    }


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
