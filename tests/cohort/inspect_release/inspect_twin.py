"""A small twin of the INSPECT release: its exact layout, filled from the phantom's plan, with planted defects.

40 patients, 60 studies. `Twin` writes any of the forms and says what a reader has to find: `PLANTED` by count, `Twin.truth` by
study. Whoever reads events finds the planted ones in `Twin.planted_events`.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl

from fmaudit_core.cohort.phantom.anatomy import draw
from fmaudit_core.cohort.phantom.outcomes import (
    BIRTH_CODE,
    DEATH_CODE,
    EMBOLISM_CODE,
    INPATIENT_CODE,
    draw_courses,
    ehr_events,
    labels_of,
)
from fmaudit_core.cohort.phantom.plan import BANDS, StudyPlan, completed_years, plan_cohort
from fmaudit_core.common.vocabulary import SPLITS
from fmaudit_core.config import PhantomCohort

N_PATIENTS, N_STUDIES = 40, 60
SLICES, MATRIX = 24, 64
STAMP, OLDER_STAMP = "20250611", "20250401"

#: (table column, word) of each task
COLUMNS = {
    "pe": "pe_positive_nlp",
    "mortality_1m": "1_month_mortality",
    "mortality_6m": "6_month_mortality",
    "mortality_12m": "12_month_mortality",
    "readmission_1m": "1_month_readmission",
    "readmission_6m": "6_month_readmission",
    "readmission_12m": "12_month_readmission",
    "pulmonary_hypertension_12m": "12_month_PH",
}

#: what is planted: kind -> in how many studies
PLANTED = {
    "repeated": 2,
    "no_time": 2,
    "note_time": 2,
    "no_ct": 1,
    "truncated": 1,
    "four_d": 1,
    "unrescaled": 1,
    "unrescaled_unknown": 1,
    "thick": 1,
    "flipped": 1,
    "localizer_first": 3,
    "no_contrast": 4,
    "pe_disagrees": 2,
    "age_17": 1,
    "age_91": 1,
    "no_concept": 2,
    "hispanic_with_race": 3,
}

_RACE_CONCEPT = {"nh_white": 8527, "nh_black": 8516, "nh_asian": 8515, "nh_nhpi": 8557, "nh_aian": 8657}
_RACE_CODE = {
    "nh_white": "Race/5",
    "nh_black": "Race/3",
    "nh_asian": "Race/2",
    "nh_nhpi": "Race/4",
    "nh_aian": "Race/1",
}


@dataclass(frozen=True)
class Person:
    """One patient as the medical record has her: `race` without ethnicity, `hispanic` None where nobody asked."""

    person_id: int
    sex: str
    race: str | None
    hispanic: bool | None
    birth: datetime

    @property
    def level(self) -> str:
        """Level of race_ethnicity under the default rules."""
        return "hispanic" if self.hispanic else self.race or "unknown"


@dataclass(frozen=True)
class Listed:
    """One study as the release's tables have it."""

    plan: StudyPlan
    impression_id: str
    image_id: str
    person: Person
    split: str
    procedure: datetime | None
    note: datetime | None
    labels: dict[str, bool | None]
    defects: tuple[str, ...]

    @property
    def time(self) -> datetime | None:
        return self.procedure or self.note


