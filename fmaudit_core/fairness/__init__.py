"""Subgroup performance and fairness gaps with their uncertainty, for predictions of any model."""

from fmaudit_core.fairness.assess import Assessment, assess

__all__ = ["Assessment", "assess"]
