"""The key `options`: how a network of timm is built."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fmaudit_core.encoders.spec.part import Part


class TimmOptions(Part):
    """Arguments of `timm.create_model`, for networks that differ from timm's own in size, and the naming of their tensors.

    Parameters
    ----------
    img_size : int, optional
        Rows and columns that the network was built for.
    patch_size : int, optional
        Side of the patches of a vision transformer.
    in_chans : int, optional
        Channels of the network's input: 1 for a network of grey slices.
    prefix : str
        Tensors whose names start with it are the network, without it: `backbone.` of a checkpoint that holds more.
    """

    img_size: int | None = Field(default=None, ge=16, le=4096)
    patch_size: int | None = Field(default=None, ge=1, le=512)
    in_chans: int | None = Field(default=None, ge=1, le=64)
    prefix: str = ""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `timm.create_model` that are given."""
        return self.model_dump(exclude={"prefix"}, exclude_none=True)