class Twin:
    """The cohort that every form of the release holds."""

    def __init__(self, seed: int = 20_26) -> None:
        self.seed = seed

    @cached_property
    def plans(self) -> list[StudyPlan]:
        """The phantom's studies regrouped to 40 patients: neighbours in age of one split become one patient."""
        studies = plan_cohort(PhantomCohort(kind="phantom", n_studies=N_STUDIES, seed=self.seed))
        groups: list[list[StudyPlan]] = []
        for split in SPLITS:
            by_patient: dict[str, list[StudyPlan]] = {}
            for one in studies:
                if one.split == split:
                    by_patient.setdefault(one.patient_id, []).append(one)
            groups += sorted(by_patient.values(), key=lambda group: group[0].birth)
        while len(groups) > N_PATIENTS:
            at = next(
                i
                for i in range(len(groups) - 1)
                if groups[i][0].split == groups[i + 1][0].split
                and len(groups[i]) == len(groups[i + 1]) == 1
                and _band(groups[i][0].age) == _band(completed_years(groups[i][0].birth, groups[i + 1][0].time))
            )
            first = groups[at][0]
            groups[at : at + 2] = [[first, *(self._as_patient(one, first) for one in groups[at + 1])]]
        return sorted((one for group in groups for one in group), key=lambda one: one.study_id)

    @staticmethod
    def _as_patient(study: StudyPlan, first: StudyPlan) -> StudyPlan:
        age = completed_years(first.birth, study.time)
        same = {name: getattr(first, name) for name in ("patient_id", "birth", "sex", "race_ethnicity", "severity")}
        return replace(study, age=age, **same)

    @cached_property
    def courses(self):
        return draw_courses(self.plans, self.seed)

    @cached_property
    def people(self) -> dict[str, Person]:
        """Patients by the phantom's id; some of the planted levels replace the plan's."""
        firsts = {one.patient_id: one for one in reversed(self.plans)}
        people = {}
        for number, (patient, plan) in enumerate(sorted(firsts.items())):
            race = None if plan.race_ethnicity in ("unknown", "hispanic") else plan.race_ethnicity
            hispanic: bool | None = plan.race_ethnicity == "hispanic" or (None if race is None else False)
            people[patient] = Person(92_629_000 + 7 * number, plan.sex, race, hispanic, plan.birth)
        single = [
            one.patient_id
            for one in self.plans
            if one.split != "val" and sum(p.patient_id == one.patient_id for p in self.plans) == 1
        ]
        assigned = iter(single)
        for role in ("age_17", "age_91", "no_concept", "no_concept", "nh_aian", "nh_nhpi", "nh_other"):
            patient = next(assigned)
            person, time = people[patient], firsts[patient].time
            self._roles[patient] = role
            if role.startswith("age_"):
                years = int(role[4:])
                birth = time.replace(year=time.year - years, day=min(time.day, 28), hour=0, minute=0) - timedelta(
                    days=30
                )
                people[patient] = replace(person, birth=birth)
            elif role == "no_concept":
                people[patient] = replace(person, race=None, hispanic=None)
            else:
                # nobody asked the first of them for her ethnicity
                people[patient] = replace(person, race=role, hispanic=None if role == "nh_aian" else False)
        hispanic = [one for one, person in sorted(people.items()) if person.hispanic and one not in self._roles]
        for patient, race in zip(hispanic, ("nh_white", "nh_black", "nh_white"), strict=False):
            people[patient] = replace(people[patient], race=race)
            self._roles[patient] = "hispanic_with_race"
        return people

    @cached_property
    def _roles(self) -> dict[str, str]:
        return {}

    @cached_property
    def studies(self) -> list[Listed]:
        """Every study once, in the order of the labels table."""
        people = self.people
        free = [one.study_id for one in self.plans if one.split != "val" and one.patient_id not in self._roles]
        given: dict[str, list[str]] = {}
        at = 0
        for kind in (
            "no_ct",
            "no_time",
            "note_time",
            "truncated",
            "four_d",
            "unrescaled",
            "unrescaled_unknown",
            "thick",
            "flipped",
        ):
            for _ in range(PLANTED[kind]):
                given.setdefault(free[at], []).append(kind)
                at += 1
        for kind, start in (("localizer_first", 3), ("no_contrast", 2), ("repeated", 9), ("pe_disagrees", 5)):
            for one in free[start : start + PLANTED[kind]]:
                given.setdefault(one, []).append(kind)
        rng = np.random.default_rng([self.seed, 9])
        ids = rng.permutation(900_000)[:N_STUDIES] + 100_000
        listed = []
        for number, plan in enumerate(self.plans):
            defects = tuple(given.get(plan.study_id, ()))
            timed = "no_time" not in defects
            listed.append(
                Listed(
                    plan=plan,
                    impression_id=str(ids[number]),
                    image_id=f"PE{int(rng.integers(16**8)):08x}",
                    person=people[plan.patient_id],
                    split=plan.split,
                    procedure=plan.time if timed and "note_time" not in defects else None,
                    note=plan.time + timedelta(hours=1) if timed else None,
                    labels=labels_of(plan, self.courses[plan.patient_id]),
                    defects=defects,
                )
            )
        return listed

    def with_defect(self, kind: str) -> list[Listed]:
        return [one for one in self.studies if kind in one.defects]

    def role(self, kind: str) -> list[Listed]:
        return [one for one in self.studies if self._roles.get(one.plan.patient_id) == kind]

    # what a reader has to find -----------------------------------------------------------------------------------------

    @cached_property
    def truth(self) -> pl.DataFrame:
        """One row per study that is left: the levels and times, worked out here from the plan, not from the files."""
        rows = []
        for one in self.studies:
            age = None if one.time is None else completed_years(one.person.birth, one.time)
            if "no_ct" in one.defects or (age is not None and age < 18):
                continue
            rows.append(
                {
                    "study_id": one.impression_id,
                    "patient_id": str(one.person.person_id),
                    "split": one.split,
                    "age": None if age is None else min(age, 90),
                    "age_band": "unknown" if age is None else _band(min(age, 90)),
                    "sex": one.person.sex,
                    "race_ethnicity": one.person.level,
                    "time": one.time,
                    "old_id": f"{one.person.person_id}_{one.plan.time:%Y-%m-%d_%H_%M_%S}",
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None).sort("study_id")

    # forms of the release ----------------------------------------------------------------------------------------------

    def write_tables(self, root: Path) -> Path:
        """`full/` with the six dated TSVs, and an older stamp of the labels that must not be taken."""
        full = root / "full"
        full.mkdir(parents=True, exist_ok=True)
        repeats = self.with_defect("repeated")
        rows = [*self.studies, *repeats]
        _tsv(full / f"labels_{STAMP}.tsv", [self._label_row(one) for one in rows])
        _tsv(full / f"labels_{OLDER_STAMP}.tsv", [self._label_row(one) | {"pe_positive_nlp": "maybe"} for one in rows])
        _tsv(full / f"splits_{STAMP}.tsv", [self._split_row(one) for one in self.studies])
        _tsv(full / f"study_mapping_{STAMP}.tsv", [self._mapping_row(one) for one in [*self.studies, repeats[0]]])
        _tsv(full / f"impressions_{STAMP}.tsv", [
            {"impression_id": one.impression_id, "impressions": "SECRET TEXT of a report"} for one in self.studies
        ])  # fmt: skip
        _tsv(full / f"series_metadata_{STAMP}.tsv", [row for one in self.studies for row in self._series_rows(one)])
        _tsv(full / f"study_metadata_{STAMP}.tsv", [row for one in self.studies for row in self._description_rows(one)])
        return full

    def _label_row(self, one: Listed) -> dict[str, str]:
        # both spellings of censoring are about in the releases
        censored = "CENSORED" if int(one.impression_id) % 2 else "Censored"
        words = {True: "TRUE", False: "FALSE", None: censored}
        row = {column: words[one.labels[task]] for task, column in COLUMNS.items()}
        other = one.labels["pe"] != ("pe_disagrees" in one.defects)
        return {
            "impression_id": f"{one.impression_id}.0" if int(one.impression_id) % 3 == 0 else one.impression_id,
            **row,
            "pe_positive": "1" if other else "0",
            "tte_mortality": "100.5",
            "is_censored_mortality": "TRUE",
        }

    def _split_row(self, one: Listed) -> dict[str, str]:
        word = "valid" if one.split == "val" else one.split
        return {"impression_id": one.impression_id, "person_id": f"{one.person.person_id}.0", "split": word}

    def _mapping_row(self, one: Listed) -> dict[str, str]:
        return {
            "impression_id": one.impression_id,
            "image_id": one.image_id,
            "person_id": str(one.person.person_id),
            "procedure_DATETIME": f"{one.procedure:%Y-%m-%dT%H:%M:%S}" if one.procedure else "",
            "note_id": f"note {one.image_id}",
            "note_DATETIME": f"{one.note:%Y-%m-%d %H:%M:%S}" if one.note else "",
            "provenance": ("INSPECT", "rsna", "radfusion")[int(one.impression_id) % 3],
            "procedure_occurrence_id": "7",
        }

    def _series_rows(self, one: Listed) -> list[dict[str, str]]:
        slope, intercept = ("1", "-1024") if "unrescaled" in one.defects else ("", "")
        chest = {
            "image_id": f"{one.image_id}.nii.gz",
            "num_slices": str(SLICES),
            "SliceThickness": "2.5",
            "PixelSpacing_0": "5.0",
            "PixelSpacing_1": "5.0",
            "RescaleSlope": slope,
            "RescaleIntercept": intercept,
            "Manufacturer": "phantom",
        }
        scout = chest | {"num_slices": "2", "RescaleSlope": "9", "RescaleIntercept": "9"}
        return [scout, chest] if "localizer_first" in one.defects else [chest]

    def _description_rows(self, one: Listed) -> list[dict[str, str]]:
        said = "CT CHEST" if "no_contrast" in one.defects else "CT CHEST ANGIO W CONTRAST"
        row = {
            "impression_id": one.impression_id,
            "StudyDescription": said,
            "Modality": "CT",
            "KVP": "120",
            "ConvolutionKernel": "B30f",
        }
        return [row, row]

    def write_volumes(self, folder: Path, *, old: bool = False) -> None:
        """One `.nii.gz` per study: int16 HU, x to the Left and y to the Front as an affine of RAS+ says, or flipped."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in self.studies:
            if "no_ct" in one.defects:
                continue
            name = f"{one.person.person_id}_{one.plan.time:%Y-%m-%d_%H_%M_%S}" if old else one.image_id
            (folder / f"{name}.nii.gz").write_bytes(self._volume(one))

    def touch_volumes(self, folder: Path, *, old: bool = False) -> None:
        """Names alone, for tests that open no CT."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in self.studies:
            if "no_ct" not in one.defects:
                name = f"{one.person.person_id}_{one.plan.time:%Y-%m-%d_%H_%M_%S}" if old else one.image_id
                (folder / f"{name}.nii.gz").touch()

    def hu(self, one: Listed) -> np.ndarray:
        """(z, y, x) int16 HU in LPS of a study."""
        return draw(one.plan, n_slices=SLICES, matrix_px=MATRIX)

    def _volume(self, one: Listed) -> bytes:
        array = self.hu(one).transpose(2, 1, 0)  # (x, y, z), x to the Left, y to Posterior
        affine = np.diag([-5.0, -5.0, 8.0 if "thick" in one.defects else 2.5, 1.0])
        if "flipped" in one.defects:
            array, affine = array[::-1], affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
        if {"unrescaled", "unrescaled_unknown"} & set(one.defects):
            array = np.clip(array + 1024, 0, 4095)
        if "four_d" in one.defects:
            array = array[..., None]
        image = nib.Nifti1Image(np.ascontiguousarray(array).astype(np.int16), affine)
        packed = gzip.compress(image.to_bytes(), 1, mtime=0)
        return packed[: len(packed) // 2] if "truncated" in one.defects else packed

    # medical record ----------------------------------------------------------------------------------------------------

    @cached_property
    def events(self) -> pl.DataFrame:
        """person_id, time, code, value, end, table: the phantom's events without birth and death, and the planted ones."""
        ids = {patient: person.person_id for patient, person in self.people.items()}
        drawn = ehr_events(self.plans, self.courses, self.seed).filter(~pl.col("code").is_in([BIRTH_CODE, DEATH_CODE]))
        visit = pl.col("code").str.starts_with("Visit/")
        drawn = drawn.select(
            pl.col("patient_id").replace_strict(ids, return_dtype=pl.Int64).alias("person_id"),
            "time",
            "code",
            "value",
            pl.when(pl.col("code") == INPATIENT_CODE)
            .then(pl.col("time") + pl.duration(days=3))
            .when(visit)
            .then(pl.col("time") + pl.duration(hours=2))
            .alias("end"),
            table=pl.when(visit)
            .then(pl.lit("visit_occurrence"))
            .when(pl.col("value").is_not_null())
            .then(pl.lit("measurement"))
            .when(pl.col("code").str.starts_with("RxNorm"))
            .then(pl.lit("drug_exposure"))
            .otherwise(pl.lit("condition_occurrence")),
            clarity_table=pl.when(pl.col("code").str.starts_with("ICD")).then(pl.lit("shc_problem_list")),
            planted=pl.lit(None, pl.String),
        )
        return pl.concat([drawn, self.planted_events]).sort("person_id", "time", "code", maintain_order=True)

    @cached_property
    def planted_events(self) -> pl.DataFrame:
        """Events that no feature may see, of the first test patient: `planted` names the trap."""
        one = next(one for one in self.studies if one.split == "test" and one.labels["pe"])
        person, t = one.person.person_id, one.plan.time
        midnight = t.replace(hour=0, minute=0, second=0, microsecond=0)
        opened = midnight - timedelta(days=2)
        rows = [
            # billed on the day of the scan, placed at midnight
            (
                person,
                midnight,
                EMBOLISM_CODE,
                None,
                None,
                "condition_occurrence",
                "shc_hsp_acct_dx_list",
                "billing_on_day",
            ),
            # billed for a stay that is still open, placed at its start two days before
            (person, opened, INPATIENT_CODE, None, t + timedelta(days=5), "visit_occurrence", None, "open_visit"),
            (
                person,
                opened,
                EMBOLISM_CODE,
                None,
                None,
                "condition_occurrence",
                "shc_pat_enc_dx",
                "billing_in_open_visit",
            ),
            (person, t, "LOINC/48065-7", 9_999.0, None, "measurement", None, "at_t"),
            (
                person,
                midnight - timedelta(days=3),
                "STANFORD_NOTE/imaging",
                None,
                None,
                "note",
                None,
                "note_with_answer",
            ),
        ]
        schema = {
            "person_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "value": pl.Float64,
            "end": pl.Datetime("us"), "table": pl.String, "clarity_table": pl.String, "planted": pl.String,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")

    @cached_property
    def deaths(self) -> dict[int, datetime]:
        ids = {patient: person.person_id for patient, person in self.people.items()}
        return {ids[patient]: course.death for patient, course in self.courses.items() if course.death is not None}

    def write_omop(self, folder: Path, *, shards: bool = False) -> Path:
        """OMOP tables as CSV with mixed-case `*_DATETIME` columns and ids like `92629710.0`."""
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame([self._person_row(one) for one in self._sorted_people]).write_csv(folder / "person.csv")
        kinds = {
            "visit_occurrence": ("visit", True),
            "condition_occurrence": ("condition", True),
            "measurement": ("measurement", False),
            "drug_exposure": ("drug", True),
        }
        concepts: dict[str, int] = {}
        for table, (kind, ended) in kinds.items():
            rows = self.events.filter(table=table)
            starts = f"{kind}_start" if ended else kind
            rows = rows.select(
                pl.col("person_id").cast(pl.Float64).cast(pl.String),
                pl.col("code")
                .map_elements(lambda code: concepts.setdefault(code, 2_000_000 + len(concepts)), return_dtype=pl.Int64)
                .alias(f"{kind}_concept_id"),
                pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S").alias(f"{starts}_DATETIME"),
                pl.col("time").dt.strftime("%Y-%m-%d").alias(f"{starts}_DATE"),
                *([pl.col("end").dt.strftime("%Y-%m-%d %H:%M:%S").alias(f"{kind}_end_DATETIME")] if ended else []),
                pl.col("code").alias(f"{kind}_source_value"),
                *([pl.col("value").alias("value_as_number")] if not ended else []),
                *([pl.col("clarity_table").alias("load_table_id")] if kind == "condition" else []),
            )
            if shards and table == "measurement":
                (folder / table).mkdir()
                for number, part in enumerate((rows.head(20), rows.tail(-20))):
                    part.write_csv(folder / table / f"{table}_{number:03d}.csv")
            else:
                rows.write_csv(folder / f"{table}.csv")
        death = [{"person_id": person, "death_DATETIME": str(when)} for person, when in sorted(self.deaths.items())]
        pl.DataFrame(death).write_csv(folder / "death.csv")
        vocabulary = [
            {
                "concept_id": number,
                "concept_code": code.split("/", 1)[1],
                "vocabulary_id": code.split("/", 1)[0],
                "concept_name": code,
            }
            for code, number in concepts.items()
        ]
        pl.DataFrame(vocabulary).write_csv(folder / "concept.csv")
        return folder

    @property
    def _sorted_people(self) -> list[Person]:
        return sorted(self.people.values(), key=lambda person: person.person_id)

    def _person_row(self, one: Person) -> dict[str, object]:
        ethnicity = {True: 38003563, False: 38003564, None: 0}[one.hispanic]
        timed = one.person_id % 2
        return {
            "person_id": f"{one.person_id}.0",
            "gender_concept_id": {"female": 8532, "male": 8507}[one.sex],
            "year_of_birth": one.birth.year,
            "month_of_birth": one.birth.month,
            "day_of_birth": one.birth.day,
            "birth_DATETIME": f"{one.birth:%Y-%m-%dT%H:%M:%S}" if timed else "",
            "race_concept_id": _RACE_CONCEPT.get(one.race or "", 0),
            "ethnicity_concept_id": ethnicity,
            "race_source_value": {None: "Declines to State|Unknown", "nh_other": "Other|Non-Hispanic"}.get(
                one.race, ""
            ),
        }

    def write_meds(self, folder: Path) -> Path:
        """`data/data_0.parquet`, `data_1.parquet` and `metadata/codes.parquet`; concepts 0 have no event."""
        rows = []
        for one in self._sorted_people:
            person = one.person_id
            rows.append((person, one.birth, BIRTH_CODE, None, None, "person", None))
            rows.append(
                (person, one.birth, {"female": "Gender/F", "male": "Gender/M"}[one.sex], None, None, "person", None)
            )
            if one.race:
                # two levels come by source codes that the vocabulary alone explains
                code = {"nh_asian": "Race/source-asian", "nh_other": "Race/source-other"}.get(one.race, "")
                code = code or _RACE_CODE[one.race]
                rows.append((person, one.birth, code, None, None, "person", None))
            if one.hispanic is not None:
                code = "Ethnicity/Hispanic" if one.hispanic else "Ethnicity/Not Hispanic"
                rows.append((person, one.birth, code, None, None, "person", None))
            if person in self.deaths:
                rows.append((person, self.deaths[person], DEATH_CODE, None, None, "death", None))
        schema = {
            "subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32,
            "end": pl.Datetime("us"), "table": pl.String, "clarity_table": pl.String,
        }  # fmt: skip
        person_events = pl.DataFrame(rows, schema=schema, orient="row")
        record = self.events.select(
            pl.col("person_id").alias("subject_id"), "time", "code",
            pl.col("value").cast(pl.Float32).alias("numeric_value"), "end", "table", "clarity_table",
        )  # fmt: skip
        text = pl.when(pl.col("code").str.starts_with("STANFORD_NOTE")).then(pl.lit("acute pulmonary embolism"))
        events = pl.concat([person_events, record]).with_columns(text_value=text).sort("subject_id", "time")
        (folder / "data").mkdir(parents=True)
        (folder / "metadata").mkdir()
        middle = events["subject_id"].unique().sort()[N_PATIENTS // 2]
        events.filter(pl.col("subject_id") < middle).write_parquet(folder / "data" / "data_0.parquet")
        events.filter(pl.col("subject_id") >= middle).write_parquet(folder / "data" / "data_1.parquet")
        codes = [
            {"code": code, "description": code, "parent_codes": None} for code in events["code"].unique().sort()
            if not code.startswith("Race/source")
        ] + [
            {"code": "Race/source-asian", "description": "Asian - East", "parent_codes": ["Race/2"]},
            {"code": "Race/source-other", "description": "Other Race", "parent_codes": []},
        ]  # fmt: skip
        pl.DataFrame(
            codes, schema={"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)}
        ).write_parquet(folder / "metadata" / "codes.parquet")
        return folder

    def write_ehr(self, folder: Path, scratch: Path) -> Path:
        """`EHR/` as it is downloaded: the crosswalk and the MEDS archive."""
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(
            [
                {"person_id": one.person.person_id, "image_id": one.image_id, "note_id": f"note {one.image_id}"}
                for one in self.studies
            ]
        ).write_csv(folder / "image_ehr_crosswalk_20250418.csv")
        self.write_meds(scratch / "meds_omop_inspect")
        with tarfile.open(folder / "meds_omop_inspect.tar.gz", "w:gz") as archive:
            archive.add(scratch / "meds_omop_inspect", "meds_omop_inspect")
        return folder

    def write_old(self, root: Path) -> Path:
        """The 0.2.0 release: one master file, Python's words, times in the names of the volumes."""
        root.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, one in enumerate(self.studies):
            words = {True: "True", False: "False", None: "Censored" if number % 2 else "Censor"}
            rows.append(
                {"PatientID": str(one.person.person_id), "StudyTime": f"{one.plan.time:%Y-%m-%dT%H:%M:%S}"}
                | {"split": "valid" if one.split == "val" else one.split}
                | {column: words[one.labels[task]] for task, column in COLUMNS.items()}
            )
        pl.DataFrame(rows).write_csv(root / "cohort_0.2.0_master_file_anon.csv")
        (root / "timelines_smallfiles").mkdir(exist_ok=True)
        return root

    def write_predictions(self, folder: Path) -> None:
        """`pe_pred_proba.csv` in both styles of ids: patient and time, and since April 2025 the image's id twice."""
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([self.seed, 10])
        test = [one for one in self.studies if one.split == "test"]
        scores = [float(np.clip(0.3 + 0.4 * bool(one.labels["pe"]) + rng.normal(0, 0.2), 0.01, 0.99)) for one in test]
        for style, ids in (
            ("patient_time", lambda one: (str(one.person.person_id), f"{one.plan.time:%Y-%m-%d %H:%M:%S}")),
            ("image_id", lambda one: (one.image_id, one.image_id)),
        ):
            rows = [
                {
                    "patient_id": ids(one)[0],
                    "procedure_time": ids(one)[1],
                    "label": float(bool(one.labels["pe"])),
                    "prob": p,
                }
                for one, p in zip(test, scores, strict=True)
            ]
            (folder / style).mkdir(exist_ok=True)
            pl.DataFrame(rows).write_csv(folder / style / "pe_pred_proba.csv")


def _band(age: int) -> str:
    return next(f"{band.low}-{band.high}" for band in BANDS if band.low <= age <= band.high)


def _tsv(path: Path, rows: list[dict[str, str]]) -> None:
    pl.DataFrame(rows).write_csv(path, separator="\t")


def add_member(archive: tarfile.TarFile, name: str, content: bytes = b"x", **changes: object) -> None:
    """A member of an archive as an attacker would write it."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))
