"""Outcomes of the phantom patients: deaths, readmissions, pulmonary hypertension, lost follow-up, EHR events.

Each patient has one course after the last scan. The labels of every study are derived from that course by the rule of
INSPECT: an event within the horizon is True; without one, the label is False if follow-up reaches the end of the horizon,
else NULL. Horizons are therefore nested, and a death censors the outcomes that it prevents.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from fmaudit_core.cohort.phantom.plan import StudyPlan
from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK, SPLITS

HORIZON_DAYS: Final = {"1m": 30, "6m": 180, "12m": 365}

#: share of a split's patients whose first event falls into each period, with the first and last day of the period
_Periods = tuple[tuple[float, int, int], ...]
_DEATHS: Final[_Periods] = ((0.09, 2, 28), (0.09, 35, 175), (0.07, 190, 355))
_READMISSIONS: Final[_Periods] = ((0.10, 3, 28), (0.10, 35, 175), (0.08, 190, 355))
_HYPERTENSION: Final[_Periods] = ((0.17, 20, 350),)
_LOST: Final[_Periods] = ((0.03, 8, 28), (0.05, 35, 170), (0.05, 190, 350))

#: weights of heart size, effusion, emphysema, bone loss, pulmonary trunk, unseen severity and chance. The causes of death,
#: emphysema and bone loss, are visible in every slice; an embolus is visible in few
_DEATH_RISK: Final = (0.0, 0.0, 1.2, 1.0, 0.0, 0.6, 0.7)
_READMISSION_RISK: Final = (0.7, 1.0, 0.8, 0.1, 0.0, 0.8, 0.8)
_HYPERTENSION_RISK: Final = (0.5, 0.0, 0.0, 0.0, 1.8, 0.2, 0.7)

#: tasks for which the record before the scan holds information that no image shows: severity, and for embolism D-dimer and
#: heart rate. The scan shows heart, lungs and bone better; hypertension is visible on the scan, in the pulmonary trunk
RECORD_ADDS: Final = (
    DIAGNOSIS_TASK,
    *(f"{outcome}_{horizon}" for outcome in ("mortality", "readmission") for horizon in HORIZON_DAYS),
)

BIRTH_CODE: Final = "MEDS_BIRTH"
DEATH_CODE: Final = "MEDS_DEATH"
INPATIENT_CODE: Final = "Visit/IP"
OUTPATIENT_CODE: Final = "Visit/OP"
HYPERTENSION_CODE: Final = "ICD10CM/I27.20"
#: the only record of the hidden disease
FIBROSIS_CODE: Final = "ICD10CM/J84.10"
EMBOLISM_CODE: Final = "ICD10CM/I26.99"
ANTICOAGULANT_CODE: Final = "RxNorm/1364430"

EHR_SCHEMA: Final = {
    "patient_id": pl.String(),
    "study_id": pl.String(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "value": pl.Float64(),
}


@dataclass
class Course:
    """Course of a patient after the last study.

    Parameters
    ----------
    followed_until : datetime
        Time of the last known event; a death ends follow-up.
    death, readmission, hypertension : datetime or None
        Time of each event, if it occurred.
    """

    followed_until: datetime
    death: datetime | None = None
    readmission: datetime | None = None
    hypertension: datetime | None = None


def draw_courses(studies: Sequence[StudyPlan], seed: int) -> dict[str, Course]:
    """Draw the course of every patient, with quotas per split so that small cohorts also have every outcome.

    Returns
    -------
    dict
        patient_id -> Course.
    """
    last_scans = _last_scans(studies)
    courses: dict[str, Course] = {}
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, 4, number])
        scans = [scan for scan in last_scans if scan.split == split]
        courses |= _courses_of_split(scans, rng)
    return courses


def labels_of(study: StudyPlan, course: Course) -> dict[str, bool | None]:
    """Return the label of every task for one study; None is censored."""
    labels: dict[str, bool | None] = {DIAGNOSIS_TASK: study.has_pe}
    events = {"mortality": course.death, "readmission": course.readmission}
    for name, event in events.items():
        for horizon, days in HORIZON_DAYS.items():
            labels[f"{name}_{horizon}"] = _label(study.time, event, days, course.followed_until)
    labels["pulmonary_hypertension_12m"] = _label(study.time, course.hypertension, 365, course.followed_until)
    return labels


def ehr_events(studies: Sequence[StudyPlan], courses: dict[str, Course], seed: int) -> pl.DataFrame:
    """Generate the medical record of every patient, before and after each scan.

    Before a scan there are diagnoses, laboratory values and visits. They carry the prognosis (mainly the unseen severity)
    and some information on embolism (D-dimer, heart rate). After it there are the code of the embolism and its
    anticoagulant, readmission, hypertension and death. Events after prediction time therefore leak the label.

    Returns
    -------
    frame
        patient_id, study_id (NULL for birth and the final course), time, code, value; ordered by patient and time.
    """
    rows: list[tuple[str, str | None, datetime, str, float | None]] = []
    for study in studies:
        rng = np.random.default_rng([seed, 5, *study.study_seed])
        rows += [(study.patient_id, study.study_id, *event) for event in _events_around(study, rng)]
    for scan in _last_scans(studies):
        rows += [(scan.patient_id, None, *event) for event in _events_of_course(scan, courses[scan.patient_id])]
    frame = pl.DataFrame(rows, schema=EHR_SCHEMA, orient="row")
    return frame.sort("patient_id", "time", "code", maintain_order=True)


def _label(time: datetime, event: datetime | None, days: int, followed_until: datetime) -> bool | None:
    end = time + timedelta(days=days)
    if event is not None and time < event <= end:
        return True
    return False if followed_until >= end else None


def _last_scans(studies: Sequence[StudyPlan]) -> list[StudyPlan]:
    by_patient: dict[str, StudyPlan] = {}
    for study in sorted(studies, key=lambda study: (study.patient_id, study.time)):
        by_patient[study.patient_id] = study
    return list(by_patient.values())


def _courses_of_split(scans: Sequence[StudyPlan], rng: np.random.Generator) -> dict[str, Course]:
    n = len(scans)
    deaths = _event_days(_risk(scans, _DEATH_RISK, rng), np.full(n, np.inf), _DEATHS, rng)
    # patients who die within the year are not lost to follow-up; the lost are drawn at random from the others
    lot = np.where(np.isnan(deaths), rng.random(n), -np.inf)
    lost = _event_days(lot, np.full(n, np.inf), _LOST, rng)
    late = rng.integers(400, 1400, n).astype(np.float64)
    followed = np.where(~np.isnan(deaths), deaths, np.where(~np.isnan(lost), lost, late))
    readmissions = _event_days(_risk(scans, _READMISSION_RISK, rng), followed, _READMISSIONS, rng)
    hypertension = _event_days(_risk(scans, _HYPERTENSION_RISK, rng), followed, _HYPERTENSION, rng)

    def date(scan: StudyPlan, days: float) -> datetime | None:
        return None if math.isnan(days) else scan.time + timedelta(days=float(days))

    return {
        scan.patient_id: Course(
            followed_until=scan.time + timedelta(days=float(followed[i])),
            death=date(scan, deaths[i]),
            readmission=date(scan, readmissions[i]),
            hypertension=date(scan, hypertension[i]),
        )
        for i, scan in enumerate(scans)
    }


def _risk(scans: Sequence[StudyPlan], weights: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the log hazard of each patient: signs, unseen severity, and chance (Gumbel, as in a Cox model)."""
    known = np.array(
        [
            (s.signs.heart_size, s.signs.effusion, s.signs.emphysema, s.signs.bone_loss, s.signs.trunk_size, s.severity)
            for s in scans
        ]
    )
    risk: np.ndarray = known @ np.array(weights[:-1]) + weights[-1] * rng.gumbel(size=len(scans))
    return risk


