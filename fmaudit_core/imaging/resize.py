"""Bicubic resizing of slices with antialiasing: Pillow's algorithm and its pixels, compiled, several times faster.

Pillow resamples along the rows, rounds, then resamples along the columns; the other way round for tall images. Here both passes
work on an image whose resampled axis comes first, so that the innermost loop runs over neighbours in memory and is vectorised.
Windows are applied while the image is transposed for the first pass.

References
----------
Pillow, `src/libImaging/Resample.c` (MIT-CMU): the coefficients and the fixed-point arithmetic. The order of the passes is that of
Pillow 13; square images have the same one in every version.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Int16Array = npt.NDArray[np.int16]
UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

#: half width of the cubic kernel, and its parameter (Keys 1981)
_SUPPORT: Final = 2.0
_A: Final = -0.5
#: bits of a coefficient after the point
_BITS: Final = 32 - 8 - 2
#: rows that are transposed together
_TOGETHER: Final = 8


def resized_windows(volume_hu: Int16Array, tables: UInt8Array, size: int) -> UInt8Array:
    """Return slices through windows, resized to squares: Pillow's `BICUBIC` of the grey images, pixel by pixel.

    Parameters
    ----------
    volume_hu : (n, rows, columns) int16, HU
    tables : (channels, 65536) uint8
        Grey value of every HU through each window, indexed by the bits of the HU.
    size : int
        Rows and columns of the result.

    Returns
    -------
    (n, channels, size, size) uint8
    """
    n, rows, columns = volume_hu.shape
    if _is_tall(rows, columns, size):
        return np.ascontiguousarray(resized_windows(volume_hu.swapaxes(1, 2), tables, size).swapaxes(2, 3))
    out = np.empty((n, len(tables), size, size), dtype=np.uint8)
    _grey(np.ascontiguousarray(volume_hu).view(np.uint16), tables, *_fixed(columns, size), *_fixed(rows, size), out)
    return out


def resized_hu(volume_hu: Int16Array, size: int) -> Int16Array:
    """Return slices in HU, resized to squares: Pillow's `BICUBIC` in 32-bit floats, rounded half to even.

    Parameters
    ----------
    volume_hu : (n, rows, columns) int16, HU

    Returns
    -------
    (n, size, size) int16
    """
    n, rows, columns = volume_hu.shape
    if _is_tall(rows, columns, size):
        return np.ascontiguousarray(resized_hu(volume_hu.swapaxes(1, 2), size).swapaxes(1, 2))
    out = np.empty((n, size, size), dtype=np.int16)
    _hu(np.ascontiguousarray(volume_hu), *_weights(columns, size), *_weights(rows, size), out)
    return out


def _is_tall(rows: int, columns: int, size: int) -> bool:
    """Return whether an image is resampled along its columns first: it is, if that shrinks it far more."""
    return rows > size and 2 * (columns - size) < rows - size


@cache
def _weights(n: int, size: int) -> tuple[Int64Array, Float64Array]:
    """Return the taps of every output pixel: its first input pixel, (size,), and the weights from there on, (size, taps)."""
    scale = n / size
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    taps = min(int(np.ceil(support)) * 2 + 1, n)
    first, weights = np.zeros(size, dtype=np.int64), np.zeros((size, taps))
    for at in range(size):
        centre = (at + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), n)
        found = [_cubic((index - centre + 0.5) * (1.0 / stretch)) for index in range(start, end)]
        total = 0.0
        for one in found:  # one by one, as Pillow does: another order would round differently
            total += one
        # taps beyond the last pixel would leave the image: then the first one lies further back, with a weight of 0
        first[at] = min(start, n - taps)
        weights[at, start - first[at] : end - first[at]] = [one / total for one in found]
    return first, weights


@cache
def _fixed(n: int, size: int) -> tuple[Int64Array, Int32Array]:
    """Return the taps of every output pixel with weights in fixed point, rounded half away from zero."""
    first, weights = _weights(n, size)
    return first, np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _A if x < _SUPPORT else 0.0


@numba.njit(nogil=True, cache=True)
def _grey(volume, tables, first_x, weights_x, first_y, weights_y, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill `out`, (n, channels, size, size) uint8, from the bits of HU, (n, rows, columns) uint16."""
    n, rows, columns = volume.shape
    size = out.shape[2]
    turned = np.empty((columns, rows), np.uint8)
    narrow = np.empty((size, rows), np.uint8)
    upright = np.empty((rows, size), np.uint8)
    for index in range(n):
        for channel in range(len(tables)):
            _turn_window(volume[index], tables[channel], turned)
            _grey_pass(turned, first_x, weights_x, narrow)
            _turn(narrow, upright)
            _grey_pass(upright, first_y, weights_y, out[index, channel])


