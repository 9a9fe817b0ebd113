"""A montage of a series: its slices as one PNG."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from fmaudit_core.imaging.window import WINDOWS, Int16Array, to_window

_TILES, _TILE_PX = 12, 192


def write_montage(path: Path, volume_hu: Int16Array, *, window: str = "pe") -> None:
    """Write a montage of up to twelve slices, evenly spaced from the feet upwards, through a named window.

    Parameters
    ----------
    volume_hu : (slices, rows, columns) int16, HU
    """
    chosen = np.linspace(0, len(volume_hu) - 1, min(_TILES, len(volume_hu))).round().astype(int)
    named = WINDOWS[window]
    grey = to_window(volume_hu[chosen], centre_hu=named.centre_hu, width_hu=named.width_hu)
    columns = min(4, len(grey))
    rows = math.ceil(len(grey) / columns)
    sheet = Image.new("L", (columns * _TILE_PX, rows * _TILE_PX))
    for index, one in enumerate(grey):
        tile = Image.fromarray(one)
        tile.thumbnail((_TILE_PX, _TILE_PX))
        sheet.paste(tile, (index % columns * _TILE_PX, index // columns * _TILE_PX))
    sheet.save(path, format="PNG")
