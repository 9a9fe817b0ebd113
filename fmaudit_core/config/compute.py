"""The section `compute`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section

_NODE = re.compile(r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}")


class ComputeSection(Section):
    """Where slices are read and encoded. The tables do not depend on it, so changing it makes nothing stale."""

    #: `local` uses this machine, `ray` a running Ray cluster whose nodes have the images and the workspace at the same paths
    engine: Literal["local", "ray"] = "local"
    #: with `ray`: `auto` (this machine is a node of the cluster, or RAY_ADDRESS is set), or `host:port` of the head node
    address: str = "auto"
    #: with `ray`: number of processes that encode at the same time
    encoders: int = Field(default=1, ge=1)
    #: with `ray`: GPUs of each of them: a whole number, a fraction below 1 to share a GPU, or 0 to encode on CPUs
    gpus: float = Field(default=1, ge=0)
    #: with `ray`: shards whose slices are read at the same time for each of them, one CPU each
    slicing_cpus: int = Field(default=16, ge=1)
    #: studies of a shard, the unit of work: a kill loses at most the shards in progress. With `ray` the slices of a shard are in
    #: memory at once, so large slices need a small number
    shard_studies: int = Field(default=16, ge=1, le=4096)
    #: `all` stores the slices of each study, so that another encoder with the same view does not read the CT again; `none` stores
    #: none, if they need more disk than there is: the CT is read once for up to four encoders that are not up to date together
    keep_slices: Literal["all", "none"] = "all"

    @field_validator("address")
    @classmethod
    def _of_a_node(cls, address: str) -> str:
        if address != "auto" and not _NODE.fullmatch(address):
            raise ValueError(
                "must be `auto`, or `host:port` of the head node; run fmaudit on a node of the cluster instead of "
                "connecting through a Ray client (`ray://`)"
            )
        return address

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("above 1 must be a whole number")
        return gpus
