"""Addresses of a bucket and of its store, in one normal form. Paths of this machine: `local_paths.py`.

A message quotes no address that was refused: it may hold a password.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

from fmaudit_core.common.local_paths import ADDRESS, address_problem

#: names that every S3-compatible store accepts
_BUCKET: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_PART: Final = r"[A-Za-z0-9!_.*'()=-]+"
_S3: Final = re.compile(rf"s3://({_BUCKET})((?:/{_PART})*)/?")
_ENDPOINT: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?")


def bucket_address(text: str) -> str | None:
    """Return the address of a bucket and prefix without a slash at its end; None if it is not one of the form `s3://bucket/prefix`."""
    found = _S3.fullmatch(text.strip())
    if found is None or any(part in (".", "..") for part in found[2].split("/")):
        return None
    return f"s3://{found[1]}{found[2]}"


def _root(text: str) -> str:
    if re.match(ADDRESS, text) is None:
        return text
    if (address := bucket_address(text)) is not None:
        return address
    if re.match(r"\s*s3:/", text, re.IGNORECASE):
        raise ValueError(
            "is not of the form s3://bucket/prefix: lower-case letters, digits, dots and hyphens in the name of the bucket, no "
            "key, password or query; credentials come from the environment"
        )
    if (problem := address_problem(text)) is not None and "file://" in problem:
        raise ValueError(problem)
    raise ValueError("is an address of a kind that cannot be used; give a folder, or a bucket as s3://bucket/prefix")


def _endpoint(text: str) -> str:
    if _ENDPOINT.fullmatch(text) is None:
        raise ValueError(
            "is not of the form https://host:port, without a user, password, path or query; credentials come from the environment"
        )
    return text.rstrip("/")


def path_or_bucket(given: Any) -> Any:
    """Return the normal address of a bucket as text, another text as `Path`, and anything else as it is.

    Raises
    ------
    ValueError
        The text is an address that cannot be used.
    """
    if not isinstance(given, str):
        return given
    found = _root(given)
    return found if bucket_address(found) == found else Path(found)


#: the type of a setting that is a path, or an object or a folder of objects in a bucket
PathOrBucket = Annotated[Path | str, BeforeValidator(path_or_bucket)]
#: the type of a setting that is a folder or a bucket
FolderOrBucket = Annotated[str, AfterValidator(_root)]
#: the type of a setting that is the address of a store
Endpoint = Annotated[str, AfterValidator(_endpoint)]
