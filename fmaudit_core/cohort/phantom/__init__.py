"""The phantom cohort: drawn by `plan.py` and `anatomy.py`, written by `writer.py`."""
