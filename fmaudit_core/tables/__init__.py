"""Columns of the published tables and their meanings."""
