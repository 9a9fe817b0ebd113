"""Proposal of an audit.yaml from the content of a folder, for `fmaudit init`. Every guess is stated, and no question is asked.

A configured cohort is read in `cohort/`; the first registry is written by `write_config.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.images import locate
from fmaudit_core.cohort.inspect_release.release_files import VOLUME_FOLDERS, locate_release
from fmaudit_core.common.vocabulary import ATTRIBUTES, TASKS
from fmaudit_core.config import HOME_NAME, ConfigError
from fmaudit_core.setup.find_embeddings import FoundEmbeddings, embeddings_in
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.text_cells import read_cells
from fmaudit_core.tabular.words import LABEL_WORDS, SPLIT_WORDS

_TABLES: Final = (".csv", ".tsv", ".parquet", ".pq")
#: folders of the platform itself
_OURS: Final = (HOME_NAME, "encoders", "assessment")
_IMAGE_SUFFIXES: Final = ("", ".nii.gz", ".nii")
#: fmaudit's column -> common names, in lower-case letters and digits; the first one present is used
_KNOWN_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "study_id": ("studyid", "study", "accessionnumber", "accession", "examid", "exam", "studyinstanceuid", "impressionid"),
    "patient_id": ("patientid", "patient", "mrn", "personid", "subjectid", "subject", "pid"),
    "age": ("age", "patientage", "ageyears", "ageinyears", "ageatstudy", "ageatscan", "ageatexam"),
    "sex": ("sex", "gender", "patientsex", "biologicalsex"),
    "race_ethnicity": ("raceethnicity", "race", "ethnicity", "ethnicgroup"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "image": ("image", "imagepath", "seriespath", "filepath", "path", "filename", "file", "series", "volume"),
    "pe": ("pe", "pulmonaryembolism", "pepositive", "pepresent", "haspe"),
}  # fmt: skip
_NEEDED: Final = ("study_id", "patient_id", "age")
#: maximum number of levels of a column that may be an attribute
_MOST_LEVELS: Final = 12
#: number of studies whose images are searched for
_LOOKED_UP: Final = 400
_TABLE_BYTES: Final = 512 << 20


@dataclass(frozen=True)
class Proposal:
    """A proposed audit.yaml.

    Parameters
    ----------
    text : str
        The YAML, with a comment on each guess.
    embeddings : sequence of FoundEmbeddings
        Files of embeddings that match the cohort's studies; each becomes an encoder.
    sees_images : bool
        Whether a folder of CT was found, so that encoders of CT are useful.
    saw, guessed : sequences of str
        Sentences for display: what was found, and what was guessed.
    """

    text: str
    embeddings: Sequence[FoundEmbeddings]
    sees_images: bool
    saw: Sequence[str]
    guessed: Sequence[str]


@dataclass
class _Table:
    """A table with its recognised columns, identified by their names and cells."""

    path: Path
    cells: pl.DataFrame
    columns: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    further: dict[str, int] = field(default_factory=dict)

    def cells_of(self, ours: str) -> pl.Series:
        return self.cells.get_column(self.columns[ours])


def propose(folder: Path, config: Path) -> Proposal:
    """Inspect a folder and propose an audit of its content.

    Parameters
    ----------
    config : Path
        Path of the future audit.yaml: paths below its folder are written relative to it.

    Raises
    ------
    ConfigError
        Nothing there can be audited as it is; the message states what was found and what is missing.
    CohortError
        An INSPECT download that is incomplete.
    """
    if _looks_like_inspect(folder):
        return _inspect(folder, config)
    tables, saw = _tables(folder)
    if not tables:
        seen = " ".join(saw) or "The folder holds no CSV or Parquet file."
        raise ConfigError(
            f"found nothing to audit. {seen}",
            where=str(folder),
            fix="A cohort is a table with one row per study: study_id, patient_id, age, and a column of 1, 0 or blank per task.",
        )
    best = max(tables, key=lambda one: (_completeness(one), one.cells.height))
    lacking = [name for name in _NEEDED if name not in best.columns] + ([] if best.tasks else ["a task"])
    if lacking:
        raise ConfigError(
            f"{best.path.name} looks like the cohort, but no column looks like {', '.join(lacking)}; its columns are "
            f"{', '.join(best.cells.columns)}.",
            where=str(folder),
            fix="Name the columns study_id, patient_id, age and, for each task, a column of 1, 0 or blank; or give "
            "--table and map them under `cohort: columns:`.",
        )
    return _of_table(folder, config, best, saw)


def _looks_like_inspect(folder: Path) -> bool:
    return any((top / name).is_dir() for top in (folder, folder / "full", folder / "Full") for name in VOLUME_FOLDERS)


def _inspect(folder: Path, config: Path) -> Proposal:
    release = locate_release(folder)
    found = f"An INSPECT download, layout {release.layout}, with {len(release.volumes):,} volumes."
    text = (
        f"{_HEAD}name: INSPECT\ncohort:\n  kind: inspect\n  root: {_quoted(_relative(folder, config))}"
        "   # its own splits, outcomes and demographics\n"
    )
    return Proposal(text, (), sees_images=True, saw=[found], guessed=["All eight outcomes are audited."])


def _tables(folder: Path) -> tuple[list[_Table], list[str]]:
    """Return the tables of the folder and of its direct subfolders, with their recognised columns."""
    found, saw = [], []
    for path in _files(folder, _TABLES):
        if path.stat().st_size > _TABLE_BYTES or _holds_vectors(path):
            continue
        try:
            cells, _ = read_cells(path)
        except CohortError as error:
            saw.append(f"{path.relative_to(folder)} cannot be read as a table ({error.what.rstrip('.')}).")
            continue
        found.append(_recognised(_Table(path, cells)))
    return found, saw


def _files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    tops = [folder, *(one for one in sorted(folder.iterdir()) if one.is_dir() and _is_theirs(one))]
    for top in tops:
        for path in sorted(top.iterdir()):
            if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith("."):
                yield path


def _is_theirs(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name not in _OURS


def _holds_vectors(path: Path) -> bool:
    if path.suffix.lower() not in (".parquet", ".pq"):
        return False
    try:
        return any(isinstance(one, pl.List | pl.Array) for one in pl.read_parquet_schema(path).values())
    except (OSError, pl.exceptions.PolarsError):
        return False


def _recognised(table: _Table) -> _Table:
    """Identify the table's columns and fill in the result."""
    plain: dict[str, str] = {}
    for column in table.cells.columns:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", column.lower()), column)
    holds: dict[str, Callable[[pl.Series], bool]] = {"age": _are_ages, "split": _are_splits}
    for ours, names in _KNOWN_AS.items():
        known = [plain[name] for name in names if name in plain and plain[name] not in table.columns.values()]
        fitting = [one for one in known if holds.get(ours, _are_anything)(table.cells.get_column(one))]
        if fitting and (ours not in TASKS or _are_labels(table.cells.get_column(fitting[0]))):
            table.columns[ours] = fitting[0]
    taken = set(table.columns.values())
    rest = [column for column in table.cells.columns if column not in taken]
    tasks: list[str] = [task for task in TASKS if task in table.columns]
    for column in rest:
        cells = table.cells.get_column(column)
        name = re.sub(r"[^a-z0-9_-]+", "_", column.lower()).strip("_")[:64]
        if name and name not in table.columns and _are_labels(cells):
            table.columns[name] = column
            tasks.append(name)
        elif name and 2 <= (levels := _n_levels(cells)) <= _MOST_LEVELS and not _are_numbers(cells):
            table.further[column] = levels
    table.tasks = sorted(tasks, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task))
    return table


