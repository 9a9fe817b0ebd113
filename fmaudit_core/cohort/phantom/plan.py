"""Plan of the phantom cohort: patients, demographics, planted disease and scanners, assigned by quotas.

`anatomy.py` draws the plan, `dicom.py` writes it, and `outcomes.py` generates the later course of the patients (labels,
censoring, EHR).

Planted effects, recorded in truth.parquet:

- **Disparity: age_band.** Emboli of the 18-40 band are single, subsegmental and nearly invisible; those of the other
  bands fill most of a central artery. Pulmonary embolism is also slightly rarer in the 18-40 band.
- **Null: race_ethnicity.** No drawn feature depends on it, and it is balanced over age bands and embolism within each
  split. Its levels have unequal sizes; one is so small that it is suppressed.
- **sex** changes body habitus (build, fat, breasts) and nothing else.
- Heart size, effusion, emphysema, bone density and the pulmonary trunk vary between patients, worsen with age, and
  determine the prognostic labels, but not embolism. **Embolism is focal, mortality diffuse**: an embolus is visible in
  few slices; emphysema and bone loss, which cause death, are visible in every slice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Final, Literal

import numpy as np

from fmaudit_core.common.vocabulary import SPLITS, UNKNOWN, Split
from fmaudit_core.config import PhantomCohort

DISPARITY_ATTRIBUTE: Final = "age_band"
NULL_ATTRIBUTE: Final = "race_ethnicity"

SPLIT_SHARES: Final[Mapping[Split, float]] = {"train": 0.40, "val": 0.15, "test": 0.45}


@dataclass(frozen=True)
class Band:
    """An age band of the phantom: its share of studies, and the prevalence of embolism in them."""

    low: int
    high: int
    share: float
    prevalence: float


#: 42 % embolism overall; every band keeps 25 positives and negatives in the test split of 700 studies
BANDS: Final = (
    Band(18, 40, 0.22, 0.40),
    Band(41, 60, 0.26, 0.42),
    Band(61, 74, 0.28, 0.43),
    Band(75, 90, 0.24, 0.43),
)
#: at 700 studies: three levels are tested, nh_black has an interval only, nh_nhpi is suppressed
RACE_SHARES: Final = {
    "nh_white": 0.395,
    "hispanic": 0.225,
    "nh_asian": 0.22,
    "nh_black": 0.10,
    "nh_nhpi": 0.03,
    UNKNOWN: 0.03,
}
SEX_SHARES: Final = {"female": 0.54, "male": 0.46}

#: studies per patient, as a repeating pattern: 1.2 studies per patient
_STUDIES_PER_PATIENT: Final = (1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1)

Syntax = Literal["explicit", "implicit", "rle", "jpeg2000", "jpegls"]
_SYNTAXES: Final[tuple[Syntax, ...]] = (
    "explicit", "rle", "implicit", "jpeg2000", "explicit", "rle", "explicit", "implicit", "jpeg2000", "jpegls",
)  # fmt: skip
Artery = Literal["interlobar_right", "interlobar_left", "upper_right", "upper_left", "basal_right", "basal_left"]


@dataclass(frozen=True)
class Habitus:
    """Body habitus of a patient; lengths in mm."""

    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    breast_mm: float
    shift_x_mm: float
    shift_y_mm: float


@dataclass(frozen=True)
class Signs:
    """Diffuse signs of one study, each in standard deviations from an average middle-aged adult."""

    heart_size: float
    effusion: float
    emphysema: float
    bone_loss: float
    trunk_size: float


@dataclass(frozen=True)
class Embolus:
    """One planted filling defect.

    Parameters
    ----------
    artery : str
        The artery that contains it.
    along : float
        Position of its middle along the artery, 0 at the heart, 1 at the periphery.
    length_slices : int
        Number of slices in which it is visible.
    fill : float
        Diameter as a fraction of the lumen's diameter.
    hu : float
        Attenuation.
    """

    artery: Artery
    along: float
    length_slices: int
    fill: float
    hu: float


@dataclass(frozen=True)
class Scanner:
    """Scanner settings of a series: encoding, orientation, noise and contrast."""

    syntax: Syntax
    slope: float
    signed_with_padding: bool
    feet_first: bool
    numbered_backwards: bool
    kvp: int
    noise_hu: float
    #: attenuation of the contrast in the pulmonary arteries
    contrast_hu: float
    #: fraction of it in the left heart and the aorta
    contrast_left: float


@dataclass(frozen=True)
class StudyPlan:
    """All planned properties of a study before it is drawn."""

    study_id: str
    patient_id: str
    split: Split
    time: datetime
    birth: datetime
    age: int
    sex: str
    race_ethnicity: str
    has_pe: bool
    #: severity of illness, visible in the EHR but in no image
    severity: float
    habitus: Habitus
    signs: Signs
    scanner: Scanner
    emboli: tuple[Embolus, ...]
    #: seeds of the patient's constant appearance and of this scan
    patient_seed: tuple[int, ...]
    study_seed: tuple[int, ...]


@dataclass(frozen=True)
class _Slot:
    """A study not yet assigned to a patient: its age band, and whether it shows an embolism."""

    band: Band
    has_pe: bool


@dataclass(frozen=True)
class _Person:
    """A patient before attributes are assigned: the slots of the patient's studies in order of time."""

    split: Split
    slots: tuple[_Slot, ...]

    @property
    def ever_pe(self) -> bool:
        return any(slot.has_pe for slot in self.slots)


