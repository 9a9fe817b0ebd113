"""Probes on frozen embeddings: fitted on train (`logistic.py`, by `solver.py`), chosen and scored in `selection.py`."""
