"""The section `storage`."""

from __future__ import annotations

from pydantic import Field

from fmaudit_core.common.addresses import Endpoint
from fmaudit_core.config.section import Section


class StorageSection(Section):
    """The store of a bucket. Credentials are read from the environment only (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    the like), never from this file.
    """

    #: address of an S3-compatible store, such as `https://minio.hospital.org:9000`; Amazon's if it is not set
    endpoint: Endpoint | None = None
    #: region of the bucket; by default `AWS_REGION`, else `us-east-1`
    region: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")
