"""Files of an INSPECT download: their locations, the release version, and missing files. See also `release_tables.py`."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.scan import newest

Layout = Literal["v2025-06", "2025-03", "0.2.0"]

#: folder names of volumes in the releases; never searched for tables
VOLUME_FOLDERS: Final = ("CTPA", "anon_nii_gz")
VOLUME_SUFFIXES: Final = (".nii.gz", ".nii")
_MASTER_FILES: Final = (
    "cohort_0.2.0_master_file_anon.csv",
    "cohort_0.2.0_master_file.csv",
    "inspect_cohort.csv",
)
#: the medical record of 0.2.0, in a format that only the code of that release can read
_OLD_RECORD: Final = "timelines_smallfiles"

#: role -> (file name in v2025-06, file name in March 2025, purpose)
_ROLES: Final[Mapping[str, tuple[str, str, str]]] = {
    "labels": ("labels", "Final_labels", "the outcomes of each study"),
    "splits": ("splits", "Final_splits", "the split of each patient: training, validation or test"),
    "mapping": ("study_mapping", "Final_metadata", "the patient, volume and time of each study"),
    "series": ("series_metadata", "", "rescale and slice counts, a check on the volumes"),
    "descriptions": ("study_metadata", "", "whether a study's description mentions contrast"),
}
_NEEDED: Final = ("labels", "splits", "mapping")
#: largest share of listed volumes that may be missing; in the complete release eight are missing
_LACKING_UPTO: Final = 0.02
#: name of the file that lists the missing volumes by their download names
LACKING_VOLUMES: Final = "missing_volumes.txt"


@dataclass(frozen=True)
class Release:
    """Files of one download.

    Parameters
    ----------
    layout : str
    labels, splits, mapping : Path
        In 0.2.0 all three are the same master file.
    series, descriptions : Path or None
        Only in v2025-06.
    volumes : mapping of volume name without suffix to path relative to `images_root`
    images_root : Path or str
        A folder, or the address of a bucket.
    old_record : bool
        Whether the medical record of 0.2.0 is present, which is not read.
    """

    layout: Layout
    labels: Path
    splits: Path
    mapping: Path
    series: Path | None
    descriptions: Path | None
    volumes: Mapping[str, str]
    images_root: Path | str
    old_record: bool = False


def locate_release(root: Path, *, images: Path | str | None = None, listed: Collection[str] | None = None) -> Release:
    """Find the files of a download. If there are several dated files, use the newest.

    Parameters
    ----------
    root : Path
        The download, or its `full/` folder.
    images : Path or str, optional
        Folder of the volumes, if not in the download; the address of a bucket is only named.
    listed : collection of str, optional
        Names of all objects below that address, if they are in a bucket.

    Raises
    ------
    CohortError
        The message lists the missing files and their purposes.
    """
    if not root.is_dir():
        raise CohortError("is not a folder.", where=str(root), fix="Give the folder that holds the INSPECT download.")
    found = [_tables_in(folder) for folder in _candidates(root)]
    best = max(found, key=lambda one: sum(role in one for role in _NEEDED))
    images_root = images or root
    if not best and (master := _master(root)) is not None:
        volumes, folder = _volumes(images, listed, root, master.parent)
        if not volumes:
            raise _partial(root, [f"{folder}/*.nii.gz (the CT volumes)"], images)
        old_record = (master.parent / _OLD_RECORD).is_dir() or (root / _OLD_RECORD).is_dir()
        return Release("0.2.0", master, master, master, None, None, volumes, images_root, old_record)
    folder_of_tables = next(iter(best.values())).parent if best else root
    march = any(path.name.lower().startswith("final_") for path in best.values())
    volumes, folder = _volumes(images, listed, root, folder_of_tables)
    lacking = [_named(role, march=march) for role in _NEEDED if role not in best]
    lacking += [] if volumes else [f"{folder}/PE*.nii.gz (the CT volumes)"]
    if lacking:
        raise _partial(root, lacking, images)
    return Release(
        layout="2025-03" if march else "v2025-06",
        labels=best["labels"],
        splits=best["splits"],
        mapping=best["mapping"],
        series=best.get("series"),
        descriptions=best.get("descriptions"),
        volumes=volumes,
        images_root=images_root,
    )


def optional_tables_missing(release: Release) -> list[str]:
    """Return the optional tables of v2025-06 that are missing, each with its purpose."""
    if release.layout != "v2025-06":
        return []
    lacking = [role for role in ("series", "descriptions") if getattr(release, role) is None]
    return [_named(role, march=False) for role in lacking]


def volumes_missing(release: Release, listed: Collection[str], *, partial: bool, told_in: Path) -> int:
    """Count the listed volumes that are missing, and write their names to a file, one per line.

    Parameters
    ----------
    listed : collection of str
        Names of volumes without suffix.
    partial : bool
        Whether a partial download is accepted.
    told_in : Path
        Folder for the file `LACKING_VOLUMES`, which is deleted if nothing is missing.

    Raises
    ------
    CohortError
        More volumes are missing than allowed for a complete release, and a partial download is not accepted.
    """
    missing = sorted(set(listed) - release.volumes.keys())
    path = told_in / LACKING_VOLUMES
    if not missing:
        path.unlink(missing_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as temporary:
        temporary.write_text("".join(f"{name}.nii.gz\n" for name in missing), encoding="utf-8")
    if len(missing) > _LACKING_UPTO * len(set(listed)) and not partial:
        raise CohortError(
            f"{len(missing)} of the {len(set(listed))} CT volumes listed in {release.mapping.name} are missing. Their "
            f"names are in {path}.",
            where=str(release.images_root),
            fix="Download them from Stanford AIMI, or audit the volumes that are present: `fmaudit init --inspect DIR "
            "--partial`, which sets `cohort: partial: true`.",
        )
    return len(missing)


def _candidates(root: Path) -> list[Path]:
    """Return the possible folders of the tables: the folder itself, then `full/`. A `sample/` folder holds only a part."""
    inner = [root / name for name in ("full", "Full")]
    return [root, *(folder for folder in inner if folder.is_dir())]


def _tables_in(folder: Path) -> dict[str, Path]:
    names = [path for path in folder.iterdir() if path.is_file()]
    found = {}
    for role, (stem, march_stem, _) in _ROLES.items():
        for one in (stem, march_stem):
            pattern = re.compile(rf"{re.escape(one)}(_\d{{6,8}})?\.(tsv|csv)(\.gz)?", re.IGNORECASE)
            dated = [path for path in names if one and pattern.fullmatch(path.name)]
            if dated:
                found[role] = newest(dated)
                break
    return found


def _master(root: Path) -> Path | None:
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name not in VOLUME_FOLDERS)]
    files = {path.name.lower(): path for folder in reversed(folders) for path in folder.iterdir() if path.is_file()}
    return next((files[name] for name in _MASTER_FILES if name in files), None)


def _volumes(
    images: Path | str | None, listed: Collection[str] | None, root: Path, tables_folder: Path
) -> tuple[dict[str, str], str]:
    """Return the volumes by name, with paths relative to the image root, and the name of the folder searched."""
    if listed is not None:
        return _listed_volumes(listed), str(images)
    if isinstance(images, Path):
        tops, base = [images, *(images / name for name in VOLUME_FOLDERS)], images
    else:
        tops, base = [folder / name for folder in dict.fromkeys((tables_folder, root)) for name in VOLUME_FOLDERS], root
    for top in tops:
        found = _volumes_in(top, base)
        if found:
            return found, top.name
    return {}, images.name if isinstance(images, Path) else VOLUME_FOLDERS[0]


def _listed_volumes(listed: Collection[str]) -> dict[str, str]:
    """Find the volumes among the names of objects: in the folder itself, else in one of the names of a release."""
    for top in ("", *(f"{name}/" for name in VOLUME_FOLDERS)):
        inside = [name for name in listed if name.startswith(top) and "/" not in name[len(top) :]]
        found = {volume: name for name in inside if (volume := _volume_of(name[len(top) :])) is not None}
        if found:
            return found
    return {}


def _volume_of(name: str) -> str | None:
    """Return the name of a volume without suffix; None if it is another file."""
    suffix = next((one for one in VOLUME_SUFFIXES if name.lower().endswith(one)), None)
    return None if suffix is None or name.startswith(".") else name[: -len(suffix)]


def _volumes_in(top: Path, base: Path) -> dict[str, str]:
    """Find the volumes in one directory listing, instead of one disk access for each of 23,000 files."""
    if not top.is_dir():
        return {}
    prefix = "" if top == base else f"{top.relative_to(base).as_posix()}/"
    found = {}
    with os.scandir(top) as entries:
        for entry in entries:
            volume = _volume_of(entry.name)
            if volume is not None and entry.is_file():
                found[volume] = f"{prefix}{entry.name}"
    return found


def _named(role: str, *, march: bool) -> str:
    stem, march_stem, purpose = _ROLES[role]
    return f"{march_stem}_*.csv ({purpose})" if march else f"{stem}_*.tsv ({purpose})"


def _partial(root: Path, lacking: Sequence[str], images: Path | str | None) -> CohortError:
    where = images.name if isinstance(images, Path) else images
    looked = "" if where is None else f"; volumes were searched for in {where}/"
    return CohortError(
        f"is not a complete INSPECT download. Missing: {'; '.join(lacking)}{looked}.",
        where=str(root),
        fix="Download the missing files from Stanford AIMI (docs/inspect.md lists the files), or give the folder that "
        "holds them.",
    )
