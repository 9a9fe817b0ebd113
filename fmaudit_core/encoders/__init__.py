"""Frozen feature extractors: specs and their registry, the adapters that load and run encoders, and the extracted embeddings."""
