"""Image of a planned study: HU of a contrast-enhanced chest, drawn slice by slice from ellipses and tubes.

Coordinates are patient coordinates: x to the Left and y to Posterior in mm from the middle of the scan, height from -1 at the
lowest slice to 1 at the highest. Attenuations are tissue values at 120 kVp; contrast and noise vary by scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.cohort.phantom.plan import Artery, StudyPlan

Float32Array = npt.NDArray[np.float32]
Int16Array = npt.NDArray[np.int16]

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
    "interlobar_right": Tube((-50, 4, 0.25), (-68, 26, -0.8), (16.0, 12.0)),
    "interlobar_left": Tube((54, 8, 0.25), (72, 30, -0.8), (15.5, 11.5)),
    "upper_right": Tube((-44, -4, 0.2), (-58, -18, 0.95), (13.0, 9.5)),
    "upper_left": Tube((50, -2, 0.2), (62, -16, 0.95), (13.0, 9.5)),
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
    ) -> Float32Array:
        """Return the squared distance from the centre of an ellipse, 1 at its edge. Position and size may differ by slice."""
        across: Float32Array = ((self.x - x) / half_x) ** 2
        return across + ((self.y - y) / half_y) ** 2

    def blotches(self, rng: np.random.Generator, every: int) -> Float32Array:
        """Return uniform noise in [0, 1) with grains of `every` pixels."""
        n, rows, columns = self.hu.shape
        coarse = rng.random((n, -(-rows // every), -(-columns // every)), dtype=np.float32)
        return coarse.repeat(every, axis=1).repeat(every, axis=2)[:, :rows, :columns]

    def scanned(self) -> Int16Array:
        """Return the volume as a scanner records it: edges smoothed over a pixel, noise added, and air outside the circle."""
        v = self.hu
        v[:, 1:-1] = 0.25 * v[:, :-2] + 0.5 * v[:, 1:-1] + 0.25 * v[:, 2:]
        v[:, :, 1:-1] = 0.25 * v[:, :, :-2] + 0.5 * v[:, :, 1:-1] + 0.25 * v[:, :, 2:]
        v += self.study.scanner.noise_hu * self.scan.standard_normal(v.shape, dtype=np.float32)
        v = np.where(self.in_circle, v, AIR_HU)
        return np.clip(np.rint(v), -1024, 3000).astype(np.int16)


def _draw_trunk(canvas: _Canvas) -> None:
    """Draw the body from skin to muscle: fat, breasts in front, and the muscle of the chest wall."""
    habitus = canvas.study.habitus
    body = canvas.ellipse(0, 0, habitus.half_width_mm, habitus.half_depth_mm)
    canvas.hu[np.broadcast_to(body < 1, canvas.hu.shape)] = canvas.fat_hu
    if habitus.breast_mm:
        fullness = np.clip(1.0 - canvas.height**2, 0.05, 1.0)
        for side in (-1, 1):
            front = canvas.ellipse(
                side * 0.45 * habitus.half_width_mm,
                -0.86 * habitus.half_depth_mm,
                62.0,
                habitus.breast_mm * fullness + 1,
            )
            canvas.hu[(front < 1) & (canvas.hu == AIR_HU)] = canvas.fat_hu + 25
    wall = canvas.ellipse(0, 0, habitus.half_width_mm - habitus.fat_mm, habitus.half_depth_mm - habitus.fat_mm)
    canvas.hu[np.broadcast_to(wall < 1, canvas.hu.shape)] = canvas.muscle_hu


def _draw_lungs(canvas: _Canvas) -> None:
    """Draw both lungs with vessels, holes of emphysema, and effusion at the back."""
    habitus, signs = canvas.study.habitus, canvas.study.signs
    inner_x, inner_y = habitus.half_width_mm - habitus.fat_mm - 16, habitus.half_depth_mm - habitus.fat_mm - 14
    taper = np.sqrt(np.clip(1.0 - 0.45 * np.clip(canvas.height, 0, None) ** 2, 0.2, 1.0))
    grain, holes = canvas.blotches(canvas.patient, 2), canvas.blotches(canvas.patient, 4)
    level = LUNG_HU + 25 * float(canvas.patient.standard_normal())
    share_of_holes = float(np.clip(0.04 + 0.07 * signs.emphysema, 0.0, 0.4))
    depth_mm = float(np.clip(9.0 * signs.effusion, 0.0, 34.0))
    for side in (-1, 1):
        lung = canvas.ellipse(side * 0.55 * inner_x, 2.0, 0.42 * inner_x * taper, 0.86 * inner_y * taper) < 1
        canvas.hu[lung] = level
        canvas.hu[lung & (grain > 0.93)] = VESSEL_IN_LUNG_HU
        canvas.hu[lung & (holes < share_of_holes)] = EMPHYSEMA_HU
        if depth_mm > 2:
            floor = 0.86 * inner_y * taper + 2.0 - depth_mm * np.clip(0.55 - 0.75 * canvas.height, 0.0, 1.0)
            canvas.hu[lung & (canvas.y > floor)] = EFFUSION_HU


def _draw_heart_and_vessels(canvas: _Canvas) -> None:
    """Draw mediastinum, heart, aorta, and the pulmonary arteries with their emboli."""
    signs, contrast = canvas.study.signs, canvas.study.scanner.contrast_hu
    canvas.hu[canvas.ellipse(2, 8, 42 - 6 * np.abs(canvas.height), 62) < 1] = canvas.mediastinum_hu
    size = 1.0 + 0.11 * signs.heart_size
    bulge = np.sqrt(np.clip(1.0 - ((canvas.height + 0.75) / 0.85) ** 2, 0.0, 1.0)) + 1e-3
    canvas.hu[canvas.ellipse(22, -22, 60 * size * bulge, 46 * size * bulge) < 1] = MYOCARDIUM_HU
    for x, y, half in ((2, -30, 24), (40, -14, 22)):
        canvas.hu[canvas.ellipse(x, y, half * size * bulge, half * size * bulge) < 1] = (
            0.2 + canvas.study.scanner.contrast_left
        ) * contrast
    aorta = canvas.study.scanner.contrast_left * contrast
    canvas.hu[(canvas.ellipse(-14, -14, 15, 15) < 1) & (canvas.height > -0.2) & (canvas.height < 0.75)] = aorta
    canvas.hu[np.broadcast_to(canvas.ellipse(22, 48, 12, 12) < 1, canvas.hu.shape)] = aorta
    canvas.hu[(canvas.ellipse(2, 16, 34, 13) < 1) & (np.abs(canvas.height - 0.82) < 0.1)] = aorta
    wide = 1.0 + 0.14 * signs.trunk_size
    trunk = (canvas.ellipse(18, -22, 14 * wide, 14 * wide) < 1) & (np.abs(canvas.height - 0.2) < 0.28)
    branches = (canvas.ellipse(2, -4, 58, 9 * wide) < 1) & (np.abs(canvas.height - 0.25) < 0.14)
    canvas.hu[trunk | branches] = contrast
    for tube in ARTERIES.values():
        middle_x, middle_y, radius, runs = _discs(canvas, tube)
        canvas.hu[(canvas.ellipse(middle_x, middle_y, radius, radius) < 1) & runs] = contrast
    _draw_veins_and_nodes(canvas)
    for embolus, shown in zip(canvas.study.emboli, embolus_slices(canvas.study, len(canvas.hu)), strict=True):
        middle_x, middle_y, radius, _ = _discs(canvas, ARTERIES[embolus.artery])
        clot = canvas.ellipse(middle_x, middle_y, radius * embolus.fill, radius * embolus.fill) < 1
        held = np.zeros(canvas.height.shape, dtype=bool)
        held[shown] = True
        canvas.hu[clot & held] = embolus.hu


def _draw_veins_and_nodes(canvas: _Canvas) -> None:
    """Draw structures that resemble emboli: veins with the contrast of the left heart, and lymph nodes as dense as clots."""
    filled = (0.1 + canvas.study.scanner.contrast_left) * canvas.study.scanner.contrast_hu
    for x, y in ((-62, -12), (66, -8), (-38, 30), (42, 34)):
        half = 6.5 * float(canvas.patient.uniform(0.7, 1.3))
        canvas.hu[(canvas.ellipse(x, y, half, half) < 1) & (canvas.height < 0.1) & (canvas.hu < 0)] = filled
    for _ in range(int(canvas.patient.integers(0, 7))):
        side = 1 if canvas.patient.random() < 0.5 else -1
        lateral, behind = canvas.patient.uniform(28, 92), canvas.patient.uniform(-30, 48)
        half_x, half_y = canvas.patient.uniform(6, 14, 2)
        at, reach = canvas.patient.uniform(-0.8, 0.8), canvas.patient.uniform(0.1, 0.5)
        node = (
            (canvas.ellipse(side * lateral, behind, half_x, half_y) < 1)
            & (np.abs(canvas.height - at) < reach)
            & (canvas.hu < 0)
        )
        canvas.hu[node] = canvas.patient.uniform(30, 80)


def _discs(canvas: _Canvas, tube: Tube) -> tuple[Float32Array, Float32Array, Float32Array, npt.NDArray[np.bool_]]:
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
    canvas.hu[np.broadcast_to(spine < 1, canvas.hu.shape)] = SPONGY_BONE_HU * kept
    canvas.hu[np.broadcast_to((spine > 0.8) & (spine < 1), canvas.hu.shape)] = BONE_HU * (0.5 + 0.5 * kept)
    canvas.hu[np.broadcast_to(canvas.ellipse(0, 0.06 * back + back - 14, 7, 14) < 1, canvas.hu.shape)] = BONE_HU * kept
    canvas.hu[np.broadcast_to(canvas.ellipse(0, 12 - back, 16, 6) < 1, canvas.hu.shape)] = BONE_HU * kept
    wall = canvas.ellipse(0, 0, habitus.half_width_mm - habitus.fat_mm - 9, back - 7)
    angle = np.arctan2(canvas.y, canvas.x)
    ribs = (wall > 0.9) & (wall < 1.05) & (np.cos(9 * angle + 7 * canvas.height) > 0.55)
    canvas.hu[ribs] = BONE_HU * kept
