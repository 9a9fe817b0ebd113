"""Embeddings computed elsewhere: three formats, one result; what is wrong is named by row, and nothing is published."""

from __future__ import annotations

import hashlib
import shutil

import h5py
import numpy as np
import polars as pl
import pytest

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.embeddings_reader import (
    check_embeddings,
    read_poolings,
    read_provenance,
    read_study_embeddings,
)
from fmaudit_core.encoders.errors import EncoderError, ImportedFileError, SpecError
from fmaudit_core.encoders.imported import import_embeddings
from fmaudit_core.encoders.registry import Registry, shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.pipeline.changed_sources import usable_specs

IDS = [f"s{i}" for i in range(6)]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def parquet(path, ids=IDS, vectors=VECTORS, **names):
    rows = {names.get("study_id", "study_id"): ids, names.get("embedding", "embedding"): [*map(list, vectors)]}
    pl.DataFrame(rows, strict=False).write_parquet(path)


def parquet_arrays(path, ids=IDS, vectors=VECTORS):
    frame = pl.DataFrame({"study_id": ids, "embedding": vectors.tolist()})
    frame.with_columns(pl.col("embedding").cast(pl.Array(pl.Float32, 4))).write_parquet(path)


def npz(path, ids=IDS, vectors=VECTORS):
    np.savez(path, study_id=np.array(ids), embedding=vectors)


def npz_by_study(path, ids=IDS, vectors=VECTORS):
    np.savez(path, **dict(zip(ids, vectors, strict=True)))


def hdf5(path, ids=IDS, vectors=VECTORS):
    with h5py.File(path, "w") as file:
        file["study_id"], file["embedding"] = ids, vectors


def hdf5_by_study(path, ids=IDS, vectors=VECTORS):
    with h5py.File(path, "w") as file:
        for one, vector in zip(ids, vectors, strict=True):
            file[one] = vector


def spec_of(path, **changes):
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
    where = path.parent / "spec.yaml"
    given = {"path": path.name, "sha256": sha256} | changes
    inner = ", ".join(f"{key}: '{value}'" for key, value in given.items())
    where.write_text(f"name: theirs\nadapter: imported\ndim: 4\nembeddings: {{{inner}}}\n")
    return load_spec(where)


def publish(path, studies=IDS, **changes):
    out = path.parent / "out" / "theirs.duckdb"
    return import_embeddings(spec_of(path, **changes), studies=studies, out=out, version="v1"), out


