"""Plan of the phantom cohort: patients, demographics, planted disease and scanners, assigned by quotas.

`anatomy.py` draws the plan, `dicom.py` writes it, and `outcomes.py` generates the later course of the patients (labels,
censoring, EHR).

Planted effects, recorded in truth.parquet:

- **Disparity: age_band.** Emboli of the 18-40 band are single, subsegmental and nearly invisible; those of the other
  bands fill most of a central artery. Pulmonary embolism is also slightly rarer in the 18-40 band.
- **Null: race_ethnicity.** No drawn feature depends on it, and it is balanced over age bands and embolism within each
  split. Its levels have unequal sizes; one is so small that it is suppressed.
- **sex** changes body habitus (build, fat, breasts) and nothing else.
- **Hidden: fibrosis.** A share of the patients has a lung disease that is recorded in the image and in a code of the medical
  record only. Their emboli are as small as those of the youngest, at every age. It is balanced over age, sex, race and embolism.
- **Scanners** (`scanners.py`) differ in image quality. Whether they differ in who is scanned on them, and so in how much of the
  age disparity goes with them, is a setting; so is the hospital.
- Heart size, effusion, emphysema, bone density and the pulmonary trunk vary between patients, worsen with age, and
  determine the prognostic labels, but not embolism. **Embolism is focal, mortality diffuse**: an embolus is visible in
  few slices; emphysema and bone loss, which cause death, are visible in every slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Final, Literal

import numpy as np

from fmaudit_core.cohort.phantom.quotas import apportion, spread
from fmaudit_core.cohort.phantom.scanners import GOOD, POOR, Machine, Scanner, poor_share, scanner_of
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

#: prevalence of embolism at a hospital relative to the first, and share of small emboli among the youngest relative to it
_PREVALENCE: Final[Mapping[str, float]] = {"a": 1.0, "b": 0.8, "c": 1.15}
_SMALL_AT: Final[Mapping[str, float]] = {"a": 1.0, "b": 0.6, "c": 0.1}
#: share of small emboli among the youngest, by how much of the age disparity goes with the scanner
_SMALL_EMBOLI: Final[Mapping[str, float]] = {"none": 1.0, "part": 0.5, "whole": 0.0}
#: hospitals have other seeds
_SITES: Final = ("a", "b", "c")
_SEEDS_APART: Final = 1_000_003

#: studies per patient, as a repeating pattern: 1.2 studies per patient
_STUDIES_PER_PATIENT: Final = (1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1)

Artery = Literal["interlobar_right", "interlobar_left", "upper_right", "upper_left", "basal_right", "basal_left"]
_CENTRAL: Final[tuple[Artery, ...]] = ("interlobar_right", "interlobar_left", "upper_right", "upper_left")


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
    #: the hidden disease: in the image, and in a code of the medical record
    fibrosis: bool
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
    """A study not yet assigned to a patient: its age band, and whether it shows an embolism.

    Its machine, and whether its emboli are small, follow from who the patient is.
    """

    band: Band
    has_pe: bool
    machine: Machine = GOOD
    small_emboli: bool = False

    @property
    def youngest(self) -> bool:
        return self.band is BANDS[0]


@dataclass(frozen=True)
class _Person:
    """A patient: the slots of the patient's studies in order of time, and attributes once they are assigned."""

    split: Split
    slots: tuple[_Slot, ...]
    sex: str = ""
    race: str = ""
    fibrosis: bool = False

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
    seed = seed_at(section)
    rng = np.random.default_rng([seed, 1])
    people = [person for split in SPLITS for person in _people(split, section, rng)]
    sexes = _balanced(people, SEX_SHARES, rng)
    races = _balanced(people, RACE_SHARES, rng)
    patient_numbers = rng.permutation(len(people))
    study_numbers = iter(rng.permutation(section.n_studies))
    people = [replace(one, sex=sex, race=race) for one, sex, race in zip(people, sexes, races, strict=True)]
    people = _with_planted(people, section, np.random.default_rng([seed, 6]))

    studies: list[StudyPlan] = []
    for person, number in zip(people, patient_numbers, strict=True):
        numbers = [int(next(study_numbers)) for _ in person.slots]
        studies += _studies_of(person, _patient_id(section, int(number)), int(number), numbers, seed)
    return sorted(studies, key=lambda study: study.study_id)


