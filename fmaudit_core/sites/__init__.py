"""Audits of several hospitals: probes tried elsewhere, and results pooled, without a patient leaving."""