def plan_cohort(section: PhantomCohort) -> list[StudyPlan]:
    """Plan every study of the cohort without drawing images.

    Returns
    -------
    list of StudyPlan
        Sorted by `study_id`, which is unrelated to split, age and disease.
    """
    rng = np.random.default_rng([section.seed, 1])
    people = [person for split in SPLITS for person in _people(split, section.n_studies, rng)]
    sexes = _balanced(people, SEX_SHARES, rng)
    races = _balanced(people, RACE_SHARES, rng)
    patient_numbers = rng.permutation(len(people))
    study_numbers = iter(rng.permutation(section.n_studies))

    studies: list[StudyPlan] = []
    for person, sex, race, number in zip(people, sexes, races, patient_numbers, strict=True):
        numbers = [int(next(study_numbers)) for _ in person.slots]
        studies += _studies_of(person, sex, race, int(number), numbers, section.seed)
    return sorted(studies, key=lambda study: study.study_id)


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Split `total` by `shares`, with the largest remainders rounded up so that the parts sum to `total`.

    References
    ----------
    Hare-Niemeyer method.
    """
    exact = [total * share / sum(shares) for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _people(split: Split, n_studies: int, rng: np.random.Generator) -> list[_Person]:
    """Create the patients of one split, whose studies meet the quotas of age band and embolism exactly."""
    n_split = dict(zip(SPLITS, apportion(n_studies, [SPLIT_SHARES[name] for name in SPLITS]), strict=True))[split]
    queues: list[list[_Slot]] = []
    for band, n_band in zip(BANDS, apportion(n_split, [band.share for band in BANDS]), strict=True):
        n_pe = min(max(round(n_band * band.prevalence), 1), n_band - 1)
        queues.append([_Slot(band, bool(pe)) for pe in rng.permutation([True] * n_pe + [False] * (n_band - n_pe))])

    people = []
    for younger, older in pairwise(queues):
        if min(len(younger), len(older)) >= 8:  # a birthday between two scans moves a patient to the next band
            people.append(_Person(split, (younger.pop(), older.pop())))
    turn = 0
    for queue in queues:
        while queue:
            taken = queue[: _STUDIES_PER_PATIENT[turn % len(_STUDIES_PER_PATIENT)]]
            del queue[: len(taken)]
            people.append(_Person(split, tuple(taken)))
            turn += 1
    return people


def _balanced(people: Sequence[_Person], shares: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """Assign a level to every patient so that each split, and embolism within it, holds the levels by their shares.

    Within a stratum, patients are sorted by age band, and each takes the level with the largest deficit. Levels are thus
    spread over the bands too, and an age disparity cannot leak into this attribute by chance.
    """
    given = [""] * len(people)

    def stratum(i: int) -> tuple[str, bool]:
        return people[i].split, people[i].ever_pe

    order = sorted(range(len(people)), key=lambda i: (*stratum(i), people[i].slots[0].band.low, rng.random()))
    names, wanted = list(shares), np.array(list(shares.values()))
    for _, members in groupby(order, key=stratum):
        held = np.zeros(len(names))
        for i in members:
            weight = len(people[i].slots)
            lacking = wanted * (held.sum() + weight) - held + rng.uniform(-0.2, 0.2, len(names))
            level = int(np.argmax(lacking))
            held[level] += weight
            given[i] = names[level]
    return given


def _studies_of(
    person: _Person, sex: str, race: str, number: int, study_numbers: Sequence[int], seed: int
) -> list[StudyPlan]:
    patient_seed = (seed, 2, number)
    rng = np.random.default_rng(patient_seed)
    birth, times = _dates(person, rng)
    habitus = _habitus(sex, rng)
    traits = rng.standard_normal(5)
    severity = float(rng.standard_normal())
    studies = []
    for slot, time, study_number in zip(person.slots, times, study_numbers, strict=True):
        study_seed = (seed, 3, study_number)
        study_rng = np.random.default_rng(study_seed)
        age = completed_years(birth, time)
        studies.append(
            StudyPlan(
                study_id=f"study-{study_number + 1:05d}",
                patient_id=f"PHANTOM-{number + 1:05d}",
                split=person.split,
                time=time,
                birth=birth,
                age=age,
                sex=sex,
                race_ethnicity=race,
                has_pe=slot.has_pe,
                severity=severity,
                habitus=habitus,
                signs=_signs(age, traits + 0.25 * study_rng.standard_normal(5)),
                scanner=_scanner(study_number, study_rng),
                emboli=_emboli(slot, study_rng) if slot.has_pe else (),
                patient_seed=patient_seed,
                study_seed=study_seed,
            )
        )
    return studies


def completed_years(birth: datetime, when: datetime) -> int:
    """Return the age in completed years."""
    return when.year - birth.year - ((when.month, when.day) < (birth.month, birth.day))


def _dates(person: _Person, rng: np.random.Generator) -> tuple[datetime, list[datetime]]:
    """Draw birth and study times that put every study of a patient in its planned age band."""
    first, last = person.slots[0].band, person.slots[-1].band
    crosses = first is not last
    # up to two years pass between the scans of a patient, so no patient starts within two years of leaving the band
    age = first.high if crosses else int(rng.integers(first.low, first.high - 2, endpoint=True))
    days_since_birthday = 300 if crosses else int(rng.integers(1, 330))
    start = datetime(2012, 1, 1) + timedelta(days=int(rng.integers(0, 2500)), minutes=int(rng.integers(0, 1440)))
    birth = _years_before(start - timedelta(days=days_since_birthday), age)
    gaps = np.cumsum(rng.integers(120, 330, len(person.slots) - 1))
    return birth, [start, *(start + timedelta(days=int(days), minutes=37) for days in gaps)]


def _years_before(when: datetime, years: int) -> datetime:
    # day 28 exists in every month
    return when.replace(year=when.year - years, day=min(when.day, 28), hour=0, minute=0)


def _habitus(sex: str, rng: np.random.Generator) -> Habitus:
    female = sex == "female"
    width, depth, fat, breast, shift_x, shift_y = rng.standard_normal(6)
    return Habitus(
        half_width_mm=float((156 if female else 168) + 7 * width),
        half_depth_mm=float((108 if female else 114) + 6 * depth),
        fat_mm=float(np.clip((19 if female else 13) + 5 * fat, 5, 34)),
        breast_mm=float(np.clip(26 + 8 * breast, 8, 46)) if female else 0.0,
        shift_x_mm=float(5 * shift_x),
        shift_y_mm=float(5 * shift_y),
    )


def _signs(age: int, traits: np.ndarray) -> Signs:
    """Return the diffuse signs: traits of the patient plus a common effect of age."""
    older = (age - 58) / 18
    heart, effusion, emphysema, bone, trunk = (float(value) for value in traits)
    return Signs(
        heart_size=heart + 0.25 * older,
        effusion=effusion + 0.15 * older,
        emphysema=emphysema + 0.25 * older,
        bone_loss=0.6 * bone + 0.7 * older,
        trunk_size=trunk + 0.15 * older,
    )


def _scanner(study_number: int, rng: np.random.Generator) -> Scanner:
    """Draw the scanner from the study number, which is independent of all planted effects."""
    return Scanner(
        syntax=_SYNTAXES[study_number % len(_SYNTAXES)],
        slope=0.5 if study_number % 13 == 4 else 1.0,
        signed_with_padding=study_number % 6 == 3,
        feet_first=study_number % 17 == 5,
        numbered_backwards=study_number % 11 == 7,
        kvp=(100, 120, 120)[study_number % 3],
        noise_hu=float(rng.uniform(10, 18)),
        contrast_hu=float(rng.uniform(300, 450)),
        contrast_left=float(rng.uniform(0.35, 0.85)),
    )


def _emboli(slot: _Slot, rng: np.random.Generator) -> tuple[Embolus, ...]:
    """Draw the filling defects of one study: one subsegmental in the 18-40 band, three or four central ones in the others."""
    if slot.band is BANDS[0]:
        artery: Artery = "basal_right" if rng.random() < 0.5 else "basal_left"
        return (
            Embolus(
                artery=artery,
                along=float(rng.uniform(0.5, 0.8)),
                length_slices=2,
                fill=float(rng.uniform(0.35, 0.5)),
                hu=float(rng.uniform(50, 80)),
            ),
        )
    central: tuple[Artery, ...] = ("interlobar_right", "interlobar_left", "upper_right", "upper_left")
    first = int(rng.integers(0, 2))
    others = [i for i in range(len(central)) if i != first]
    chosen = [first, *rng.permutation(others)[: int(rng.integers(2, 4))]]
    return tuple(
        Embolus(
            artery=central[int(i)],
            along=float(rng.uniform(0.3, 0.7)),
            length_slices=int(rng.integers(5, 8)),
            fill=float(rng.uniform(0.8, 0.98)),
            hu=float(rng.uniform(30, 70)),
        )
        for i in chosen
    )
