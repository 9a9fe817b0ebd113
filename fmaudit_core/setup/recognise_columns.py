"""Recognition of the columns of a user's table, by their names and cells: ids, ages, dates, outcomes, attributes.

`propose_config.py` writes what is recognised into an audit.yaml. Every guess is stated there, and none changes a cell.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.ages import read_ages
from fmaudit_core.cohort.schema import MAX_AGE
from fmaudit_core.common.vocabulary import RESERVED_ATTRIBUTES, TASKS, too_many_levels
from fmaudit_core.tabular.labels import read_labels
from fmaudit_core.tabular.scan import moment
from fmaudit_core.tabular.words import is_missing, split_of

#: fmaudit's column -> common names, in lower-case letters and digits; the first one that fits is used
_KNOWN_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "study_id": (
        "studyid", "study", "accessionnumber", "accessionno", "accessionnum", "accessionnr", "accessionid", "accession", "accno",
        "accnum", "accnumber", "acc", "examid", "examno", "examnumber", "exam", "examinationid", "studyinstanceuid", "studyuid",
        "studyno", "studynumber", "studykey", "scanid", "ctid", "orderid", "ordernumber", "procedureid", "caseid", "impressionid",
        "imagingoccurrenceid", "imageid", "imageindex", "untersuchungsid", "untersuchungsnummer", "auftragsnummer",
        "numeroexamen", "numerodexamen", "numerodeestudio", "recordid",
    ),
    "patient_id": (
        "patientid", "patid", "ptid", "patient", "mrn", "patientmrn", "patmrnid", "mrnid", "mrnhash", "hashedmrn",
        "medicalrecordnumber", "medicalrecordno", "medrecno", "empi", "patientno", "patientnumber", "patientnum", "patno",
        "patnr", "patientkey", "patientidentifier", "personid", "person", "subjectid", "subject", "participantid", "participant",
        "pid", "patientenid", "patientennummer", "ipp", "idpatient", "idpaciente",
    ),
    "age": (
        "age", "patientage", "patage", "ptage", "ageyears", "ageyrs", "agey", "ageinyears", "patientageyears", "ageatstudy",
        "ageatscan", "ageatexam", "ageatexamination", "ageatimaging", "ageatct", "ageatacquisition", "ageattimeofstudy",
        "ageattimeofscan", "ageatdiagnosis", "ageatenrollment", "ageatbaseline", "anchorage", "alter", "edad",
    ),
    "sex": (
        "sex", "gender", "patientsex", "patientgender", "patsex", "patgender", "ptsex", "ptgender", "biologicalsex", "sexatbirth",
        "birthsex", "administrativesex", "sexgender", "gendersex", "geschlecht", "sexe", "sexo",
    ),
    "race_ethnicity": (
        "raceethnicity", "raceandethnicity", "ethnicityrace", "race", "patientrace", "ethnicity", "patientethnicity",
        "ethnicgroup", "ethnicorigin",
    ),
    "split": ("split", "set", "subset", "partition", "fold", "datasplit"),
    "image": (
        "image", "imagepath", "imagefile", "seriespath", "seriesfolder", "filepath", "path", "filename", "file", "series",
        "volume", "niftipath", "dicompath", "ctpath",
    ),
    "time": (
        "time", "studydatetime", "studydttm", "studytimestamp", "examdatetime", "scandatetime", "acquisitiondatetime",
        "proceduredatetime", "datetime", "timestamp", "studydate", "examdate", "examinationdate", "scandate", "ctdate",
        "acquisitiondate", "imagingdate", "proceduredate", "performeddate", "servicedate", "dateofstudy", "dateofexam",
        "dateofscan", "date", "studytime",
    ),
    "pe": ("pe", "pulmonaryembolism", "pulmonaryembolus", "pepositive", "pepresent", "haspe"),
}  # fmt: skip
NEEDED: Final = ("study_id", "patient_id", "age")
#: names that tables of the audit use for themselves
_RESERVED: Final = (
    "row", "study_id", "patient_id", "split", "age", "age_band", "image", "image_path", "series_uid", "time", "overall", "probe",
    "task", "encoder", "y_true", "y_score", "threshold",
)  # fmt: skip
#: largest number of levels of a column that may be an attribute
_MOST_LEVELS: Final = 12
_DATE: Final = (
    r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/., ]+\d{2,4}( .*)?"
    r"|(18|19|20|21)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d{4,6}(\.\d+)?)?|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)$"
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: parts of a name that say nothing of what the column holds
_ASIDE: Final = re.compile(r"[\u2019']s\b|\(.*?\)|\[.*?\]")
_DATE_WORDS: Final = frozenset({"date", "time", "datetime", "timestamp", "dttm", "dob", "birth", "birthdate"})
_PERSON_WORDS: Final = frozenset({
    "physician", "radiologist", "doctor", "operator", "reader", "nurse", "technologist", "attending", "resident", "provider",
    "surgeon", "author", "initials", "by", "ssn", "mrn", "phone", "email", "zip", "zipcode", "postcode", "postal", "plz",
})  # fmt: skip
_ID_WORDS: Final = frozenset(
    {"id", "ids", "uid", "guid", "uuid", "accession", "name", "number", "no", "num", "nr", "key", "address"}
)
#: ids and names of these are groups of patients, not patients
_PLACE_WORDS: Final = frozenset({
    "site", "hospital", "institution", "center", "centre", "clinic", "ward", "department", "station", "scanner", "device",
    "machine", "manufacturer", "manufacturers", "model", "vendor", "protocol", "kernel", "room", "city", "region", "country",
})  # fmt: skip


@dataclass
class RecognisedTable:
    """A table with its recognised columns.

    Parameters
    ----------
    columns : fmaudit's name -> name in the table
    tasks : names of the outcomes, fmaudit's tasks first
    levels : attribute -> number of its levels
    passed_over : columns of few levels that are dates or may identify people
    """

    path: Path
    cells: pl.DataFrame
    columns: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    levels: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    @property
    def size(self) -> str:
        """Return the numbers of rows and columns as text."""
        return f"{self.cells.height:,} rows, {len(self.cells.columns)} columns"

    def cells_of(self, ours: str) -> pl.Series:
        """Return the cells of a column by fmaudit's name."""
        return self.cells.get_column(self.columns[ours])


