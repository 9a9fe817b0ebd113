"""MedImageInsight: the image tower of the published two-tower checkpoint, on timm's DaViT.

Codella et al. 2024 (arXiv 2410.06542). The published weights are a DaViT of 360 million parameters, in one safetensors file that
is called `.pt` and also holds the text tower; only the image tower is read. Upstream's own loader never leaves training mode, in
which stochastic depth makes embeddings random; here every network is in eval mode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import timm
import torch
from torch import nn

from fmaudit_core.encoders.checkpoint import State, read_checkpoint
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import TorchEncoder, UnitNorm, load_strictly, needs_dim


@dataclass(frozen=True)
class Architecture:
    """A DaViT and the width of its embedding."""

    depths: tuple[int, ...] = (1, 1, 9, 1)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    heads: tuple[int, ...] = (8, 16, 32, 64)
    embedding: int = 1024


#: by `variant`; never inferred from a checkpoint, since one that lacks a whole block would then fit
ARCHITECTURES: Final = {"": Architecture()}
#: image tower, projection, and other tensors of a checkpoint, in the published layout and in the previous one
_LAYOUTS: Final = (
    ("image_encoder.", "image_projection", ("lang_encoder.", "lang_projection", "logit_scale")),
    ("visual.", "vision_projection", ("text.", "text_projection", "logit_scale")),
)
_RENAMED: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^convs\.0\.proj\.", "stem.conv."),
        (r"^convs\.0\.norm\.", "stem.norm."),
        (r"^convs\.(\d+)\.proj\.", r"stages.\1.downsample.conv."),
        (r"^convs\.(\d+)\.norm\.", r"stages.\1.downsample.norm."),
        (r"^blocks\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\.conv([12])\.fn\.dw\.", r".cpe\1.proj."),
        (r"\.(?:window|channel)_attn\.norm\.", ".norm1."),
        (r"\.(?:window|channel)_attn\.fn\.", ".attn."),
        (r"\.ffn\.norm\.", ".norm2."),
        (r"\.ffn\.fn\.net\.", ".mlp."),
        (r"^norms\.", "head.norm."),
    )
)


class ImageTower(nn.Module):
    """The image tower: DaViT, mean over its last tokens, LayerNorm, projection."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.davit = timm.create_model(
            "davit_huge_fl",
            pretrained=False,
            num_classes=0,
            depths=architecture.depths,
            embed_dims=architecture.widths,
            num_heads=architecture.heads,
        )
        self.projection = nn.Parameter(torch.empty(architecture.widths[-1], architecture.embedding))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, rows, columns) to (n, embedding)."""
        embedding: torch.Tensor = self.davit(images) @ self.projection
        return embedding


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Load the adapter: the L2-normalised 1024-d embedding of upstream's `encode_image`.

    Raises
    ------
    SpecError
        The spec lacks weights or input, or its dim or variant differs.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.variant not in ARCHITECTURES or spec.weights is None or spec.input is None:
        raise SpecError("medimageinsight needs weights and input, and no variant.", where=spec.name)
    architecture = ARCHITECTURES[spec.variant]
    needs_dim(spec, architecture.embedding)
    path = spec.weights.verified()
    state = read_checkpoint(path, wanted=lambda name: not _is_text(name))
    tower = ImageTower(architecture)
    load_strictly(tower, tower_names(state), where=path.name)
    return TorchEncoder(UnitNorm(tower), spec, spec.input, device)


def tower_names(state: State) -> State:
    """Rename tensors of a published checkpoint to `ImageTower`'s names; the text tower is left out.

    Raises
    ------
    WeightsError
        A name belongs to neither tower, or two layouts are mixed.
    """
    present = [one for one in _LAYOUTS if any(name.startswith((one[0], one[1])) for name in state)]
    if len(present) != 1:
        raise WeightsError("the checkpoint is not MedImageInsight's: no image_encoder and image_projection.")
    ((tower, projection, _),) = present
    mapped: State = {}
    for name, tensor in state.items():
        if name == projection:
            mapped["projection"] = tensor
        elif name.startswith(tower):
            mapped[f"davit.{_renamed(name.removeprefix(tower))}"] = tensor
        elif not _is_text(name):
            raise WeightsError(f"the checkpoint holds {name}, which is not part of MedImageInsight.")
    return mapped


def _is_text(name: str) -> bool:
    return any(name.startswith(texts) for _, _, texts in _LAYOUTS)


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
