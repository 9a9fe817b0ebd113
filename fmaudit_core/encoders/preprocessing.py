"""Preprocessing of slices, 8-bit or in HU, to a torch network's input: resized on the device, cropped, normalised."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.imaging.window import SliceArray


class Preparation:
    """The preprocessing declared by a spec's `input`, on one device.

    Parameters
    ----------
    inputs : Input
        The spec's, or the one that the adapter read from the checkpoint's folder.

    Raises
    ------
    SpecError
        The view's values or channels do not match the network's input.
    """

    def __init__(self, inputs: Input, spec: EncoderSpec, device: torch.device) -> None:
        channels = len(inputs.mean)
        of_hu = spec.view.values == "int16"
        if of_hu and spec.input is None:
            raise SpecError(
                "the model was published for 8-bit slices.", where=spec.name, fix="Set `values: uint8` in its view."
            )
        if spec.view.volume is not None or spec.view.channels not in (1, channels):
            raise SpecError(
                f"the network takes slices in HU, or 8-bit slices of 1 or {channels} windows.",
                where=spec.name,
                fix="Set `values: int16`, or `values: uint8` and that number of `windows`, in its view.",
            )
        self._inputs, self._device = inputs, device
        shape, divisor = (1, channels, 1, 1), inputs.divisor(of_hu=of_hu)
        self._mean = torch.tensor(inputs.mean, device=device).view(shape) * divisor
        self._factor = 1.0 / (torch.tensor(inputs.std, device=device).view(shape) * divisor)

    def __call__(self, slices: SliceArray) -> torch.Tensor:
        """Convert (n, channels, rows, columns) to (n, network's channels, size, size) float32; one channel is repeated.

        Parameters
        ----------
        slices : uint8 grey, int16 HU, or float32 values that `Input.of_study` standardised
        """
        given = on_device(slices, self._device)
        if slices.dtype == np.int16:
            given = given.to(torch.float32)
            given = given if self._inputs.clip_hu is None else given.clamp_(*self._inputs.clip_hu)
        values = self._fitted(given).to(torch.float32, memory_format=torch.channels_last)
        if self._inputs.zscore == "slice":
            values = _standardised(values)
        return ((values - self._mean) * self._factor).contiguous(memory_format=torch.channels_last)

    def _fitted(self, grey: torch.Tensor) -> torch.Tensor:
        size, (rows, columns) = self._inputs.size_px, grey.shape[-2:]
        if (rows, columns) == (size, size):
            return grey
        crop = self._inputs.fit == "centre_crop"
        short = min(rows, columns)
        target = (size * rows // short, size * columns // short) if crop else (size, size)
        values = grey if target == (rows, columns) else self._resized(grey, target)
        top, left = round((target[0] - size) / 2), round((target[1] - size) / 2)
        return values[..., top : top + size, left : left + size]

    def _resized(self, grey: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
        """Resize 8-bit slices: with antialias rounded to 8 bits, as in PIL; without, in float32, as in `tf.image.resize`.

        Slices in HU are resized in float32 and not rounded.
        """
        mode, antialias = self._inputs.resize, self._inputs.antialias
        eight_bits = grey.dtype == torch.uint8
        if (
            antialias and eight_bits and grey.device.type == "cpu"
        ):  # torch resamples 8 bits on CPUs only; several times faster
            return nn.functional.interpolate(grey, size=target, mode=mode, antialias=True)
        values = nn.functional.interpolate(grey.float(), size=target, mode=mode, antialias=antialias)
        if not eight_bits:
            return values
        values = values.clamp_(0.0, 255.0)
        return values.round_() if antialias else values


def _standardised(values: torch.Tensor) -> torch.Tensor:
    """Return slices, (n, ...), each with mean 0 and standard deviation 1; constant ones become 0."""
    deviation, mean = torch.std_mean(values, dim=(1, 2, 3), correction=0, keepdim=True)
    return (values - mean) / torch.where(deviation > 0, deviation, 1.0)


def on_device(slices: SliceArray, place: torch.device) -> torch.Tensor:
    """Return slices as a tensor on the device; copied to a GPU from pinned memory, so that copy and computation overlap."""
    there = torch.from_numpy(np.ascontiguousarray(slices))
    return there.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else there