def _completeness(table: _Table) -> tuple[int, int]:
    return sum(name in table.columns for name in _NEEDED) + bool(table.tasks), len(table.columns)


def _known(cells: pl.Series) -> pl.Series:
    lower = cells.str.to_lowercase()
    return lower.filter(~lower.is_in(["", "na", "n/a", "nan", "null", "none", "unknown"]))


def _are_anything(cells: pl.Series) -> bool:  # noqa: ARG001
    return True


def _are_numbers(cells: pl.Series) -> bool:
    known = _known(cells)
    return len(known) > 0 and known.cast(pl.Float64, strict=False).null_count() == 0


def _are_ages(cells: pl.Series) -> bool:
    years = _known(cells).cast(pl.Float64, strict=False)
    return 10 * int(years.is_between(0, 121).fill_null(value=False).sum()) > 9 * len(years)


def _are_splits(cells: pl.Series) -> bool:
    return len(cells) > 0 and cells.str.to_lowercase().is_in(list(SPLIT_WORDS)).all()


def _are_labels(cells: pl.Series) -> bool:
    words = cells.str.to_lowercase().unique().to_list()
    return {LABEL_WORDS.get(word, ...) for word in words} in ({True, False}, {True, False, None})


def _n_levels(cells: pl.Series) -> int:
    return _known(cells).n_unique()


