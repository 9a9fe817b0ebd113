"""Where the audit.json of an applied probe records which encoder and probe its predictions are of."""

from __future__ import annotations


def encoder_key(encoder: str) -> str:
    """Return the key of `provenance` that holds the digest of an encoder."""
    return f"encoder digest of {encoder}"


def probe_key(encoder: str, task: str) -> str:
    """Return the key of `provenance` that holds the digest of a probe."""
    return f"probe of {encoder} for {task}"
