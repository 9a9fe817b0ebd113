"""Image of a planned study: HU of a contrast-enhanced chest, drawn slice by slice from ellipses and tubes.

Coordinates are patient coordinates: x to the Left and y to Posterior in mm from the middle of the scan, height from -1 at the
lowest slice to 1 at the highest. Attenuations are tissue values at 120 kVp; contrast and noise vary by scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.cohort.phantom.plan import Artery, StudyPlan

Float32Array = npt.NDArray[np.float32]
Int16Array = npt.NDArray[np.int16]
BoolArray = npt.NDArray[np.bool_]

FIELD_OF_VIEW_MM: Final = 340.0
#: the drawn part of the chest, from the heart's base to above the aortic arch
HEIGHT_MM: Final = 150.0

AIR_HU: Final = -1000.0
FAT_HU: Final = -95.0
MUSCLE_HU: Final = 50.0
LUNG_HU: Final = -860.0
VESSEL_IN_LUNG_HU: Final = -450.0
EMPHYSEMA_HU: Final = -965.0
EFFUSION_HU: Final = 12.0
MEDIASTINUM_HU: Final = 25.0
MYOCARDIUM_HU: Final = 110.0
BONE_HU: Final = 420.0
SPONGY_BONE_HU: Final = 210.0
FIBROSIS_HU: Final = -420.0
#: squared distance from the middle of a lung where fibrosis begins, 1 at the pleura
FIBROSIS_FROM: Final = 0.45
_RIBS_FROM, _RIBS_TO = 0.9, 1.05


@dataclass(frozen=True)
class Tube:
    """An artery that runs through the slices: a disc whose centre and radius change with height.

    Parameters
    ----------
    start, end : (x mm, y mm, height), at the heart and at the periphery
    radius_mm : at the start and at the end
    """

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius_mm: tuple[float, float]


#: x is positive on the left; the right arteries mirror the left ones
ARTERIES: Final[dict[Artery, Tube]] = {
    "interlobar_right": Tube((-50, 4, 0.25), (-68, 26, -0.8), (20.0, 15.0)),
    "interlobar_left": Tube((54, 8, 0.25), (72, 30, -0.8), (19.5, 14.5)),
    "upper_right": Tube((-44, -4, 0.2), (-58, -18, 0.95), (16.5, 12.0)),
    "upper_left": Tube((50, -2, 0.2), (62, -16, 0.95), (16.5, 12.0)),
    "basal_right": Tube((-84, 30, -0.1), (-98, 54, -1.0), (4.2, 3.0)),
    "basal_left": Tube((88, 32, -0.1), (102, 56, -1.0), (4.2, 3.0)),
}


def slice_heights(n_slices: int) -> Float32Array:
    """Return the height of each slice, from -1 at the feet end to 1 at the head end."""
    return np.linspace(-1.0, 1.0, n_slices, dtype=np.float32)


def draw(study: StudyPlan, *, n_slices: int, matrix_px: int) -> Int16Array:
    """Draw the HU volume of a study.

    Returns
    -------
    (slices, rows, columns) int16, HU, axes (z, y, x) growing to Superior, Posterior and Left
    """
    canvas = _Canvas(study, n_slices, matrix_px)
    _draw_trunk(canvas)
    _draw_lungs(canvas)
    _draw_heart_and_vessels(canvas)
    _draw_bones(canvas)
    return canvas.scanned()


def embolus_slices(study: StudyPlan, n_slices: int) -> list[npt.NDArray[np.intp]]:
    """Return the slices in which each planted embolus is visible, ascending."""
    heights = slice_heights(n_slices)
    found = []
    for embolus in study.emboli:
        tube = ARTERIES[embolus.artery]
        middle = tube.start[2] + embolus.along * (tube.end[2] - tube.start[2])
        low, high = sorted((tube.start[2], tube.end[2]))
        inside = np.flatnonzero((heights >= low) & (heights <= high))
        if not len(inside):
            inside = np.array([int(np.argmin(np.abs(heights - middle)))])
        nearest = inside[np.argsort(np.abs(heights[inside] - middle), kind="stable")]
        found.append(np.sort(nearest[: embolus.length_slices]))
    return found


@dataclass(frozen=True)
class Part:
    """The part of the volume that an ellipse reaches.

    Parameters
    ----------
    at : index of the part in the volume
    hu : view of it
    distance : squared distance from the centre, 1 at the edge
    inside : bool, of the shape of the view
    """

    at: tuple[slice, slice, slice]
    hu: Float32Array
    distance: Float32Array
    inside: BoolArray

    def fill(self, hu: float | Float32Array, where: BoolArray | bool = True) -> None:
        """Set the attenuation inside the ellipse, where the mask holds."""
        self.hu[self.inside & where] = hu


def _reached(along: Float32Array, middle: float | Float32Array, half: float | Float32Array) -> BoolArray:
    """Return which coordinates lie within an ellipse in some slice."""
    low, high = float(np.min(middle - half)), float(np.max(middle + half))
    return np.asarray((along.ravel() >= low) & (along.ravel() <= high))


def _span(inside: BoolArray) -> slice:
    """Return the smallest range that holds all that is inside."""
    found = np.flatnonzero(inside)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _in_slices(value: float | Float32Array, heights: slice) -> float | Float32Array:
    return value[heights] if isinstance(value, np.ndarray) and len(value) > 1 else value


class _Canvas:
    """The volume being drawn, with the patient coordinates of its voxels."""

    def __init__(self, study: StudyPlan, n_slices: int, matrix_px: int) -> None:
        self.study = study
        self.patient = np.random.default_rng((*study.patient_seed, 7))
        self.scan = np.random.default_rng((*study.study_seed, 7))
        step = FIELD_OF_VIEW_MM / matrix_px
        along = (np.arange(matrix_px, dtype=np.float32) - (matrix_px - 1) / 2) * step
        self.in_circle = along[None, :, None] ** 2 + along[None, None, :] ** 2 < (FIELD_OF_VIEW_MM / 2) ** 2
        self.x = (along - study.habitus.shift_x_mm)[None, None, :]
        self.y = (along - study.habitus.shift_y_mm)[None, :, None]
        self.height = slice_heights(n_slices)[:, None, None]
        #: variation between patients: calibre of the arteries, attenuation of fat, muscle and mediastinum
        self.calibre = float(self.patient.uniform(0.85, 1.15))
        self.fat_hu = FAT_HU + 9 * float(self.patient.standard_normal())
        self.muscle_hu = MUSCLE_HU + 8 * float(self.patient.standard_normal())
        self.mediastinum_hu = MEDIASTINUM_HU + 12 * float(self.patient.standard_normal())
        self.hu = np.full((n_slices, matrix_px, matrix_px), AIR_HU, dtype=np.float32)

    def ellipse(
        self,
        x: float | Float32Array,
        y: float | Float32Array,
        half_x: float | Float32Array,
        half_y: float | Float32Array,
        shown: BoolArray | None = None,
    ) -> Part:
        """Return the part of the volume around an ellipse, and the squared distance from its centre there, 1 at its edge.

        Parameters
        ----------
        x, y, half_x, half_y : float or (slices, 1, 1), mm; position and size may differ by slice
        shown : (slices, 1, 1) bool, optional
            Slices that it is in.
        """
        heights = slice(None) if shown is None else _span(shown.ravel())
        rows = _span(_reached(self.y, y, half_y))
        columns = _span(_reached(self.x, x, half_x))
        x, y, half_x, half_y = (_in_slices(value, heights) for value in (x, y, half_x, half_y))
        across: Float32Array = ((self.x[:, :, columns] - x) / half_x) ** 2
        distance = across + ((self.y[:, rows] - y) / half_y) ** 2
        at = (heights, rows, columns)
        hu = self.hu[at]
        inside = np.broadcast_to(distance < 1, hu.shape)
        return Part(at, hu, distance, inside if shown is None else inside & shown[heights])

    def blotches(self, rng: np.random.Generator, every: int) -> Float32Array:
        """Return uniform noise in [0, 1) with grains of `every` pixels."""
        n, rows, columns = self.hu.shape
        coarse = rng.random((n, -(-rows // every), -(-columns // every)), dtype=np.float32)
        return coarse.repeat(every, axis=1).repeat(every, axis=2)[:, :rows, :columns]

    def scanned(self) -> Int16Array:
        """Return the volume as its scanner records it: edges smoothed, noise added, and air outside the circle."""
        v = self.hu
        for _ in range(self.study.scanner.machine.smoothings):
            v[:, 1:-1] = 0.25 * v[:, :-2] + 0.5 * v[:, 1:-1] + 0.25 * v[:, 2:]
            v[:, :, 1:-1] = 0.25 * v[:, :, :-2] + 0.5 * v[:, :, 1:-1] + 0.25 * v[:, :, 2:]
        v += self.study.scanner.noise_hu * self.scan.standard_normal(v.shape, dtype=np.float32)
        v = np.where(self.in_circle, v, AIR_HU)
        return np.clip(np.rint(v), -1024, 3000).astype(np.int16)


def _draw_trunk(canvas: _Canvas) -> None:
    """Draw the body from skin to muscle: fat, breasts in front, and the muscle of the chest wall."""
    habitus = canvas.study.habitus
    canvas.ellipse(0, 0, habitus.half_width_mm, habitus.half_depth_mm).fill(canvas.fat_hu)
    if habitus.breast_mm:
        fullness = np.clip(1.0 - canvas.height**2, 0.05, 1.0)
        for side in (-1, 1):
            front = canvas.ellipse(
                side * 0.45 * habitus.half_width_mm,
                -0.86 * habitus.half_depth_mm,
                62.0,
                habitus.breast_mm * fullness + 1,
            )
            front.fill(canvas.fat_hu + 25, front.hu == AIR_HU)
    width, depth = habitus.half_width_mm - habitus.fat_mm, habitus.half_depth_mm - habitus.fat_mm
    canvas.ellipse(0, 0, width, depth).fill(canvas.muscle_hu)


def _draw_lungs(canvas: _Canvas) -> None:
    """Draw both lungs with vessels, holes of emphysema, the mesh of fibrosis, and effusion at the back."""
    habitus, signs = canvas.study.habitus, canvas.study.signs
    inner_x, inner_y = habitus.half_width_mm - habitus.fat_mm - 16, habitus.half_depth_mm - habitus.fat_mm - 14
    taper = np.sqrt(np.clip(1.0 - 0.45 * np.clip(canvas.height, 0, None) ** 2, 0.2, 1.0))
    grain, holes = canvas.blotches(canvas.patient, 2), canvas.blotches(canvas.patient, 4)
    level = LUNG_HU + 25 * float(canvas.patient.standard_normal())
    share_of_holes = float(np.clip(0.04 + 0.07 * signs.emphysema, 0.0, 0.4))
    depth_mm = float(np.clip(9.0 * signs.effusion, 0.0, 34.0))
    # a generator of its own: a patient without the disease looks the same whether or not others have it
    mesh = canvas.blotches(np.random.default_rng((*canvas.study.patient_seed, 8)), 2) if canvas.study.fibrosis else None
    for side in (-1, 1):
        lung = canvas.ellipse(side * 0.55 * inner_x, 2.0, 0.42 * inner_x * taper, 0.86 * inner_y * taper)
        lung.fill(level)
        lung.fill(VESSEL_IN_LUNG_HU, grain[lung.at] > 0.93)
        lung.fill(EMPHYSEMA_HU, holes[lung.at] < share_of_holes)
        if mesh is not None:  # it begins at the pleura
            lung.fill(FIBROSIS_HU, (mesh[lung.at] > 0.55) & (lung.distance > FIBROSIS_FROM))
        if depth_mm > 2:
            floor = 0.86 * inner_y * taper + 2.0 - depth_mm * np.clip(0.55 - 0.75 * canvas.height, 0.0, 1.0)
            lung.fill(EFFUSION_HU, canvas.y[:, lung.at[1]] > floor)


def _draw_heart_and_vessels(canvas: _Canvas) -> None:
    """Draw mediastinum, heart, aorta, and the pulmonary arteries with their emboli."""
    signs, contrast = canvas.study.signs, canvas.study.scanner.contrast_hu
    canvas.ellipse(2, 8, 42 - 6 * np.abs(canvas.height), 62).fill(canvas.mediastinum_hu)
    size = 1.0 + 0.11 * signs.heart_size
    bulge = np.sqrt(np.clip(1.0 - ((canvas.height + 0.75) / 0.85) ** 2, 0.0, 1.0)) + 1e-3
    canvas.ellipse(22, -22, 60 * size * bulge, 46 * size * bulge).fill(MYOCARDIUM_HU)
    for x, y, half in ((2, -30, 24), (40, -14, 22)):
        chamber = canvas.ellipse(x, y, half * size * bulge, half * size * bulge)
        chamber.fill((0.2 + canvas.study.scanner.contrast_left) * contrast)
    aorta = canvas.study.scanner.contrast_left * contrast
    canvas.ellipse(-14, -14, 15, 15, (canvas.height > -0.2) & (canvas.height < 0.75)).fill(aorta)
    canvas.ellipse(22, 48, 12, 12).fill(aorta)
    canvas.ellipse(2, 16, 34, 13, np.abs(canvas.height - 0.82) < 0.1).fill(aorta)
    wide = 1.0 + 0.14 * signs.trunk_size
    canvas.ellipse(18, -22, 14 * wide, 14 * wide, np.abs(canvas.height - 0.2) < 0.28).fill(contrast)
    canvas.ellipse(2, -4, 58, 9 * wide, np.abs(canvas.height - 0.25) < 0.14).fill(contrast)
    for tube in ARTERIES.values():
        middle_x, middle_y, radius, runs = _discs(canvas, tube)
        canvas.ellipse(middle_x, middle_y, radius, radius, runs).fill(contrast)
    _draw_veins_and_nodes(canvas)
    blending = canvas.study.scanner.machine.blending
    for embolus, shown in zip(canvas.study.emboli, embolus_slices(canvas.study, len(canvas.hu)), strict=True):
        middle_x, middle_y, radius, _ = _discs(canvas, ARTERIES[embolus.artery])
        held = np.zeros(canvas.height.shape, dtype=bool)
        held[shown] = True
        canvas.ellipse(middle_x, middle_y, radius * embolus.fill, radius * embolus.fill, held).fill(
            blending * contrast + (1 - blending) * embolus.hu
        )


def _draw_veins_and_nodes(canvas: _Canvas) -> None:
    """Draw structures that resemble emboli: veins with the contrast of the left heart, and lymph nodes as dense as clots."""
    filled = (0.1 + canvas.study.scanner.contrast_left) * canvas.study.scanner.contrast_hu
    for x, y in ((-62, -12), (66, -8), (-38, 30), (42, 34)):
        half = 6.5 * float(canvas.patient.uniform(0.7, 1.3))
        vein = canvas.ellipse(x, y, half, half, canvas.height < 0.1)
        vein.fill(filled, vein.hu < 0)
    for _ in range(int(canvas.patient.integers(0, 7))):
        side = 1 if canvas.patient.random() < 0.5 else -1
        lateral, behind = canvas.patient.uniform(28, 92), canvas.patient.uniform(-30, 48)
        half_x, half_y = canvas.patient.uniform(6, 14, 2)
        at, reach = canvas.patient.uniform(-0.8, 0.8), canvas.patient.uniform(0.1, 0.5)
        node = canvas.ellipse(side * lateral, behind, half_x, half_y, np.abs(canvas.height - at) < reach)
        node.fill(canvas.patient.uniform(30, 80), node.hu < 0)


def _discs(canvas: _Canvas, tube: Tube) -> tuple[Float32Array, Float32Array, Float32Array, BoolArray]:
    """Return centre, radius and presence of a tube in every slice."""
    (x0, y0, h0), (x1, y1, h1) = tube.start, tube.end
    along = np.clip((canvas.height - h0) / (h1 - h0), 0.0, 1.0)
    low, high = sorted((h0, h1))
    radius = canvas.calibre * (tube.radius_mm[0] + along * (tube.radius_mm[1] - tube.radius_mm[0]))
    return x0 + along * (x1 - x0), y0 + along * (y1 - y0), radius, (canvas.height >= low) & (canvas.height <= high)


def _draw_bones(canvas: _Canvas) -> None:
    """Draw spine, sternum and ribs, less dense with bone loss."""
    habitus = canvas.study.habitus
    kept = float(np.clip(1.0 - 0.22 * canvas.study.signs.bone_loss, 0.25, 1.5))
    back = habitus.half_depth_mm - habitus.fat_mm
    spine = canvas.ellipse(0, back - 32, 20, 17)
    spine.fill(SPONGY_BONE_HU * kept)
    spine.fill(BONE_HU * (0.5 + 0.5 * kept), spine.distance > 0.8)
    canvas.ellipse(0, 0.06 * back + back - 14, 7, 14).fill(BONE_HU * kept)
    canvas.ellipse(0, 12 - back, 16, 6).fill(BONE_HU * kept)
    # the ribs lie from 0.9 to 1.05 of the wall's squared distance
    outer = math.sqrt(_RIBS_TO)
    wall = canvas.ellipse(0, 0, outer * (habitus.half_width_mm - habitus.fat_mm - 9), outer * (back - 7))
    rows, columns = np.nonzero((wall.distance[0] > _RIBS_FROM / _RIBS_TO) & (wall.distance[0] < 1))
    y, x = canvas.y[0, wall.at[1], 0][rows], canvas.x[0, 0, wall.at[2]][columns]
    height, at = np.nonzero(np.cos(9 * np.arctan2(y, x) + 7 * canvas.height[:, 0]) > 0.55)
    wall.hu[height, rows[at], columns[at]] = BONE_HU * kept
