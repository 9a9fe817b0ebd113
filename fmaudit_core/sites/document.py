"""JSON files that sites exchange: one kind, one schema, and a checksum that shows whether a file was edited."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import fmaudit_core
from fmaudit_core.common.validation_messages import validation_messages
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.storage.atomic_write import written_beside


class Part(BaseModel):
    """A mapping within a file: unknown keys are refused, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """A file for other sites."""

    #: what the file is called in messages
    TITLE: ClassVar[str] = "file"

    #: what the file is
    kind: str
    #: major.minor; keys may be added within a major version
    schema_version: str = "1.0"
    #: version of the software that wrote it
    fmaudit: str = fmaudit_core.__version__
    #: SHA-256 of all other keys; it shows accidental edits and is no signature
    content_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    def write(self, path: Path) -> Path:
        """Write the file and its JSON Schema next to it; return the path of the file."""
        content = self.model_dump(mode="json") | {"content_sha256": self.checksum()}
        with written_beside(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        with written_beside(path.with_suffix(".schema.json")) as temporary:
            temporary.write_text(json.dumps(self.model_json_schema(), indent=1) + "\n", encoding="utf-8")
        return path

    def checksum(self) -> str:
        """Return the SHA-256 of the content."""
        return _sha256(self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file.

        Raises
        ------
        SiteError
            It is not such a file, was written in another major version, holds an invalid key, or was edited.
        """
        content, where = _parsed(path), str(path)
        kind, version = cls.model_fields["kind"].default, cls.model_fields["schema_version"].default
        if not isinstance(content, dict) or content.get("kind") != kind:
            raise SiteError("not_our_file", f"is not a {cls.TITLE} of fmaudit.", where=where)
        theirs = str(content.get("schema_version", ""))
        if theirs.partition(".")[0] != version.partition(".")[0]:
            raise SiteError(
                "version_differs", f"has format {theirs or 'unknown'}, but this fmaudit reads {version}.", where=where,
                fix="Export it again with the same version of fmaudit.",
            )  # fmt: skip
        if content.get("content_sha256") != _sha256(content):
            raise SiteError(
                "edited_file", "its content does not match its checksum.", where=where, fix="Export it again."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            message = validation_messages(error, cls, whole="the file")
            raise SiteError("invalid_file", message, where=where, fix="Export it again.") from error


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SiteError("not_our_file", "does not exist.", where=str(path)) from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise SiteError("not_our_file", "is not JSON.", where=str(path)) from error


def _sha256(content: dict[str, Any]) -> str:
    others = {name: value for name, value in content.items() if name != "content_sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
