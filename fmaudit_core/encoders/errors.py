"""What can be wrong with an encoder: its spec, its weights, or what it extracts."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class EncoderError(FmauditError):
    """An encoder cannot be used as its spec says."""


class SpecError(EncoderError):
    """An encoder's YAML is wrong."""

    exit_code = 2


class WeightsError(EncoderError):
    """A checkpoint is missing, not the one the spec names, or does not fit the network."""


class ImportedFileError(EncoderError):
    """A file of embeddings computed elsewhere is missing, not the one the spec names, or wrong."""


class PredictionsFileError(EncoderError):
    """A file of predictions computed elsewhere is missing, not the one the spec names, or wrong."""


class ExtractionError(EncoderError):
    """Embeddings could not be made; nothing was published."""