def _event_days(risk: np.ndarray, followed_days: np.ndarray, periods: _Periods, rng: np.random.Generator) -> np.ndarray:
    """Return the day of each patient's event, NaN for none. Each period takes the patients at highest risk still followed."""
    days = np.full(len(risk), np.nan)
    for share, first, last in periods:
        candidates = [int(i) for i in np.argsort(-risk, kind="stable") if math.isnan(days[i])]
        eligible = [i for i in candidates if followed_days[i] > first + 1 and risk[i] > -np.inf]
        for i in eligible[: max(1, round(share * len(risk)))]:
            latest = min(last, int(followed_days[i]) - 1) if math.isfinite(followed_days[i]) else last
            days[i] = float(rng.integers(first, latest, endpoint=True)) + round(float(rng.random()), 3)
    return days


_Event = tuple[datetime, str, float | None]


def _events_around(study: StudyPlan, rng: np.random.Generator) -> list[_Event]:
    signs, severity = study.signs, study.severity

    def before(low_days: float, high_days: float) -> datetime:
        minutes = rng.uniform(low_days, high_days) * 1440
        return study.time - timedelta(minutes=int(minutes))

    chances = {
        "ICD10CM/I50.9": signs.heart_size + 0.5 * severity - 1.2,
        "ICD10CM/J90": signs.effusion - 1.3,
        "ICD10CM/J43.9": signs.emphysema - 1.0,
        "ICD10CM/M81.0": 1.5 * signs.bone_loss - 1.5,
        "ICD10CM/C34.90": 1.6 * severity - 1.8,
        "ICD10CM/N18.3": 1.0 * severity - 1.5,
        "ICD10CM/I10": 0.04 * (study.age - 55),
        "ICD10CM/J06.9": -0.5,
    }
    events: list[_Event] = []
    for code, logit in chances.items():
        if rng.random() < 1 / (1 + math.exp(-logit)):
            events.append((before(2, 900), code, None))
    n_visits = defaultdict(
        int, {OUTPATIENT_CODE: 2 + rng.poisson(2), INPATIENT_CODE: rng.poisson(math.exp(severity) / 2)}
    )
    for code, count in n_visits.items():
        events += [(before(2, 700), code, None) for _ in range(int(count))]
    noise = rng.standard_normal(7)
    values = {
        "LOINC/33762-6": math.exp(5.2 + 0.8 * signs.heart_size + 0.4 * signs.trunk_size + 0.5 * noise[0]),  # NT-proBNP
        "LOINC/1751-7": 3.9 - 0.35 * severity - 0.15 * signs.effusion + 0.25 * noise[1],  # albumin, g/dL
        "LOINC/718-7": 12.8 - 0.7 * severity + 1.1 * noise[2],  # haemoglobin, g/dL
        "LOINC/2160-0": math.exp(-0.1 + 0.2 * severity + 0.2 * noise[3]),  # creatinine, mg/dL
        "LOINC/48065-7": math.exp(6.3 + 0.8 * study.has_pe + 0.3 * severity + 0.7 * noise[4]),  # D-dimer, ng/mL
        "LOINC/8867-4": 84 + 7 * study.has_pe + 5 * severity + 11 * noise[5],  # heart rate, 1/min
        "LOINC/59408-5": min(100.0, 96 - 1.2 * signs.emphysema - 0.8 * signs.effusion + 1.5 * noise[6]),  # SpO2, %
    }
    events += [(before(1.2, 6), code, round(float(value), 2)) for code, value in values.items()]
    if study.fibrosis:
        events.append((before(2, 900), FIBROSIS_CODE, None))
    if study.has_pe:  # known only because of this scan
        events.append((study.time + timedelta(hours=3), EMBOLISM_CODE, None))
        events.append((study.time + timedelta(hours=5), ANTICOAGULANT_CODE, None))
    return events


def _events_of_course(scan: StudyPlan, course: Course) -> list[_Event]:
    events: list[_Event] = [(scan.birth, BIRTH_CODE, None), (course.followed_until, OUTPATIENT_CODE, None)]
    for when, code in (
        (course.readmission, INPATIENT_CODE),
        (course.hypertension, HYPERTENSION_CODE),
        (course.death, DEATH_CODE),
    ):
        if when is not None:
            events.append((when, code, None))
    return events