def _of_table(folder: Path, config: Path, table: _Table, saw: Sequence[str]) -> Proposal:
    cells, columns = table.cells, table.columns
    saw = [f"{table.path.relative_to(folder)}: {cells.height:,} rows, {len(cells.columns)} columns.", *saw]
    guessed = [f"`{theirs}` is {ours}." for ours, theirs in columns.items() if theirs != ours]
    images, image_messages = _images(folder, table)
    saw += image_messages
    ids = cells.get_column(columns["study_id"]).to_list()
    embeddings = embeddings_in(list(_files(folder, (".npz", ".parquet", ".h5", ".hdf5"))), ids)
    saw += [
        f"{one.path.relative_to(folder)}: embeddings of {one.n_found:,} of the studies, {one.dim}-d."
        for one in embeddings
    ]
    if images is None and not embeddings:
        saw.append("No CT and no embeddings found: an audit needs one of them, see the comments in the file.")
    attributes = [name for name in ATTRIBUTES if name == "age_band" or name in columns]
    guessed.append(f"Tasks are {', '.join(table.tasks)}; attributes are {', '.join(attributes)}.")
    if "split" not in columns:
        guessed.append("No column holds the split: patients are split 70/10/20 by a hash of their id.")
    text = _yaml(folder, config, table, attributes, images)
    return Proposal(text, embeddings, images is not None, saw, guessed)


def _images(folder: Path, table: _Table) -> tuple[Path | None, list[str]]:
    """Return the folder with most of the studies' images, and sentences on what was found."""
    named = table.cells_of("image" if "image" in table.columns else "study_id")
    some = named.gather_every(max(1, len(named) // _LOOKED_UP)).to_list()
    suffixes = ("",) if "image" in table.columns else _IMAGE_SUFFIXES
    tops = [one for one in sorted(folder.iterdir()) if one.is_dir() and _is_theirs(one)]
    inner = [one for top in tops for one in _folders_of_folders(top)]
    found = {
        top: sum(locate(top, name, suffixes).exists for name in some if name) for top in (folder, *tops, *inner)
    }  # fmt: skip
    top = max(found, key=lambda one: found[one])
    if 2 * found[top] >= len(some) > 0:
        share = f"{found[top]:,} of {len(some):,} sampled studies found"
        return top, [f"{top.relative_to(folder) if top != folder else 'the folder itself'}: images; {share}."]
    holding = [one.name for one in tops if _holds_images(one)]
    messages = [f"{name} holds images, but their names do not match the table." for name in holding]
    if "image" in table.columns:  # it names no image: a column of that name means something else
        del table.columns["image"]
        return _images(folder, table)
    return None, messages


def _folders_of_folders(top: Path) -> list[Path]:
    """Return the folders one level further in, unless there are many, which are then studies."""
    inner = [one for one in sorted(top.iterdir())[:50] if one.is_dir() and not one.name.startswith(".")]
    return inner if len(inner) <= 5 else []


def _holds_images(folder: Path) -> bool:
    names = (one.name.lower() for _, one in zip(range(2_000), folder.rglob("*"), strict=False))
    return any(name.endswith((".dcm", ".nii", ".nii.gz")) for name in names)


_HEAD: Final = (
    "# Written by `fmaudit init` from the contents of a folder. Every line is a guess: correct what is wrong, then "
    "`fmaudit run`.\n# Every other setting has the method's default; the README lists them.\n"
)


def _yaml(folder: Path, config: Path, table: _Table, attributes: Sequence[str], images: Path | None) -> str:
    lines = [
        f"name: {_quoted(folder.resolve().name)}",
        "cohort:",
        "  kind: table",
        f"  table: {_quoted(_relative(table.path, config))}   # {table.cells.height:,} rows",
    ]
    if images is None:
        lines.append("  # images: ct   # a folder per study, or a .nii.gz with the name of the study; none was found")
    else:
        lines.append(f"  images: {_quoted(_relative(images, config))}")
    mapped = {ours: theirs for ours, theirs in table.columns.items() if ours != theirs}
    if mapped:
        lines += ["  columns:   # our name: yours"]
        lines += [f"    {ours}: {_quoted(theirs)}" for ours, theirs in mapped.items()]
    if "split" not in table.columns:
        lines.append("  # without a column `split`, patients are split 70/10/20 by a hash of their id")
    lines += [
        f"tasks: [{', '.join(table.tasks)}]   # columns of 1, 0 or blank; remove those that are not outcomes",
        f"attributes: [{', '.join(attributes)}]",
    ]
    if table.further:
        further = ", ".join(f"{name} ({n} levels)" for name, n in table.further.items())
        lines.append(f"# other possible attributes: {further}")
    return _HEAD + "\n".join(lines) + "\n"


def _relative(path: Path, config: Path) -> str:
    """Return the path relative to the config's folder if it lies below it, else absolute."""
    base, full = config.absolute().parent.resolve(), path.resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def _quoted(text: str) -> str:
    """Return a YAML scalar, quoted if plain text would be read as something else."""
    if re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in {
        "yes",
        "no",
        "true",
        "false",
        "null",
        "on",
        "off",
    }:
        return text
    return "'" + text.replace("'", "''") + "'"
