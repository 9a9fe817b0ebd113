"""Frozen feature extractors: specs and their registry, adapters that load and run them, and what they extract."""
