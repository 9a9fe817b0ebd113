"""HU windows, and the view of a volume that an encoder reads. Volumes come from `series.py`; `slices.py` stores views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fmaudit_core.imaging.errors import WindowError
from fmaudit_core.imaging.volume import Grid, Spacing

Int16Array = npt.NDArray[np.int16]
UInt8Array = npt.NDArray[np.uint8]
#: 8-bit grey, HU, or HU that were standardised by their study
SliceArray = npt.NDArray[np.uint8] | npt.NDArray[np.int16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """A named CT window, in HU."""

    name: str
    centre_hu: float
    width_hu: float


WINDOWS: Final = {
    window.name: window
    for window in (
        Window("lung", -600.0, 1500.0),
        Window("pe", 400.0, 1000.0),
        Window("mediastinal", 40.0, 400.0),
    )
}


def to_window(volume_hu: Int16Array, *, centre_hu: float, width_hu: float) -> UInt8Array:
    """Map Hounsfield units to 8-bit grey through one CT window.

    Parameters
    ----------
    volume_hu : (..., rows, columns) int16, HU, rescale already applied
    centre_hu, width_hu : float, HU

    Returns
    -------
    (..., rows, columns) uint8, 0 below the window and 255 above it, rounded half to even

    Raises
    ------
    WindowError
        At `width_hu` of 1 or less the formula divides by zero.

    References
    ----------
    DICOM PS3.3 C.11.2.1.2.1, the default LINEAR function.
    """
    return _lookup_table(centre_hu, width_hu).take(volume_hu.view(np.uint16))


@cache
def _lookup_table(centre_hu: float, width_hu: float) -> UInt8Array:
    """Return the grey value of every int16 HU, (65536,) uint8, indexed by its bits; look-up is exact and several times faster."""
    if width_hu <= 1:
        raise WindowError(
            f"a window {width_hu:g} HU wide has no grey values.", fix="Give a width above 1 HU (lung: 1500)."
        )
    hu = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
    grey = ((hu - (centre_hu - 0.5)) / (width_hu - 1.0) + 0.5) * 255.0
    return np.rint(np.clip(grey, 0.0, 255.0)).astype(np.uint8)


class WindowRange(BaseModel):
    """A CT window by numbers: `{centre_hu, width_hu}` as in DICOM, or `{hu: [black, white]}`.

    Parameters
    ----------
    centre_hu, width_hu : float, HU
    hu : two floats, HU
        The largest value that is black and the smallest that is white.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    centre_hu: float | None = None
    width_hu: float | None = Field(default=None, gt=1, le=65_536)
    hu: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        by_centre = self.centre_hu is not None and self.width_hu is not None
        if by_centre == (self.hu is not None) or (self.centre_hu is None) != (self.width_hu is None):
            raise ValueError("a window needs either `centre_hu` and `width_hu`, or `hu: [black, white]`")
        if self.hu is not None and self.hu[0] >= self.hu[1]:
            raise ValueError(f"`hu: [black, white]` must ascend; {self.hu[0]:g} is not below {self.hu[1]:g}")
        return self

    def window(self) -> Window:
        """Return the window, named by its numbers."""
        if self.hu is not None:
            black, white = self.hu
            # DICOM's LINEAR function is black at centre - 0.5 - (width - 1) / 2
            return Window(f"{black:g}..{white:g} HU", (black + white) / 2 + 0.5, white - black + 1)
        assert self.centre_hu is not None
        assert self.width_hu is not None
        return Window(f"{self.centre_hu:g}/{self.width_hu:g} HU", self.centre_hu, self.width_hu)


