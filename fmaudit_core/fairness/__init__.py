"""Subgroup performance and fairness gaps with their uncertainty, for predictions of any model."""

from fmaudit_core.fairness.assess import Assessment, assess
from fmaudit_core.fairness.planning import Plan, plan

__all__ = ["Assessment", "Plan", "assess", "plan"]
