"""Probes on frozen embeddings: fitted on train (`logistic.py`), chosen on validation, scored on val and test."""
