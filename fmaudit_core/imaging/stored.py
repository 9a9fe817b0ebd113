"""Stored values of one frame: the declared encoding is compared with the bytes, then decoded and reduced to the bits stored.

One named decoder per compressed syntax is used, so that other installed decoders cannot change pixel values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.rescale import IntegerArray

LOSSY: Final = {
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K,
}  # fmt: skip
#: compressed syntax -> its decoder, and the kind of stream it declares
_DECODERS: Final[Mapping[str, tuple[str, str]]] = {
    uid.RLELossless: ("pylibjpeg", "rle"),
    uid.JPEGBaseline8Bit: ("gdcm", "jpeg"),
    uid.JPEGExtended12Bit: ("gdcm", "jpeg"),
    uid.JPEGLossless: ("gdcm", "jpeg lossless"),
    uid.JPEGLosslessSV1: ("gdcm", "jpeg lossless"),
    uid.JPEGLSLossless: ("pyjpegls", "jpeg-ls"),
    uid.JPEGLSNearLossless: ("pyjpegls", "jpeg-ls"),
    uid.JPEG2000Lossless: ("pylibjpeg", "jpeg 2000"),
    uid.JPEG2000: ("pylibjpeg", "jpeg 2000"),
    uid.HTJ2KLossless: ("pylibjpeg", "jpeg 2000"),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg", "jpeg 2000"),
    uid.HTJ2K: ("pylibjpeg", "jpeg 2000"),
}
_LITTLE_ENDIAN: Final = {uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian}
_NATIVE: Final = {*_LITTLE_ENDIAN, uid.ExplicitVRBigEndian}
#: tags of an item and of the end of a sequence of items, little endian (DICOM PS3.5 A.4)
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
#: markers of JPEG that precede the compressed data -> kind of stream (ITU-T T.81 table B.1, T.87 table C.1)
_FRAME_MARKERS: Final = {0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "jpeg", 0xC3: "jpeg lossless", 0xF7: "jpeg-ls"}
_JP2_BOX: Final = b"\x00\x00\x00\x0c\x6a\x50\x20\x20"


@dataclass(frozen=True)
class Bits:
    """Place of a stored value in its cell (DICOM PS3.5 8.1.1).

    Parameters
    ----------
    allocated, stored, high : int
        Bits of a cell, bits of the value, and the place of its most significant bit, from 0.
    signed : bool or None
        Whether the value is a two's complement; None if the header does not say.
    """

    allocated: int
    stored: int
    high: int
    signed: bool | None

    @classmethod
    def of(cls, dataset: Dataset) -> Bits:
        """Return the bits of a header; absent bits stored and high bit have the values that fill the cell.

        Raises
        ------
        Defect
            `inconsistent_bits`
        """
        allocated = int(dataset.BitsAllocated)
        stored = int(_given(dataset, "BitsStored", allocated))
        high = int(_given(dataset, "HighBit", stored - 1))
        sign = _given(dataset, "PixelRepresentation", None)
        if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated or sign not in (None, 0, 1):
            raise Defect("inconsistent_bits")
        return cls(allocated, stored, high, None if sign is None else bool(sign))

    def of_cells(self, cells: IntegerArray, *, right_aligned: bool = False) -> IntegerArray:
        """Return the values of cells: without the bits above the high bit and below the stored ones, the sign extended.

        Parameters
        ----------
        right_aligned : bool
            Whether the decoder delivers the stored bits alone, at the lower end of the cell.

        Raises
        ------
        Defect
            `inconsistent_bits`: without a declared sign, some value could be negative.
        """
        width = cells.dtype.itemsize * 8
        high = self.stored - 1 if right_aligned else self.high
        unsigned = cells.view(f"u{cells.dtype.itemsize}")
        if self.signed and self.stored == width:
            return unsigned.view(f"i{cells.dtype.itemsize}")
        if self.stored < width:
            up, down = width - 1 - high, width - self.stored
            moved = unsigned << up if up else unsigned
            if self.signed:
                return moved.view(f"i{cells.dtype.itemsize}") >> down
            unsigned = moved >> down
        if self.signed is None and bool((unsigned >> (self.stored - 1)).any()):
            raise Defect("inconsistent_bits", "PixelRepresentation")
        return unsigned


def stored_values(
    dataset: Dataset, syntax: str, index: int, shape: tuple[int, ...], *, padding: tuple[int, int] | None
) -> IntegerArray:
    """Return the stored values of one frame, (rows, columns), reduced to the bits stored.

    Parameters
    ----------
    padding : (low, high), optional
        Declared padding. Cells with such a value keep it, even if it needs more bits than are stored.

    Raises
    ------
    Defect
        `truncated_pixel_data`, `undecodable_pixel_data`, `unsupported_transfer_syntax`, `wrong_transfer_syntax` or
        `inconsistent_bits`.
    """
    bits = Bits.of(dataset)
    aligned = False
    if syntax in _NATIVE:
        cells = _native(dataset, syntax, index, shape, bits)
    else:
        cells, precision = _decompressed(dataset, syntax, index, shape)
        # a stream of as many bits as are stored holds nothing else
        aligned = 0 < precision <= bits.stored
    values = bits.of_cells(cells, right_aligned=aligned)
    return values if padding is None else _with_padding(values, cells, bits, padding)


def _with_padding(values: IntegerArray, cells: IntegerArray, bits: Bits, padding: tuple[int, int]) -> IntegerArray:
    low, high = (
        (-(1 << (bits.stored - 1)), (1 << (bits.stored - 1)) - 1) if bits.signed else (0, (1 << bits.stored) - 1)
    )
    if low <= padding[0] and padding[1] <= high:
        return values
    whole = cells.view(values.dtype)
    padded = (whole >= padding[0]) & (whole <= padding[1])
    return np.where(padded, whole, values) if padded.any() else values


def _native(dataset: Dataset, syntax: str, index: int, shape: tuple[int, ...], bits: Bits) -> IntegerArray:
    """Return the cells of uncompressed pixel data, without a copy if the machine can read them."""
    element = dataset["PixelData"]
    if element.is_undefined_length or is_encapsulated(element.value):
        raise Defect("wrong_transfer_syntax")
    size, width = shape[0] * shape[1], bits.allocated // 8
    if len(element.value) < size * width * (index + 1):
        raise Defect("truncated_pixel_data")
    if syntax in _LITTLE_ENDIAN:
        cells = np.frombuffer(element.value, dtype=f"<u{width}", count=size, offset=size * width * index)
        return cells.reshape(shape)
    with damage_is("undecodable_pixel_data"):
        cells, _ = get_decoder(uid.UID(syntax)).as_array(dataset, index=index, **_options(dataset))
    return cells.astype(cells.dtype.newbyteorder("="))


def _decompressed(dataset: Dataset, syntax: str, index: int, shape: tuple[int, ...]) -> tuple[IntegerArray, int]:
    """Return the cells of a compressed frame, and the precision its stream declares, 0 if none."""
    if syntax not in _DECODERS:
        raise Defect("unsupported_transfer_syntax")
    plugin, declared = _DECODERS[syntax]
    decoder = get_decoder(uid.UID(syntax))
    if plugin not in decoder.available_plugins:
        raise Defect("unsupported_transfer_syntax")
    if dataset.PixelData[:4] != _ITEM:
        raise Defect("wrong_transfer_syntax")
    stream = _stream(dataset, index)
    kind, precision = _kind_of(stream)
    if kind and kind != declared:
        raise Defect("wrong_transfer_syntax")
    with damage_is("undecodable_pixel_data" if _is_whole(stream, declared) else "truncated_pixel_data"):
        cells, _ = decoder.as_array(dataset, index=index, decoding_plugin=plugin, **_options(dataset))
    if cells.shape != shape:
        raise Defect("undecodable_pixel_data")
    return cells, precision


def _stream(dataset: Dataset, index: int) -> bytes:
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    with damage_is("truncated_pixel_data"):
        return get_frame(
            dataset.PixelData,
            index,
            number_of_frames=int(dataset.get("NumberOfFrames") or 1),
            extended_offsets=offsets if all(offsets) else None,
        )


def is_encapsulated(data: bytes) -> bool:
    """Return whether a value is a whole sequence of items, as compressed pixel data are (DICOM PS3.5 A.4)."""
    at = 0
    while data[at : at + 4] == _ITEM:
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return at > 0 and (at == len(data) or data[at : at + 4] == _END_OF_ITEMS)


def _kind_of(stream: bytes) -> tuple[str, int]:
    """Return the kind of a compressed stream by its first bytes, empty if unknown, and its precision in bits, 0 if unknown."""
    if stream[:2] == b"\xff\x4f" or stream[:8] == _JP2_BOX:
        return "jpeg 2000", int(get_j2k_parameters(stream).get("precision", 0))
    if stream[:2] == b"\xff\xd8":
        return _kind_of_jpeg(stream)
    # RLE begins with the number of segments, at most 15, and the first offset, 64 (DICOM PS3.5 G.5)
    if 1 <= int.from_bytes(stream[:4], "little") <= 15 and int.from_bytes(stream[4:8], "little") == 64:
        return "rle", 0
    return "", 0


def _kind_of_jpeg(stream: bytes) -> tuple[str, int]:
    at = 2
    while at + 4 < len(stream) and stream[at] == 0xFF:
        if stream[at + 1] in _FRAME_MARKERS:
            return _FRAME_MARKERS[stream[at + 1]], stream[at + 4]
        at += 1 if stream[at + 1] == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return "", 0


def _is_whole(stream: bytes, kind: str) -> bool:
    """Return whether a stream has its end marker; RLE has none, and fails to decode only if bytes are missing."""
    return kind != "rle" and stream.rstrip(b"\0")[-2:] == b"\xff\xd9"


def _options(dataset: Dataset) -> dict[str, Any]:
    """Return options of the decoder: cells with all their bits, and what it needs and the values of a grey image do not."""
    assumed = {"PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 0, "SamplesPerPixel": 1}
    names = {"PhotometricInterpretation": "photometric_interpretation", "PixelRepresentation": "pixel_representation"}
    names["SamplesPerPixel"] = "samples_per_pixel"
    missing = {names[name]: value for name, value in assumed.items() if dataset.get(name) in (None, "")}
    return {"raw": True, "correct_unused_bits": False, **missing}


def _given(dataset: Dataset, name: str, otherwise: Any) -> Any:
    value = dataset.get(name)
    return otherwise if value is None or value == "" else value
