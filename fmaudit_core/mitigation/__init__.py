"""Bias mitigation on frozen embeddings: strategies, each compared with the unmitigated probe for benefit, harm and cost."""
