"""Errors of encoders: their specs, weights, and outputs."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class EncoderError(FmauditError):
    """An encoder cannot be used as its spec declares."""


class SpecError(EncoderError):
    """An encoder's YAML is invalid."""

    exit_code = 2


class WeightsError(EncoderError):
    """A checkpoint is missing, differs from the one in the spec, or does not fit the network."""


class ImportedFileError(EncoderError):
    """A file of embeddings computed elsewhere is missing, differs from the one in the spec, or is invalid."""


class PredictionsFileError(EncoderError):
    """A file of predictions computed elsewhere is missing, differs from the one in the spec, or is invalid."""


class ExtractionError(EncoderError):
    """Embeddings could not be extracted; nothing was published."""
