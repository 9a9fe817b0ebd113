"""For whom does it fail, and how sure are we: the statistics of the audit, on anybody's predictions."""

from fmaudit_core.fairness.assess import Assessment, assess

__all__ = ["Assessment", "assess"]