@numba.njit(nogil=True, cache=True)
def _turn_window(image, table, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill `out` with the grey values of an image, transposed; several rows at a time to write neighbours together."""
    rows, columns = image.shape
    whole = rows - rows % _TOGETHER
    for row in range(0, whole, _TOGETHER):
        for column in range(columns):
            for i in range(_TOGETHER):
                out[column, row + i] = table[image[row + i, column]]
    for row in range(whole, rows):
        for column in range(columns):
            out[column, row] = table[image[row, column]]


@numba.njit(nogil=True, cache=True)
def _turn(image, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill `out` with an image, transposed."""
    rows, columns = image.shape
    whole = rows - rows % _TOGETHER
    for row in range(0, whole, _TOGETHER):
        for column in range(columns):
            for i in range(_TOGETHER):
                out[column, row + i] = image[row + i, column]
    for row in range(whole, rows):
        for column in range(columns):
            out[column, row] = image[row, column]


@numba.njit(nogil=True, cache=True)
def _grey_pass(image, first, weights, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Resample the first axis of an image, (n, m) uint8, into `out`, (size, m), by fixed-point weights, four taps at a time."""
    size, taps = weights.shape
    m = image.shape[1]
    sums = np.empty(m, np.int32)
    for at in range(size):
        sums[:] = 1 << (_BITS - 1)
        tap = 0
        while tap + 4 <= taps:
            a, b, c, d = weights[at, tap], weights[at, tap + 1], weights[at, tap + 2], weights[at, tap + 3]
            line = first[at] + tap
            for i in range(m):
                sums[i] += (
                    np.int32(image[line, i]) * a
                    + np.int32(image[line + 1, i]) * b
                    + np.int32(image[line + 2, i]) * c
                    + np.int32(image[line + 3, i]) * d
                )
            tap += 4
        while tap < taps:
            a, line = weights[at, tap], first[at] + tap
            for i in range(m):
                sums[i] += np.int32(image[line, i]) * a
            tap += 1
        for i in range(m):
            out[at, i] = min(max(sums[i] >> _BITS, 0), 255)


@numba.njit(nogil=True, cache=True)
def _hu(volume, first_x, weights_x, first_y, weights_y, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill `out`, (n, size, size) int16, from HU, (n, rows, columns) int16; between the passes in 32-bit floats, as in Pillow."""
    n, rows, columns = volume.shape
    size = out.shape[1]
    turned = np.empty((columns, rows), np.float32)
    narrow = np.empty((size, rows), np.float32)
    upright = np.empty((rows, size), np.float32)
    final = np.empty((size, size), np.float32)
    for index in range(n):
        _turn(volume[index], turned)
        _hu_pass(turned, first_x, weights_x, narrow)
        _turn(narrow, upright)
        _hu_pass(upright, first_y, weights_y, final)
        for row in range(size):
            for column in range(size):
                out[index, row, column] = np.rint(min(max(final[row, column], -32768.0), 32767.0))


@numba.njit(nogil=True, cache=True)
def _hu_pass(image, first, weights, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Resample the first axis of an image, (n, m) float32, into `out`, (size, m), tap after tap in 64-bit floats."""
    size, taps = weights.shape
    m = image.shape[1]
    sums = np.empty(m, np.float64)
    for at in range(size):
        sums[:] = 0.0
        tap = 0
        while tap + 4 <= taps:
            a, b, c, d = weights[at, tap], weights[at, tap + 1], weights[at, tap + 2], weights[at, tap + 3]
            line = first[at] + tap
            for i in range(m):  # the order of the sums is Pillow's
                found = sums[i] + image[line, i] * a
                found += image[line + 1, i] * b
                found += image[line + 2, i] * c
                sums[i] = found + image[line + 3, i] * d
            tap += 4
        while tap + 2 <= taps:
            a, b, line = weights[at, tap], weights[at, tap + 1], first[at] + tap
            for i in range(m):
                found = sums[i] + image[line, i] * a
                sums[i] = found + image[line + 1, i] * b
            tap += 2
        if tap < taps:
            a, line = weights[at, tap], first[at] + tap
            for i in range(m):
                out[at, i] = sums[i] + image[line, i] * a
        else:
            for i in range(m):
                out[at, i] = sums[i]
