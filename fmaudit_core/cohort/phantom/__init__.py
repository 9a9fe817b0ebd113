"""The phantom cohort: drawn by `pipeline/stale_steps.py` and `anatomy.py`, written by `writer.py`."""
