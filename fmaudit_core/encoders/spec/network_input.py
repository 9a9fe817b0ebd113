"""The key `input`: preprocessing of slices to a network's input."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fmaudit_core.encoders.spec.part import Part


class Input(Part):
    """Preprocessing of 8-bit slices to a network's input: resized on the device, then (grey / scale - mean) / std, per channel.

    Parameters
    ----------
    size_px : int
        Rows and columns of the network's input.
    scale : float
        Grey values are divided by this first.
    mean, std : tuple of float, one per channel
    resize, antialias
        How slices of another size are resampled: with antialias as in PIL and torchvision, to 8 bits; without
        as in `tf.image.resize`.
    fit : "squash" or "centre_crop"
        Treatment of slices that are not square: squashed, or resized by the shorter side and cropped at the centre.
    """

    size_px: int = Field(ge=16, le=4096)
    scale: float = Field(default=255.0, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    fit: Literal["squash", "centre_crop"] = "squash"

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        if len(self.mean) != len(self.std) or any(one <= 0 for one in self.std):
            raise ValueError("mean and std need one value per channel, std above 0")
        return self