def seed_at(section: PhantomCohort) -> int:
    """Return the seed of the cohort at its hospital."""
    return section.seed + _SEEDS_APART * _SITES.index(section.site)


def _patient_id(section: PhantomCohort, number: int) -> str:
    hospital = "" if section.site == _SITES[0] else section.site.upper()
    return f"PHANTOM-{hospital}{number + 1:05d}"


def _with_planted(people: Sequence[_Person], section: PhantomCohort, rng: np.random.Generator) -> list[_Person]:
    """Return the patients with their lung disease, and their studies with machine and kind of emboli.

    Each is spread evenly over split, embolism, age band, sex and race, in this order.
    """
    tie = rng.random(len(people))
    keys = [(one.split, one.ever_pe, one.slots[0].band.low, one.sex, one.race, tie[i]) for i, one in enumerate(people)]
    ill = spread([section.hidden_share] * len(people), keys)
    slots = [(i, slot) for i, one in enumerate(people) for slot in one.slots]
    tie = rng.random(len(slots))
    of_slots = [
        (people[i].split, slot.has_pe, slot.band.low, ill[i], people[i].sex, people[i].race, tie[at])
        for at, (i, slot) in enumerate(slots)
    ]
    on_poor = spread(
        [poor_share(section.site, section.scanner_gap, youngest=slot.youngest) for _, slot in slots], of_slots
    )
    small_share = _SMALL_EMBOLI[section.scanner_gap] * _SMALL_AT[section.site]
    # the machine is part of the order, so that it does not go with the kind of emboli
    with_machine = [(*of_slots[at][:3], on_poor[at], *of_slots[at][3:]) for at in range(len(slots))]
    small = spread([small_share * (slot.youngest and slot.has_pe) for _, slot in slots], with_machine)
    drawn: list[list[_Slot]] = [[] for _ in people]
    for at, (i, slot) in enumerate(slots):
        machine = POOR if on_poor[at] else GOOD
        drawn[i].append(replace(slot, machine=machine, small_emboli=small[at] or ill[i]))
    return [replace(one, fibrosis=ill[i], slots=tuple(drawn[i])) for i, one in enumerate(people)]


def _people(split: Split, section: PhantomCohort, rng: np.random.Generator) -> list[_Person]:
    """Create the patients of one split, whose studies meet the quotas of age band and embolism exactly."""
    of_splits = apportion(section.n_studies, [SPLIT_SHARES[name] for name in SPLITS])
    n_split = dict(zip(SPLITS, of_splits, strict=True))[split]
    queues: list[list[_Slot]] = []
    for band, n_band in zip(BANDS, apportion(n_split, [band.share for band in BANDS]), strict=True):
        n_pe = min(max(round(n_band * band.prevalence * _PREVALENCE[section.site]), 1), n_band - 1)
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
    person: _Person, patient_id: str, number: int, study_numbers: Sequence[int], seed: int
) -> list[StudyPlan]:
    patient_seed = (seed, 2, number)
    rng = np.random.default_rng(patient_seed)
    birth, times = _dates(person, rng)
    habitus = _habitus(person.sex, rng)
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
                patient_id=patient_id,
                split=person.split,
                time=time,
                birth=birth,
                age=age,
                sex=person.sex,
                race_ethnicity=person.race,
                has_pe=slot.has_pe,
                fibrosis=person.fibrosis,
                severity=severity,
                habitus=habitus,
                signs=_signs(age, traits + 0.25 * study_rng.standard_normal(5)),
                scanner=scanner_of(slot.machine, study_number, study_rng),
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


def _emboli(slot: _Slot, rng: np.random.Generator) -> tuple[Embolus, ...]:
    """Draw the filling defects of one study: a subsegmental one if emboli are small, else one in each central artery."""
    if slot.small_emboli:
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
    return tuple(
        Embolus(
            artery=artery,
            along=float(rng.uniform(0.3, 0.7)),
            length_slices=int(rng.integers(5, 8)),
            fill=float(rng.uniform(0.9, 0.99)),
            hu=float(rng.uniform(20, 60)),
        )
        for artery in _CENTRAL
    )