def recognised(path: Path, cells: pl.DataFrame, *, by_name: Collection[str] = ()) -> RecognisedTable:
    """Recognise the columns of a table.

    Parameters
    ----------
    cells : frame of text, as `tabular.text_cells.read_cells` returns it
    by_name : collection of str
        Columns (`age`, `time`) whose name is sufficient, so that the reader of the cohort can name wrong cells.
    """
    table = RecognisedTable(path, cells)
    _own_columns(table, by_name)
    tasks: list[str] = [task for task in TASKS if task in table.columns]
    taken = set(table.columns.values())
    for column in (one for one in cells.columns if one not in taken):
        one = cells.get_column(column)
        if _are_labels(one):
            name = safe_name(column, (*table.columns, *_RESERVED), fallback="outcome")
            table.columns[name] = column
            tasks.append(name)
    table.tasks = sorted(tasks, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task))
    _attributes(table)
    return table


def safe_name(column: str, taken: Collection[str], *, fallback: str = "column") -> str:
    """Return a name of a-z, 0-9, _ and - for a column, distinct from those taken: ``Lung nodule`` is `lung_nodule`.

    Parameters
    ----------
    fallback : str
        Start of the name of a column without Latin letters and digits.
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", "_", column)
    ascii_text = unicodedata.normalize("NFKD", spaced).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9_-]+", "_", ascii_text.lower()).strip("_-")[:60] or fallback
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def plain(name: str) -> str:
    """Return a name in lower-case letters without accents and digits only, to compare spellings."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())


