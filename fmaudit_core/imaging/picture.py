"""Montages: slices of one series, or one slice of each of several studies, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from fmaudit_core.imaging.window import WINDOWS, Int16Array, SliceArray, View, to_window

UInt8Array = npt.NDArray[np.uint8]

_TILES, _TILE_PX = 12, 192
_SMALL_COLUMNS, _SMALL_PX = 6, 144
_WINDOW: Final = "pe"


def write_montage(path: Path, volume_hu: Int16Array, *, window: str = _WINDOW) -> None:
    """Write a montage of up to twelve slices, evenly spaced from the feet upwards, through a named window.

    Parameters
    ----------
    volume_hu : (slices, rows, columns) int16, HU
    """
    chosen = np.linspace(0, len(volume_hu) - 1, min(_TILES, len(volume_hu))).round().astype(int)
    named = WINDOWS[window]
    grey = to_window(volume_hu[chosen], centre_hu=named.centre_hu, width_hu=named.width_hu)
    _sheet(list(grey), columns=4, tile_px=_TILE_PX).save(path, format="PNG")


def montage_png(tiles: Sequence[UInt8Array]) -> bytes:
    """Return slices, each (rows, columns) grey, as one PNG without any text or metadata."""
    out = io.BytesIO()
    _sheet(tiles, columns=_SMALL_COLUMNS, tile_px=_SMALL_PX).save(out, format="PNG", optimize=True)
    return out.getvalue()


def grey_slice(view: View, stored: SliceArray) -> UInt8Array:
    """Return one stored slice of a view, (channels, rows, columns), as grey through the window for emboli if it has it.

    A slice of HU is windowed; of several windows without that for emboli the first is shown.
    """
    if view.values == "int16":
        named = WINDOWS[_WINDOW]
        grey = to_window(stored[:1].astype(np.int16), centre_hu=named.centre_hu, width_hu=named.width_hu)
        return np.asarray(grey[0], dtype=np.uint8)
    windows = list(view.channel_windows)
    at = windows.index(WINDOWS[_WINDOW]) if WINDOWS[_WINDOW] in windows else 0
    return np.asarray(stored[at], dtype=np.uint8)


def _sheet(grey: Sequence[UInt8Array], *, columns: int, tile_px: int) -> Image.Image:
    columns = min(columns, len(grey))
    rows = math.ceil(len(grey) / columns)
    sheet = Image.new("L", (columns * tile_px, rows * tile_px))
    for index, one in enumerate(grey):
        tile = Image.fromarray(one)
        tile.thumbnail((tile_px, tile_px))
        sheet.paste(tile, (index % columns * tile_px, index // columns * tile_px))
    return sheet
