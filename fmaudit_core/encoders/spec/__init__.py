"""Encoder specs, one YAML per encoder: adapter, weights, view and output; one module per part.

The folder of specs is the registry, `encoders/registry.py`.
"""

from fmaudit_core.encoders.spec.encoder import IMPORTED, PREDICTIONS, EncoderSpec
from fmaudit_core.encoders.spec.imported import HOW_TO_IMPORT, ImportedFile
from fmaudit_core.encoders.spec.network_input import Input
from fmaudit_core.encoders.spec.predicted import PredictionsFile
from fmaudit_core.encoders.spec.reading import load_spec
from fmaudit_core.encoders.spec.timm_options import TimmOptions
from fmaudit_core.encoders.spec.weights import Weights

__all__ = [
    "HOW_TO_IMPORT",
    "IMPORTED",
    "PREDICTIONS",
    "EncoderSpec",
    "ImportedFile",
    "Input",
    "PredictionsFile",
    "TimmOptions",
    "Weights",
    "load_spec",
]
