"""The key `embeddings`: study embeddings computed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from fmaudit_core.common.local_paths import LocalPath
from fmaudit_core.encoders.errors import ImportedFileError
from fmaudit_core.encoders.pooling import GIVEN
from fmaudit_core.encoders.spec.part import Part

#: what a spec of embeddings computed elsewhere holds, for messages
HOW_TO_IMPORT: Final = (
    "Embeddings computed elsewhere need the lines `name: NAME`, `adapter: imported`, `dim: LENGTH` (of a vector) and "
    "`embeddings: {path: FILE, sha256: DIGEST}`, where FILE is .npz, .parquet or .h5 and DIGEST is what `sha256sum FILE` prints."
)


class ImportedFile(Part):
    """Study embeddings computed elsewhere: one file, verified by its SHA-256.

    Parameters
    ----------
    path : Path
        Parquet, NPZ or HDF5, recognised by its suffix; see `encoders/imported.py` for the layouts.
    sha256 : str
        64 hexadecimal digits.
    study_id, embedding : str
        Names of the columns, arrays or datasets that hold the ids and the vectors.
    pooling : str
        Name recorded as the pooling of the vectors.
    """

    path: LocalPath
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    study_id: str = "study_id"
    embedding: str = "embedding"
    pooling: str = Field(default=GIVEN, pattern=r"^[a-z0-9_]{1,32}$")

    def located(self) -> Path:
        """Return the path of the file.

        Raises
        ------
        ImportedFileError
            It is not there.
        """
        if not self.path.is_file():
            raise ImportedFileError(
                "does not exist.", where=str(self.path), fix="Correct `embeddings: path:` in the encoder's spec."
            )
        return self.path