FORMATS = [
    (parquet, "x.parquet"),
    (parquet_arrays, "x.parquet"),
    (npz, "x.npz"),
    (npz_by_study, "x.npz"),
    (hdf5, "x.h5"),
    (hdf5_by_study, "x.hdf5"),
]


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_every_format_gives_the_same_table(tmp_path, write, name):
    write(tmp_path / name)
    result, out = publish(tmp_path / name, studies=["s5", "s1", "s9"])
    assert (result.n_studies, result.n_failed, result.version) == (2, 1, "v1")
    ids, vectors = read_study_embeddings(out, "given")
    assert ids == ["s1", "s5"]
    assert np.array_equal(vectors, VECTORS[[1, 5]])
    told = read_provenance(out)
    assert (told["n_studies"], told["n_failed"], told["n_unknown_studies"]) == ("2", "1", "4")
    assert told["embeddings_sha256"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    check_embeddings(out, dim=4, studies=["s1", "s5", "s9"])
    with pytest.raises(EncoderError, match="1 usable studies have no vector"):
        check_embeddings(out, dim=4, studies=["s1", "s5", "s8", "s9"])


def test_columns_and_the_pooling_are_called_as_the_spec_says(tmp_path):
    parquet(tmp_path / "x.parquet", study_id="accession", embedding="z")
    _, out = publish(tmp_path / "x.parquet", study_id="accession", embedding="z", pooling="attention")
    assert read_poolings(out) == ["attention"]
    with pytest.raises(ImportedFileError, match="has no column study_id"):
        publish(tmp_path / "x.parquet")


NAN = VECTORS.copy()
NAN[2, 1] = np.nan
HUGE = VECTORS.astype(np.float64)
HUGE[5] = 1e300


@pytest.mark.parametrize(
    ("write", "name", "rows", "said"),
    [
        (npz, "x.npz", (IDS, VECTORS[:, :3]), r"its vectors have shape 6 x 3, but the spec needs 6 x 4"),
        (npz, "x.npz", (IDS[:5], VECTORS), r"5 ids and 6 vectors"),
        (npz, "x.npz", (IDS, NAN), r"1 rows \(number 3\) with NaN"),
        (npz, "x.npz", (IDS, HUGE), r"1 rows \(number 6\) with NaN, infinite"),
        (npz, "x.npz", (["s0", "s1", "s0", "s3", "s1", "s5"], VECTORS), r"2 rows \(number 3, 5\) of a study"),
        (npz, "x.npz", (["s0", "", "s2", "s3", "s4", "s5"], VECTORS), r"1 rows \(number 2\) without a study id"),
        (npz, "x.npz", ([], VECTORS[:0]), "has no studies"),
        (npz, "x.npz", (IDS, VECTORS.astype(str)), "not numbers"),
        (parquet, "x.parquet", ([None, *IDS[1:]], VECTORS), "without a study id"),
        (parquet, "x.parquet", (IDS, [[1.0, None, 1.0, 1.0], *VECTORS[1:]]), r"number 1\) with NaN"),
        (parquet, "x.parquet", (IDS, [VECTORS[0][:2], *VECTORS[1:]]), "different lengths"),
        (parquet, "x.parquet", (IDS, [["a"] * 4] * 6), "not numbers"),
        (hdf5, "x.h5", (IDS, NAN), "with NaN"),
        (npz, "x.npz", ([f"t{i}" for i in range(6)], VECTORS), "none of its 6 studies"),
    ],
)
def test_what_is_wrong_is_named_by_row_and_nothing_is_published(tmp_path, write, name, rows, said):
    write(tmp_path / name, *rows)
    with pytest.raises(ImportedFileError, match=said) as told:
        publish(tmp_path / name)
    assert not any(one in str(told.value).replace(str(tmp_path), "") for one in (*IDS, "t0"))
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("name", ["x.parquet", "x.npz", "x.h5"])
def test_a_damaged_file_a_missing_one_and_another_one_are_told(tmp_path, name):
    with pytest.raises(ImportedFileError, match="does not exist"):
        publish(tmp_path / name)
    (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(ImportedFileError, match="cannot be read"):
        publish(tmp_path / name)
    with pytest.raises(ImportedFileError, match="not the file named in the spec"):
        publish(tmp_path / name, sha256="1" * 64)


def test_pickled_objects_are_never_opened(tmp_path):
    np.savez(tmp_path / "x.npz", study_id=np.array(IDS, dtype=object), embedding=VECTORS)
    with pytest.raises(ImportedFileError, match="cannot be read"):
        publish(tmp_path / "x.npz")


def test_the_section_goes_with_its_adapter_and_there_is_no_network_to_load(tmp_path):
    npz(tmp_path / "x.npz")
    spec = spec_of(tmp_path / "x.npz")
    with pytest.raises(SpecError, match="its embeddings are imported"):
        load_encoder(spec)
    (tmp_path / "other.yaml").write_text("name: x\nadapter: imported\ndim: 4\n")
    with pytest.raises(SpecError, match="is required for `adapter: imported`"):
        load_spec(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    "block",
    [
        "", "embeddings:", "embeddings: x.npz", "embeddings: {path: x.npz}", "embeddings: {sha256: abc}", "path: x.npz",
        "embeddings: {path: x.npz, sha256: ABC}",
    ],
)  # fmt: skip
def test_a_spec_without_its_block_says_what_to_write(tmp_path, block):
    (tmp_path / "other.yaml").write_text(f"name: x\nadapter: imported\ndim: 4\n{block}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "other.yaml")
    assert "`embeddings: {path: FILE, sha256: DIGEST}`" in str(caught.value)
    assert "sha256sum FILE" in str(caught.value)


def test_the_digest_is_of_the_files_content_not_of_its_place(tmp_path):
    npz(tmp_path / "x.npz")
    before = spec_of(tmp_path / "x.npz").digest()
    (tmp_path / "x.npz").rename(tmp_path / "y.npz")
    assert spec_of(tmp_path / "y.npz").digest() == before
    npz(tmp_path / "y.npz", IDS, VECTORS + 1)
    assert spec_of(tmp_path / "y.npz").digest() != before


def test_an_encoder_lands_once_its_file_is_there_be_it_of_embeddings_or_a_checkpoint_in_parts(tmp_path):
    npz(tmp_path / "x.npz")
    spec_of(tmp_path / "x.npz")
    for name in ("astra_small", "hu_histogram"):
        shutil.copyfile(shipped_specs()[name], tmp_path / f"{name}.yaml")
    assert usable_specs(Registry(tmp_path))[2] == {}
    (tmp_path / "x.npz").unlink()
    _, usable, problems = usable_specs(Registry(tmp_path))
    assert list(usable) == ["astra_small", "hu_histogram"]
    assert "does not exist" in problems["theirs"]


def test_a_wrong_file_is_not_registered(tmp_path):
    npz(tmp_path / "x.npz", IDS, NAN)
    spec_of(tmp_path / "x.npz")
    with pytest.raises(ImportedFileError, match="with NaN"):
        Registry(tmp_path / "encoders").add(tmp_path / "spec.yaml")
    assert not list(tmp_path.glob("encoders/*"))
