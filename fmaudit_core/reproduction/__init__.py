"""Comparison of published values of an audit on INSPECT with this audit's values."""
