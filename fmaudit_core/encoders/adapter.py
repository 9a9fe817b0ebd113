"""The adapter interface, and the look-up of a spec's adapter. Adapters are imported lazily: the control needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fmaudit_core.common.errors import MissingExtraError
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import IMPORTED, PREDICTIONS, EncoderSpec
from fmaudit_core.imaging.window import SliceArray

ENTRY_POINT_GROUP: Final = "fmaudit.encoders"
_BUILT_IN: Final = {
    "astra": "fmaudit_core.encoders.astra",
    "efficientnet": "fmaudit_core.encoders.efficientnet",
    "exported": "fmaudit_core.encoders.exported",
    "hu_histogram": "fmaudit_core.encoders.hu_histogram",
    "medimageinsight": "fmaudit_core.encoders.medimageinsight",
    "merlin": "fmaudit_core.encoders.merlin",
    "open_clip": "fmaudit_core.encoders.open_clip",
    "timm": "fmaudit_core.encoders.timm",
    "transformers": "fmaudit_core.encoders.transformers",
}


class Encoder(Protocol):
    """A loaded, frozen encoder."""

    #: device it runs on, as recorded in the provenance
    device: str

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed slices of one shape, or whole volumes.

        Parameters
        ----------
        slices : (n, channels, rows, columns), or (n, slices, 1, rows, columns) for a view of whole volumes
            Values as returned by the spec's view.

        Returns
        -------
        (n, dim) float32
        """
        ...


#: an adapter module or entry point: (spec, device) -> Encoder; device is "cpu", "cuda" or "auto"
Load = Callable[[EncoderSpec, str], Encoder]


def load_encoder(spec: EncoderSpec, device: str = "auto") -> Encoder:
    """Load a spec's encoder in eval mode, with verified weights.

    Raises
    ------
    SpecError
        No adapter has that name, or the embeddings were computed elsewhere.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    MissingExtraError
        The adapter needs an optional part of fmaudit that is not installed.
    """
    if spec.adapter == IMPORTED:
        raise SpecError("its embeddings are imported: there is no network to load.", where=spec.name)
    if not spec.embeds:
        raise SpecError("it is a baseline of predictions: there is no network to load.", where=spec.name)
    if spec.needs_weights and spec.published is not None:
        raise spec.published.missing(spec.name)
    return _adapter(spec.adapter)(spec, device)


def _adapter(name: str) -> Load:
    if name in _BUILT_IN:
        try:
            module: Any = import_module(_BUILT_IN[name])
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("fmaudit"):
                raise
            raise MissingExtraError("encoders", f"the adapter {name}") from error
        load: Load = module.load
        return load
    third_party = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name in third_party:
        found: Load = third_party[name].load()
        return found
    known = ", ".join(sorted([*_BUILT_IN, IMPORTED, PREDICTIONS, *third_party]))
    raise SpecError(f"unknown adapter {name}; the adapters are {known}.")
