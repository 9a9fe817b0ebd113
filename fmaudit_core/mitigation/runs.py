"""Names of a strategy's runs. Their tables: `tables/mitigation.py`."""

from __future__ import annotations

from typing import Final

#: the probe as it was, against which every strategy is held
NONE: Final = "none"

#: key of one run: a strategy with its target attribute, and alpha and seed if it has them
RUN: Final = ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")
STRATEGY_TITLES: Final = {
    "reweighting": "importance weighting",
    "resampling": "group resampling",
    "adversarial": "adversarial training",
    "leace": "linear erasure (LEACE)",
    "dfr": "last-layer balanced retraining (DFR)",
    "group_dro": "worst-group training (GroupDRO)",
    "group_thresholds": "group-specific thresholds",
}
#: as figures and columns of a table name them
SHORT_TITLES: Final = {
    "reweighting": "Weighting",
    "resampling": "Resampling",
    "adversarial": "Adversarial",
    "leace": "LEACE",
    "dfr": "DFR",
    "group_dro": "GroupDRO",
    "group_thresholds": "Group thresholds",
}
