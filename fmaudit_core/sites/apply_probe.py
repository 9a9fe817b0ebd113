"""A probe from another site, tried on the studies of this one: predictions that are then assessed like any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.vocabulary import THRESHOLD_GIVEN
from fmaudit_core.config import FairnessSection
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.embeddings_reader import (
    check_embeddings,
    read_poolings,
    read_provenance,
    read_study_embeddings,
)
from fmaudit_core.encoders.imported import read_vectors
from fmaudit_core.encoders.spec import EncoderSpec, ImportedFile
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.probes.primary_score_set import PRIMARY_MODALITY, PRIMARY_PROBE
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.identity import encoder_key, probe_key
from fmaudit_core.sites.probe_file import ProbeFile, with_policy
from fmaudit_core.standalone.assess_file import Assessed, assess_file, read_predictions
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.tabular.text_cells import column_names, text_of
from fmaudit_core.tabular.words import normal_splits

#: added to the encoder's name in rows whose threshold was chosen on the validation studies of this site
RECHOSEN: Final = ", threshold re-chosen"


@dataclass(frozen=True)
class Scored:
    """The predictions of a probe at this site.

    Parameters
    ----------
    frame : frame with the columns of a predictions file
        Scored twice if there are validation studies: with the threshold as brought, and with one chosen here.
    attributes : sequence of str
    n_studies : int, studies that were scored
    n_without_label, n_without_embedding, n_without_row : int
        Studies without a label, studies without an embedding, and embeddings of other studies; none is scored.
    """

    frame: pl.DataFrame
    attributes: Sequence[str]
    n_studies: int
    n_without_label: int
    n_without_embedding: int
    n_without_row: int


def score_workspace(
    look: Snapshot, probe: ProbeFile, *, encoder: str | None = None, policy: str | None = None, with_train: bool = False
) -> Scored:
    """Score the studies of a workspace.

    Parameters
    ----------
    encoder : str, optional
        Name of the probe's encoder here, needed only if its embeddings were computed elsewhere under another name.
    policy : str, optional
        Policy of the brought threshold; that of the exporting audit if not given.
    with_train : bool
        Whether training studies are evaluated too: a probe from another site has not seen them.

    Raises
    ------
    SiteError
        The encoder, pooling, length of the embeddings or task differ.
    """
    workspace, spec = look.workspace, _same_encoder(look, probe, encoder)
    if probe.task.name not in workspace.audit.tasks:
        known = workspace.audit.tasks
        raise SiteError(
            "task_differs",
            f"the outcome of the probe is {did_you_mean(probe.task.name, known)}; the tasks here are {', '.join(known)}.",
        )
    path = workspace.warehouse.embeddings_path(spec.name)
    if read_provenance(path).get("spec_digest") != spec.digest():
        raise SiteError(
            "encoder_differs",
            f"the embeddings of {spec.name} here are of an earlier spec.",
            fix="Run `fmaudit run` first.",
        )
    if probe.pooling not in (there := read_poolings(path)):
        raise SiteError(
            "pooling_differs", f"the probe reads embeddings pooled by {probe.pooling}; here are {', '.join(there)}."
        )
    check_embeddings(path, dim=spec.dim, studies=workspace.usable_studies(spec))
    ids, x = read_study_embeddings(path, probe.pooling)
    labels = workspace.warehouse.read("labels").filter(task=probe.task.name)
    attributes = workspace.audit.attributes
    table = workspace.audited_studies().select("study_id", "patient_id", "split", *attributes)
    table = table.join(labels.select("study_id", y_true="label"), on="study_id", how="left").cast({"split": pl.String})
    if with_train:
        table = table.with_columns(split=pl.col("split").replace("train", "test"))
    table = table.filter(pl.col("split") != "train")
    scores = pl.DataFrame({"study_id": ids, "y_score": probe.score(x)}).join(table, on="study_id", how="semi")
    return _scored(table, scores, probe, attributes, policy)


def score_file(
    probe: ProbeFile,
    embeddings: Path,
    table: Path,
    *,
    encoder: str,
    label: str = "y_true",
    attributes: Sequence[str],
    policy: str | None = None,
) -> Scored:
    """Score the studies of a table by a file of embeddings computed elsewhere.

    Parameters
    ----------
    embeddings : Path
        Parquet, NPZ or HDF5 with `study_id` and `embedding`; see `encoders.imported`.
    table : Path
        CSV or Parquet with `study_id`, `patient_id`, the label and a column per attribute. Without a column `split`, every study
        is evaluated.
    encoder : str
        Name of the encoder that computed the embeddings, which the file cannot prove.
    label : str
        Column of the label.

    Raises
    ------
    SiteError
        The encoder or the length of the embeddings differ, or no study has both.
    FairnessError, ImportedFileError
        The table, or the file of embeddings, cannot be read.
    """
    if encoder != probe.encoder.name:
        raise SiteError("encoder_differs", f"the probe is of the encoder {probe.encoder.name}, not {encoder}.")
    # its user names the file here and now, so there is no earlier checksum to compare
    ids, x = read_vectors(ImportedFile(path=embeddings, sha256=sha256_of(embeddings)))
    names = column_names(table, ("study_id", "patient_id", label))
    lacking = [one for one in ("study_id", "patient_id", label, *attributes) if one not in names]
    if lacking:
        raise UnknownNameError(
            f"there is no column {', '.join(did_you_mean(one, names) for one in lacking)}.", where=str(table)
        )
    rows = read_predictions(table, [label, "split", *attributes])
    rows = rows.with_columns(y_true=pl.col(label)).select(
        "study_id", "patient_id", "y_true", *(one for one in ("split", *attributes) if one in rows.columns)
    )
    split = normal_splits(text_of(rows.get_column("split"))) if "split" in rows.columns else pl.lit("test")
    rows = rows.with_columns(split=split)
    return _scored(rows, pl.DataFrame({"study_id": ids, "y_score": probe.score(x)}), probe, attributes, policy)


def assess_scored(
    scored: Scored,
    probe: ProbeFile,
    out: Path,
    predictions: Path,
    *,
    policy: str | None = None,
    settings: FairnessSection | None = None,
    progress: Progress = silent,
) -> Assessed:
    """Assess the predictions of a probe and write the page, audit.json and tables into `out`.

    Parameters
    ----------
    predictions : Path
        Parquet file for the predictions, which hold identifiers: keep it outside of what is shared.
    settings : FairnessSection, optional
        Their threshold policy is replaced by that of the brought threshold, by which another is chosen here.

    Raises
    ------
    FairnessError
        The predictions cannot be assessed.
    """
    with written_beside(predictions) as temporary:
        scored.frame.write_parquet(temporary)
    names = scored.frame.get_column("encoder").unique().sort().to_list()
    origin = {probe_key(name, probe.task.name): probe.digest for name in names}
    if probe.encoder.digest is not None:
        origin |= {encoder_key(name): probe.encoder.digest for name in names}
    return assess_file(
        predictions,
        out,
        attributes=scored.attributes,
        settings=with_policy(settings or FairnessSection(), probe.threshold(policy)),
        name=f"{probe.task.title}: probe of {probe.encoder.name} from another site",
        provenance=origin,
        progress=progress,
    )


def _same_encoder(look: Snapshot, probe: ProbeFile, name: str | None) -> EncoderSpec:
    """Return the encoder here that is the probe's: of the same digest, or of the same name if it was computed elsewhere."""
    wanted = name or probe.encoder.name
    if probe.encoder.digest is not None:
        found = [spec for spec in look.encoders.values() if spec.sees_images and spec.digest() == probe.encoder.digest]
    else:
        found = [
            spec for spec in look.encoders.values() if spec.embeds and not spec.sees_images and spec.name == wanted
        ]
    if not found:
        known = ", ".join(sorted(spec.name for spec in look.encoders.values() if spec.embeds))
        raise SiteError(
            "encoder_differs",
            f"no encoder here is the {probe.encoder.name} of the probe; there are {known}.",
            fix="Weights, preprocessing and view must be the same: use the other site's spec. Name embeddings computed elsewhere "
            "with --encoder.",
        )
    return found[0]


