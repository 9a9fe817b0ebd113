"""Preprocessing of 8-bit slices to a torch network's input: resized on the device, cropped, normalised."""

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
        if spec.view.values != "uint8" or spec.view.channels not in (1, channels):
            raise SpecError(
                f"the network takes 8-bit slices of 1 or {channels} windows.",
                where=spec.name,
                fix="Set `values: uint8` and that number of `windows` in its view.",
            )
        self._inputs, self._device = inputs, device
        shape = (1, channels, 1, 1)
        self._mean = torch.tensor(inputs.mean, device=device).view(shape) * inputs.scale
        self._factor = 1.0 / (torch.tensor(inputs.std, device=device).view(shape) * inputs.scale)

    def __call__(self, slices: SliceArray) -> torch.Tensor:
        """Convert (n, channels, rows, columns) uint8 to (n, network's channels, size, size) float32; one channel is repeated."""
        values = self._fitted(on_device(slices, self._device)).to(torch.float32, memory_format=torch.channels_last)
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
        """Resize: with antialias rounded to 8 bits, as in PIL; without, in float32, as in `tf.image.resize`."""
        mode, antialias = self._inputs.resize, self._inputs.antialias
        if antialias and grey.device.type == "cpu":  # torch resamples 8 bits on CPUs only; several times faster
            return nn.functional.interpolate(grey, size=target, mode=mode, antialias=True)
        values = nn.functional.interpolate(grey.float(), size=target, mode=mode, antialias=antialias).clamp_(0.0, 255.0)
        return values.round_() if antialias else values


def on_device(slices: SliceArray, place: torch.device) -> torch.Tensor:
    """Return slices as a tensor on the device; copied to a GPU from pinned memory, so that copy and computation overlap."""
    there = torch.from_numpy(np.ascontiguousarray(slices))
    return there.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else there
