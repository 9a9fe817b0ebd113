"""Montages of discovered regions: slices nearest to the centre of each region, of training and validation studies alone.

A slice is of a study that is not evaluated, so that nobody judges test studies by what they look like here. None is shown of a
series that may hold burnt-in text, and none of a region with fewer patients than the small-group rule.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.encoders.embeddings_reader import read_slice_embeddings
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import Cell

if TYPE_CHECKING:
    from fmaudit_core.imaging.slices import SliceStore

Float32Array = npt.NDArray[np.float32]

#: slices of a montage
MOST_SLICES: Final = 12
_SEARCHED: Final = ("train", "val")


def montages(workspace: Workspace, look: Snapshot) -> dict[tuple[str, str, int], str]:
    """Return a PNG in base64 by encoder, task and number of each tested region; none unless `report: images: true`.

    Encoders of volumes or patches have no slices to choose from, and a region all of whose nearest studies may hold burnt-in text
    has no montage.
    """
    if not (workspace.audit.report.images and workspace.audit.exploration.discovered_subgroups):
        return {}
    cells = [
        cell
        for cell in look.audited_cells()
        if _has_slices(look.encoders[cell.encoder])
        and workspace.warehouse.version("discovered_subgroups", cell) is not None
    ]
    if not cells:
        return {}
    store = workspace.repairing_slice_store()
    patients = dict(workspace.audited_studies().select("study_id", "patient_id").iter_rows())
    found = {}
    for cell in cells:
        for region, png in _of_cell(workspace, cell, look.encoders[cell.encoder], store, patients).items():
            found[cell.encoder, cell.task, region] = base64.b64encode(png).decode("ascii")
    return found


def _has_slices(spec: EncoderSpec) -> bool:
    return spec.embeds and spec.has_slices and not spec.view.of_patches


def _of_cell(
    workspace: Workspace, cell: Cell, spec: EncoderSpec, store: SliceStore, patients: Mapping[str, str]
) -> dict[int, bytes]:
    with needs_extra("imaging", "reading slices"):
        from fmaudit_core.imaging.picture import grey_slice, montage_png
    warehouse, embeddings = workspace.warehouse, workspace.embeddings(cell.encoder)
    tested = warehouse.read("discovered_subgroups", cell).filter(status="tested").select("region", "pooling")
    members = warehouse.read("discovered_members", cell).filter(pl.col("split").is_in(_SEARCHED))
    found = {}
    for region, pooling in tested.iter_rows():
        inside = members.filter(region=region).get_column("study_id").to_list()
        if len({patients[one] for one in inside}) < workspace.audit.fairness.suppress_under:
            continue
        ids, matrix = embeddings[pooling]
        nearest, centre, scale = _nearest(ids, matrix, inside)
        chosen = _one_per_patient(nearest, patients, store.is_free_of_text)
        embedded = read_slice_embeddings(warehouse.embeddings_path(cell.encoder), chosen)
        tiles = [
            grey_slice(spec.view, store.read(one, spec.view)[_closest(embedded[one], centre, scale)]) for one in chosen
        ]
        if tiles:
            found[region] = montage_png(tiles)
    return found


def _nearest(
    ids: Sequence[str], matrix: Float32Array, inside: Sequence[str]
) -> tuple[list[str], Float32Array, Float32Array]:
    """Return the studies of a region, the nearest to its centre first, the centre, and the spread of all studies."""
    place = {study: at for at, study in enumerate(ids)}
    rows = np.array([place[one] for one in inside])
    spread = matrix.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf).astype(np.float32)
    centre = matrix[rows].mean(axis=0)
    distance = (((matrix[rows] - centre) / scale) ** 2).sum(axis=1)
    return [inside[at] for at in np.argsort(distance, kind="stable")], centre, scale


def _one_per_patient(studies: Sequence[str], patients: Mapping[str, str], is_shown: Callable[[str], bool]) -> list[str]:
    """Return the first studies that may be shown, one of each patient, `MOST_SLICES` at most."""
    chosen: dict[str, str] = {}
    for study in studies:
        if len(chosen) == MOST_SLICES:
            break
        if patients[study] not in chosen and is_shown(study):
            chosen[patients[study]] = study
    return list(chosen.values())


def _closest(slices: Float32Array, centre: Float32Array, scale: Float32Array) -> int:
    """Return the index of the slice that lies closest to the centre."""
    return int((((slices - centre) / scale) ** 2).sum(axis=1).argmin())
