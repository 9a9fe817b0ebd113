"""Proposal of an audit.yaml from the content of a folder, for `fmaudit init`. Every guess is stated, and no question is asked.

A configured cohort is read in `cohort/`; the first registry is written by `write_config.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.images import locate
from fmaudit_core.cohort.inspect_release.release_files import VOLUME_FOLDERS, locate_release
from fmaudit_core.config import HOME_NAME, ConfigError
from fmaudit_core.setup.audit_text import HEAD, guesses, quoted, relative_to_config, text_of
from fmaudit_core.setup.find_embeddings import SUFFIXES, FoundEmbeddings, embeddings_in
from fmaudit_core.setup.find_images import folders_of_folders, holds_images, map_archive
from fmaudit_core.setup.recognise_columns import NEEDED, RecognisedTable, plain, recognised, safe_name
from fmaudit_core.tabular.errors import CohortError, columns_named
from fmaudit_core.tabular.text_cells import read_cells
from fmaudit_core.tabular.text_check import header_is_data

_TABLES: Final = (".csv", ".tsv", ".parquet", ".pq")
#: folders of the platform itself
_OURS: Final = (HOME_NAME, "encoders", "assessment")
_IMAGE_SUFFIXES: Final = ("", ".nii.gz", ".nii")
#: number of studies whose images are searched for
_LOOKED_UP: Final = 400
_TABLE_BYTES: Final = 512 << 20
#: a Parquet file of vectors with fewer other columns is a file of embeddings
_FEW_COLUMNS: Final = 4


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
    _check_complete(best, folder)
    saw = [f"{best.path.relative_to(folder)}: {best.size}.", *saw]
    images, image_messages = _images(folder, best)
    saw += image_messages
    ids = best.cells_of("study_id").to_list()
    embeddings = embeddings_in(list(_files(folder, SUFFIXES)), ids)
    saw += [f"{one.path.relative_to(folder)}: {_vectors(one)}." for one in embeddings]
    if images is None and not embeddings:
        saw.append("No CT and no embeddings found: an audit needs one of them, see the comments in the file.")
    text = text_of(config, best, name=folder.resolve().name, images=images)
    return Proposal(text, embeddings, images is not None, saw, guesses(best))


def propose_of_table(
    path: Path,
    config: Path,
    *,
    name: str,
    images: Path | None,
    events: Path | None,
    embeddings: Sequence[Path],
    tasks: Sequence[str],
) -> Proposal:
    """Propose an audit of one table; its columns are recognised by name, and its cells are checked when the cohort is read.

    Parameters
    ----------
    embeddings : sequence of Path
        Files of embeddings; without images and without files, those in the folder of the table are used.
    tasks : sequence of str
        Columns of the outcomes, by their name or by fmaudit's; all that hold labels if empty.

    Raises
    ------
    ConfigError
        A column is missing, or there are neither images nor embeddings of the studies.
    CohortError
        The table cannot be read.
    """
    files = list(embeddings)
    if images is None and not files:
        files = [one for one in _in_folder(path.absolute().parent, SUFFIXES) if one != path.absolute()]
        if not files:
            raise ConfigError(
                "there are neither images nor embeddings of its studies.",
                where=path.name,
                fix="Give --images DIR (the folder of its CT series) or --embeddings FILE (.npz, .parquet or .h5), or put such a "
                "file next to the table.",
            )
    cells, _ = read_cells(path)
    table = recognised(path, cells, by_name=("age",) if events is None else ("age", "time"))
    if images is not None:
        _check_image_column(table, images)
        map_archive(table, images, _IMAGE_SUFFIXES)
    if tasks:
        _choose_tasks(table, tasks)
    _check_complete(table, path.parent)
    found = embeddings_in(files, table.cells_of("study_id").to_list())
    _check_embeddings(found, files, given=embeddings, images=images)
    saw = [f"{path.name}: {table.size}.", *(f"{one.path.name}: {_vectors(one)}." for one in found)]
    text = text_of(config, table, name=name, images=images, events=events)
    return Proposal(text, found, images is not None, saw, guesses(table))


def _check_image_column(table: RecognisedTable, images: Path) -> None:
    """Drop the guess that a column names the images if most of them are not there; a column `image` is meant to."""
    if table.columns.get("image", "image") == "image":
        return
    names = table.cells_of("image").head(_LOOKED_UP).to_list()
    if 2 * sum(locate(images, name, ("",)).exists for name in names if name) < len(names):
        del table.columns["image"]


def _choose_tasks(table: RecognisedTable, tasks: Sequence[str]) -> None:
    """Keep the requested tasks; a column that was not recognised is mapped, so that its reader names what is wrong."""
    chosen = []
    for task in tasks:
        theirs = next((one for one in table.cells.columns if one == task), None)
        theirs = theirs or next((one for one in table.cells.columns if plain(one) == plain(task)), None)
        name = next((ours for ours, column in table.columns.items() if column == theirs or ours == task), None)
        if name is None:
            name = safe_name(task, table.columns)
            table.columns[name] = theirs or task
        chosen.append(name)
    for dropped in set(table.tasks) - set(chosen):
        del table.columns[dropped]
    for name in chosen:
        table.levels.pop(name, None)
    table.tasks = list(dict.fromkeys(chosen))


def _check_complete(table: RecognisedTable, folder: Path) -> None:
    if header_is_data(table.cells.columns):
        raise ConfigError(
            f"the first row of {table.path.name} holds numbers or dates, so the names of the columns are missing.",
            where=str(folder),
            fix="Add a first row with the names of the columns: study_id, patient_id, age, and one per task.",
        )
    lacking = [name for name in NEEDED if name not in table.columns] + ([] if table.tasks else ["a task"])
    if lacking:
        raise ConfigError(
            f"{table.path.name} looks like the cohort, but no column looks like {', '.join(lacking)}; its columns are "
            f"{columns_named(table.cells.columns)}.",
            where=str(folder),
            fix="Name the columns study_id, patient_id, age (years) and, for each task, a column of 1, 0 or blank (--task names "
            "a column of other words); or write an audit.yaml and map them under `cohort: columns:`.",
        )


def _check_embeddings(
    found: Sequence[FoundEmbeddings], files: Sequence[Path], *, given: Sequence[Path], images: Path | None
) -> None:
    missing = [path.name for path in given if path not in [one.path for one in found]]
    if missing or not (found or images):
        raise ConfigError(
            f"{', '.join(missing or [path.name for path in files])} holds no vectors for at least half of the studies.",
            where="embeddings",
            fix="A file of embeddings has the study ids of the table (study_id) and one vector of numbers for each (embedding).",
        )


def _vectors(one: FoundEmbeddings) -> str:
    return f"embeddings of {one.n_found:,} of the studies, {one.dim}-d"


def _looks_like_inspect(folder: Path) -> bool:
    return any((top / name).is_dir() for top in (folder, folder / "full", folder / "Full") for name in VOLUME_FOLDERS)


def _inspect(folder: Path, config: Path) -> Proposal:
    release = locate_release(folder)
    found = f"An INSPECT download, layout {release.layout}, with {len(release.volumes):,} volumes."
    text = (
        f"{HEAD}name: INSPECT\ncohort:\n  kind: inspect\n  root: {quoted(relative_to_config(folder, config))}"
        "   # its own splits, outcomes and demographics\n"
    )
    return Proposal(text, (), sees_images=True, saw=[found], guessed=["All eight outcomes are audited."])


def _tables(folder: Path) -> tuple[list[RecognisedTable], list[str]]:
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
        found.append(recognised(path, cells))
    return found, saw


def _files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    tops = [folder, *(one for one in sorted(folder.iterdir()) if one.is_dir() and _is_theirs(one))]
    for top in tops:
        yield from _in_folder(top, suffixes)


def _in_folder(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith("."):
            yield path


def _is_theirs(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name not in _OURS


def _holds_vectors(path: Path) -> bool:
    if path.suffix.lower() not in (".parquet", ".pq"):
        return False
    try:
        vectors = [isinstance(one, pl.List | pl.Array) for one in pl.read_parquet_schema(path).values()]
    except (OSError, pl.exceptions.PolarsError):
        return False
    return any(vectors) and len(vectors) - sum(vectors) < _FEW_COLUMNS


def _completeness(table: RecognisedTable) -> tuple[int, int]:
    return sum(name in table.columns for name in NEEDED) + bool(table.tasks), len(table.columns)


def _images(folder: Path, table: RecognisedTable) -> tuple[Path | None, list[str]]:
    """Return the folder with most of the studies' images, and sentences on what was found."""
    named = table.cells_of("image" if "image" in table.columns else "study_id")
    some = named.gather_every(max(1, len(named) // _LOOKED_UP)).to_list()
    suffixes = ("",) if "image" in table.columns else _IMAGE_SUFFIXES
    tops = [one for one in sorted(folder.iterdir()) if one.is_dir() and _is_theirs(one)]
    inner = [one for top in tops for one in folders_of_folders(top)]
    found = {
        top: sum(locate(top, name, suffixes).exists for name in some if name) for top in (folder, *tops, *inner)
    }  # fmt: skip
    top = max(found, key=lambda one: found[one])
    if 2 * found[top] >= len(some) > 0:
        share = f"{found[top]:,} of {len(some):,} sampled studies found"
        return top, [f"{top.relative_to(folder) if top != folder else 'the folder itself'}: images; {share}."]
    archive = next((one for one in tops if map_archive(table, one, _IMAGE_SUFFIXES)), None)
    if archive is not None:
        return archive, [f"{archive.relative_to(folder)}: DICOM files in another layout than a folder per study."]
    holding = [one.name for one in tops if holds_images(one)]
    messages = [f"{name} holds images, but their names do not match the table." for name in holding]
    if "image" in table.columns:  # it names no image: a column of that name means something else
        del table.columns["image"]
        return _images(folder, table)
    return None, messages