def _scored(
    studies: pl.DataFrame, scores: pl.DataFrame, probe: ProbeFile, attributes: Sequence[str], policy: str | None
) -> Scored:
    table = studies.filter(pl.col("y_true").is_not_null() & (pl.col("y_true").cast(pl.String) != ""))
    both = table.join(scores, on="study_id", how="inner", maintain_order="left")
    if both.is_empty():
        raise SiteError(
            "no_common_studies",
            f"none of the {table.height:,} studies with a label has one of the {scores.height:,} embeddings.",
            fix="Write study_id alike in both.",
        )
    named = {
        "encoder": probe.encoder.name, "task": probe.task.name, "probe": PRIMARY_PROBE, "modality": PRIMARY_MODALITY,
        "pooling": probe.pooling, "strategy": "none",
    }  # fmt: skip
    rows = both.with_columns(
        *(pl.lit(value).alias(column) for column, value in named.items()),
        threshold=pl.lit(probe.threshold(policy).value),
        threshold_source=pl.lit(THRESHOLD_GIVEN),
    )
    if (rows.get_column("split") == "val").any():
        rechosen = rows.with_columns(
            encoder=pl.lit(probe.encoder.name + RECHOSEN),
            threshold=pl.lit(None, dtype=pl.Float64),
            threshold_source=pl.lit(None, dtype=pl.String),
        )
        rows = pl.concat([rows, rechosen])
    return Scored(
        frame=rows,
        attributes=attributes,
        n_studies=both.height,
        n_without_label=studies.height - table.height,
        n_without_embedding=table.height - both.height,
        n_without_row=scores.join(studies, on="study_id", how="anti").height,
    )
