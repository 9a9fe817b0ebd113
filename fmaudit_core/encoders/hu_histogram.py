"""The control of every audit: features of the distribution of HU alone. NumPy only, no weights."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import SliceArray

#: 64 equal bins and two open-ended ones
_EDGES_HU: Final = np.arange(-1024, 1025, 32)
#: air, lung, fat, soft tissue, contrast, bone
_RANGES_HU: Final = ((-1100, -950), (-950, -600), (-200, -30), (0, 120), (150, 500), (500, 3000))
_LOWEST_HU: Final = -1100
_HIGHEST_HU: Final = 3000
_TEXTURE_FIGURES: Final = 8
DIM: Final = len(_EDGES_HU) + 1 + len(_RANGES_HU) + _TEXTURE_FIGURES


class HuHistogram:
    """The control encoder; per slice: a HU histogram, shares of tissue ranges, and mean and spread of local gradients.

    The 80 features are 66 shares of HU bins (two open-ended), 6 shares of named ranges, and 8 of texture: mean and standard
    deviation of HU/1000, and mean, standard deviation and 50th, 90th, 95th and 99th percentile of the gradient's magnitude in
    1000 HU per pixel.
    """

    device = "cpu"

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed slices, (n, 1, rows, columns) int16 HU, as (n, 80) float32."""
        return np.stack([_figures(one[0]) for one in slices])


def load(spec: EncoderSpec, device: str) -> HuHistogram:  # noqa: ARG001  # nothing runs on a device
    """Load the adapter: the control reads HU, so its view must keep them."""
    if spec.view.values != "int16" or spec.dim != DIM:
        raise SpecError(f"hu_histogram needs a view with `values: int16`, and `dim: {DIM}`.", where=spec.name)
    return HuHistogram()


def _figures(hu: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.float32]:
    below = _counts_below(hu)
    histogram = np.diff([0, *below[_EDGES_HU - _LOWEST_HU], hu.size]) / hu.size
    shares = [(below[high - _LOWEST_HU] - below[low - _LOWEST_HU]) / hu.size for low, high in _RANGES_HU]
    flat = hu.astype(np.float32)
    down, across = np.gradient(flat / 1000.0)
    slope = np.hypot(down, across).ravel()
    texture = [
        flat.mean() / 1000.0,
        flat.std() / 1000.0,
        slope.mean(),
        slope.std(),
        *np.percentile(slope, (50, 90, 95, 99)),
    ]
    return np.concatenate([histogram, shares, texture]).astype(np.float32)


def _counts_below(hu: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.int64]:
    """Return the number of pixels below each HU from the lowest edge to the highest."""
    inside = np.clip(hu.ravel(), _LOWEST_HU - 1, _HIGHEST_HU).astype(np.int64) - (_LOWEST_HU - 1)
    return np.cumsum(np.bincount(inside, minlength=_HIGHEST_HU - _LOWEST_HU + 2))[:-1]