class View(BaseModel):
    """The part of a CT volume that an encoder reads, and its grey values.

    Parameters
    ----------
    windows : tuple of str or WindowRange
        One channel each: a name (`lung`, `pe`, `mediastinal`), `{centre_hu, width_hu}`, or `{hu: [black, white]}`. The default is
        the paper's single lung-relevant window.
    values : "uint8" or "int16"
        8-bit grey, or unchanged 16-bit HU (then `windows` does not apply and there is one channel).
    size_px : int, optional
        Slices are resized to this many rows and columns (Pillow's bicubic with antialiasing, squashed); None keeps their size.
    stride : int
        Every n-th slice, counted from the feet.
    max_slices : int, optional
        Maximum number of slices, evenly spaced over those left by the stride.
    volume : Grid, optional
        The whole volume on one grid instead of slices; always 16-bit HU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    windows: tuple[str | WindowRange, ...] = ("lung",)
    values: Literal["uint8", "int16"] = "uint8"
    size_px: int | None = Field(default=None, ge=16, le=4096)
    stride: int = Field(default=1, ge=1)
    max_slices: int | None = Field(default=None, ge=1)
    volume: Grid | None = None

    @field_validator("windows")
    @classmethod
    def _known(cls, given: tuple[str | WindowRange, ...]) -> tuple[str | WindowRange, ...]:
        unknown = [one for one in given if isinstance(one, str) and one not in WINDOWS]
        if unknown or not given:
            raise ValueError(
                f"unknown window {', '.join(unknown) or '(none)'}; the named windows are {', '.join(WINDOWS)}, others are given "
                "as {centre_hu: ..., width_hu: ...} or {hu: [black, white]}"
            )
        return given

    @model_validator(mode="after")
    def _slices_or_a_volume(self) -> Self:
        if self.volume is not None:
            if self.values != "int16":
                raise ValueError("a volume has HU values: set `values: int16`")
            if self.size_px is not None or self.stride != 1 or self.max_slices is not None:
                raise ValueError("size_px, stride and max_slices apply to slices; a volume has `shape_zyx`")
        return self

    @property
    def channel_windows(self) -> tuple[Window, ...]:
        """Return the window of each channel."""
        return tuple(WINDOWS[one] if isinstance(one, str) else one.window() for one in self.windows)

    @property
    def of_patches(self) -> bool:
        """Return whether it is a view of volumes in patches."""
        return self.volume is not None and self.volume.patch_zyx is not None

    @property
    def item(self) -> str:
        """Return what an encoder embeds one by one: "slice", "volume" or "patch"."""
        if self.volume is None:
            return "slice"
        return "patch" if self.of_patches else "volume"

    @property
    def channels(self) -> int:
        """Return the number of channels of each slice."""
        return len(self.windows) if self.values == "uint8" else 1

    def key(self) -> str:
        """Return a short stable digest; two specs with equal views share their slices."""
        hu = [[window.centre_hu, window.width_hu] for window in self.channel_windows]
        seen: list[object] = [
            self.values,
            hu if self.values == "uint8" else [],
            self.size_px,
            self.stride,
            self.max_slices,
        ]
        if self.volume is not None:
            seen.append(self.volume.key())
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]

    def chosen(self, n_slices: int) -> npt.NDArray[np.intp]:
        """Return the indices of the slices of a volume that this view keeps, ascending."""
        kept = np.arange(0, n_slices, self.stride)
        if self.max_slices is not None and len(kept) > self.max_slices:
            kept = kept[np.linspace(0, len(kept) - 1, self.max_slices).round().astype(np.intp)]
        return kept

    def items(self, stored: SliceArray) -> Iterator[SliceArray]:
        """Yield what an encoder reads of one study, in blocks along the first axis.

        Parameters
        ----------
        stored : array
            As returned by `apply`.

        Returns
        -------
        Iterator of all slices, (slices, channels, rows, columns); of the volume, (1, slices, 1, rows, columns); or of its
        patches, one by one
        """
        if self.volume is None:
            yield stored
        else:
            yield from self.volume.items(stored.astype(np.int16, copy=False))

    def apply(self, volume_hu: Int16Array, spacing_zyx_mm: Spacing | None = None) -> SliceArray:
        """Return the slices of a volume in this view.

        Parameters
        ----------
        volume_hu : (slices, rows, columns) int16, HU
        spacing_zyx_mm : three floats, optional
            Required if the view is of volumes with their own spacing.

        Returns
        -------
        (kept slices, channels, rows, columns), uint8 grey or int16 HU
        """
        if self.volume is not None:
            return self.volume.apply(volume_hu, spacing_zyx_mm)[:, None]
        chosen = self.chosen(len(volume_hu))
        kept = volume_hu if len(chosen) == len(volume_hu) else volume_hu[chosen]
        size = self.size_px
        if size is None or kept.shape[1:] == (size, size):
            return self._as_it_is(kept)
        # numba is loaded only if slices are resized
        from fmaudit_core.imaging.resize import resized_hu, resized_windows

        if self.values == "int16":
            return resized_hu(kept, size)[:, None]
        tables = np.stack([_lookup_table(one.centre_hu, one.width_hu) for one in self.channel_windows])
        return resized_windows(kept, tables, size)

    def _as_it_is(self, slices_hu: Int16Array) -> SliceArray:
        """Return slices at their own size."""
        if self.values == "int16":
            return slices_hu[:, None]
        grey = [to_window(slices_hu, centre_hu=one.centre_hu, width_hu=one.width_hu) for one in self.channel_windows]
        return np.stack(grey, axis=1)
