"""The key `input`: preprocessing of slices to a network's input."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fmaudit_core.encoders.spec.part import Part
from fmaudit_core.imaging.window import SliceArray
from fmaudit_core.storage.digests import key_of

#: white of 8-bit slices
_GREY: Final = 255.0


class Input(Part):
    """Preprocessing of slices to a network's input: resized on the device, then (value / scale - mean) / std, per channel.

    Slices in HU (a view with `values: int16`) are clipped before they are resized, and may be standardised after it.

    Parameters
    ----------
    size_px : int
        Rows and columns of the network's input.
    scale : float, optional
        Values are divided by this first: 255 for 8-bit slices, 1 for HU, unless given.
    clip_hu : two floats, HU, optional
        Slices in HU are clipped to this range.
    zscore : "none", "slice" or "study"
        Slices in HU are standardised to mean 0 and standard deviation 1, each slice by itself, or by all slices of its study
        in the view (before they are resized).
    mean, std : tuple of float, one per channel
    resize, antialias
        How slices of another size are resampled: with antialias as in PIL and torchvision, to 8 bits; without
        as in `tf.image.resize`.
    fit : "squash" or "centre_crop"
        Treatment of slices that are not square: squashed, or resized by the shorter side and cropped at the centre.
    """

    size_px: int = Field(ge=16, le=4096)
    scale: float | None = Field(default=None, gt=0)
    clip_hu: tuple[float, float] | None = None
    zscore: Literal["none", "slice", "study"] = "none"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    fit: Literal["squash", "centre_crop"] = "squash"

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        if len(self.mean) != len(self.std) or any(one <= 0 for one in self.std):
            raise ValueError("mean and std need one value per channel, std above 0")
        if self.clip_hu is not None and self.clip_hu[0] >= self.clip_hu[1]:
            raise ValueError("`clip_hu: [low, high]` must ascend")
        return self

    @property
    def of_hu(self) -> bool:
        """Return whether it has keys that apply to slices in HU only."""
        return self.clip_hu is not None or self.zscore != "none"

    def key(self) -> dict[str, Any]:
        """Return what determines the values, for a digest."""
        return key_of(self, added=("clip_hu", "zscore")) | {"scale": _GREY if self.scale is None else self.scale}

    def divisor(self, *, of_hu: bool) -> float:
        """Return what values are divided by."""
        if self.scale is not None:
            return self.scale
        return 1.0 if of_hu else _GREY

    def of_study(self, slices: SliceArray) -> SliceArray:
        """Return the slices of one study, (n, 1, rows, columns) int16 HU, standardised by all of them if declared so."""
        if self.zscore != "study":
            return slices
        values = slices.astype(np.float32)
        if self.clip_hu is not None:
            np.clip(values, *self.clip_hu, out=values)
        deviation = values.std(dtype=np.float64)
        found: npt.NDArray[np.float32] = ((values - values.mean(dtype=np.float64)) / (deviation or 1.0)).astype(
            np.float32
        )
        return found