def _own_columns(table: RecognisedTable, by_name: Collection[str]) -> None:
    """Find fmaudit's own columns under their common names."""
    by_plain: dict[str, str] = {}
    for column in table.cells.columns:
        by_plain.setdefault(plain(column), column)
    for column in table.cells.columns:  # DICOM's ``Patient's Sex``, a form's ``Sex (M/F)``
        by_plain.setdefault(plain(_ASIDE.sub("", column)), column)
    holds: dict[str, Callable[[pl.Series], bool]] = {"age": _are_ages, "split": _are_splits, "time": _are_times}
    for ours, names in _KNOWN_AS.items():
        known = [by_plain[name] for name in names if name in by_plain and by_plain[name] not in table.columns.values()]
        fits = holds.get(ours, _are_labels if ours in TASKS else _are_anything)
        fitting = [one for one in known if fits(table.cells.get_column(one))]
        if not fitting and ours in by_name:
            fitting = known
        if ours == "study_id":  # a table may hold both an accession number and a UID, one of them incomplete
            fitting.sort(key=lambda one: not _is_key(table.cells.get_column(one)))
        if fitting:
            table.columns[ours] = fitting[0]


def _attributes(table: RecognisedTable) -> None:
    """Find every column of few levels; dates and identifiers are not attributes."""
    n_patients = table.cells_of("patient_id").n_unique() if "patient_id" in table.columns else table.cells.height
    for ours in ("race_ethnicity", "sex"):
        if ours in table.columns:
            table.levels[ours] = n_levels(table.cells_of(ours))
    taken = set(table.columns.values())
    for column in (one for one in table.cells.columns if one not in taken):
        cells = table.cells.get_column(column)
        levels = n_levels(cells)
        if not 2 <= levels <= _MOST_LEVELS or too_many_levels(levels, n_patients) or 2 * levels > len(cells):
            continue
        if _may_identify(column) or _are_dates(column, cells):
            table.passed_over.append(column)
            continue
        name = safe_name(column, (*table.columns, *_RESERVED, *RESERVED_ATTRIBUTES))
        table.columns[name] = column
        table.levels[name] = levels


def n_levels(cells: pl.Series) -> int:
    """Return the number of levels of an attribute, without blank cells."""
    return _known(cells).n_unique()


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(name)}


def _may_identify(column: str) -> bool:
    words = _words(column)
    if words & _PERSON_WORDS or plain(column) in {*_KNOWN_AS["study_id"], *_KNOWN_AS["patient_id"]}:
        return True
    return bool(words & _ID_WORDS) and not words & _PLACE_WORDS


def _are_dates(column: str, cells: pl.Series) -> bool:
    known = _known(cells)
    return (
        bool(_words(column) & _DATE_WORDS)
        or plain(column) in _KNOWN_AS["time"]
        or 10 * int(known.str.contains(_DATE).sum()) > 9 * len(known)
    )


def _known(cells: pl.Series) -> pl.Series:
    """Return the cells that are recorded, in lower case."""
    lower = cells.str.strip_chars().str.to_lowercase()
    return lower.filter(~lower.is_in([word for word in lower.unique() if is_missing(word)]))


def _is_key(cells: pl.Series) -> bool:
    known = _known(cells)
    return len(known) == len(cells) and known.n_unique() == len(cells)


def _are_anything(cells: pl.Series) -> bool:  # noqa: ARG001
    return True


def _are_ages(cells: pl.Series) -> bool:
    known = _known(cells)
    fits = read_ages(known).years.is_between(0, MAX_AGE + 1, closed="left")
    return 10 * int(fits.sum()) > 9 * len(known) > 0


def _are_times(cells: pl.Series) -> bool:
    known = _known(cells)
    return len(known) > 0 and known.str.to_uppercase().to_frame("t").select(moment("t").null_count()).item() == 0


def _are_splits(cells: pl.Series) -> bool:
    return len(cells) > 0 and all(map(split_of, cells.unique()))


def _are_labels(cells: pl.Series) -> bool:
    read = read_labels(cells)
    return not read.unreadable.any() and read.column.drop_nulls().n_unique() > 1
