"""A table cohort with embeddings computed elsewhere: an audit of seconds, without CT; its ids can be recognised anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

#: what no output may hold
PLANTED = ("ZQXSTUDY", "ZQXPATIENT")
FAST: dict[str, Any] = {
    "fairness": {"n_permutations": 199, "suppress_under": 5, "test_from": 10},
    "mitigation": {
        "seeds": 1, "epochs": 2, "n_bootstrap": 99, "control_shuffles": 1, "alphas": [1.0], "ladder_from": 0,
        "strategies": ["reweighting", "leace"],
    },
}  # fmt: skip


def studies(n: int = 600, seed: int = 0) -> pl.DataFrame:
    """A study per row, two a patient; the group `d` is too small to be shown."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "study_id": [f"{PLANTED[0]}{i:05d}" for i in range(n)],
            "patient_id": [f"{PLANTED[1]}{i // 2:05d}" for i in range(n)],
            "age": rng.integers(18, 90, n),
            "sex": rng.choice(["female", "male"], n),
            "race_ethnicity": rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.16, 0.04]),
            "pe": rng.integers(0, 2, n),
        }
    )


def vectors(table: pl.DataFrame, *, blind_to_men: bool = False, seed: int = 0) -> np.ndarray:
    """Embeddings that tell the outcome; of men nothing, where asked."""
    rng = np.random.default_rng(seed)
    told = table["pe"].to_numpy() * 0.7
    if blind_to_men:
        told = np.where((table["sex"] == "male").to_numpy(), 0.0, told)
    return rng.normal(size=(table.height, 8)) + told[:, None]


def write_embeddings(path: Path, ids: pl.Series, x: np.ndarray) -> None:
    np.savez(path, study_id=ids.to_numpy().astype(str), embedding=x)


def write_spec(registry: Path, file: Path, **changes: Any) -> None:
    """An encoder of embeddings computed elsewhere."""
    registry.mkdir(parents=True, exist_ok=True)
    spec = {
        "name": file.stem, "adapter": "imported", "dim": 8,
        "embeddings": {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    } | changes  # fmt: skip
    (registry / f"{spec['name']}.yaml").write_text(yaml.safe_dump(spec))


def write_audit(folder: Path, *, blind_to_men: bool = False, **changes: Any) -> Path:
    """A folder with table, embeddings, spec and audit.yaml; the path of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    table = studies()
    table.write_csv(folder / "studies.csv")
    write_embeddings(folder / "theirs.npz", table["study_id"], vectors(table, blind_to_men=blind_to_men))
    write_spec(folder / "encoders", folder / "theirs.npz")
    audit = {"name": "Planted", "cohort": {"kind": "table", "table": "studies.csv"}, "tasks": ["pe"], **FAST} | changes
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))
    return folder / "audit.yaml"
