"""Many labellings of the same units by subgroup, in the memory layout that compiled code counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
#: subgroup of each unit; uint16 if there are more than 256 subgroups
Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

#: labellings per block: the labels of one unit in a block fill a cache line
LANES: Final = 64


def labels(codes: npt.NDArray[np.integer], n_groups: int) -> Labels:
    """Return subgroup codes below `n_groups` in the smallest type that holds them."""
    return codes.astype(np.uint8) if n_groups <= 256 else codes.astype(np.uint16)


@dataclass(frozen=True)
class Labellings:
    """Many labellings of the same units by subgroup.

    Parameters
    ----------
    lanes : (blocks, k, LANES), labelling ``block * LANES + lane`` of each unit
    size : int
        Number of labellings. Further lanes of the last block are unused.
    """

    lanes: Labels
    size: int

    @classmethod
    def of(cls, rows: Labels) -> Labellings:
        """Create labellings from rows, (B, k)."""
        size, n = rows.shape
        blocks = -(-size // LANES)
        padded = np.zeros((blocks * LANES, n), dtype=rows.dtype)
        padded[:size] = rows
        return cls(np.ascontiguousarray(padded.reshape(blocks, LANES, n).transpose(0, 2, 1)), size)

    def rows(self) -> Labels:
        """Return the labellings as rows, (B, k)."""
        blocks, n, _ = self.lanes.shape
        return self.lanes.transpose(0, 2, 1).reshape(blocks * LANES, n)[: self.size]

    def mapped(self, to: Labels) -> Labellings:
        """Replace every label: `to[old]` is the new label."""
        return Labellings(to[self.lanes], self.size)


def by_labelling(counted: Float64Array, size: int) -> Float64Array:
    """Reshape (w, blocks, g, LANES) to (w, size, g), in a memory layout in which sums over subgroups are fast."""
    w, _, n_groups, _ = counted.shape
    flat = counted.transpose(0, 2, 1, 3).reshape(w, n_groups, -1)[:, :, :size]
    return np.ascontiguousarray(flat).transpose(0, 2, 1)
