"""Core of fmaudit: for whom does a medical-imaging foundation model fail, and how sure are we of it.

Plain typed Python, usable in a notebook. The Dagster platform around it is `fmaudit_dagster`.
"""

__version__ = "0.1.0"
