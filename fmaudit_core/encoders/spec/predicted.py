"""The key `predictions`: scores computed elsewhere, a file per task."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from fmaudit_core.common.local_paths import LocalPath
from fmaudit_core.encoders.errors import PredictionsFileError
from fmaudit_core.encoders.spec.part import Part

#: how a spec of predictions computed elsewhere is made, for messages
HOW_TO_PREDICT: Final = "`fmaudit baseline add FILE` writes the spec of predictions computed elsewhere."


class PredictionsFile(Part):
    """Scores of one model for one task, computed elsewhere: one file, verified by its SHA-256.

    Parameters
    ----------
    path : Path
        CSV or Parquet; see `probes/baseline.py` for the layouts.
    sha256 : str
        SHA-256 of the file; a file with another digest is refused.
    task : str
        Its task; of a file with a column `task`, the rows of this task are used.
    """

    path: LocalPath
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    task: str = Field(min_length=1)

    def located(self) -> Path:
        """Return the path of the file.

        Raises
        ------
        PredictionsFileError
            It is not there.
        """
        if not self.path.is_file():
            raise PredictionsFileError(
                "does not exist.",
                where=str(self.path),
                fix="Correct `predictions:` in the baseline's spec, or add it again.",
            )
        return self.path
