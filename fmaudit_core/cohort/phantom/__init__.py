"""The phantom cohort: planned by `plan.py`, drawn by `anatomy.py`, written by `writer.py`."""
