"""Any open_clip model from a local folder: its image tower alone, without network or text tower.

The folder holds `open_clip_config.json` as open_clip publishes it, beside the checkpoint the spec names. The text
tower is never built, since some of them (BiomedCLIP's) ask a model hub for their config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import nn

from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.encoders.torch_network import TorchEncoder, load_strictly, read_checkpoint

_PREFIX = "visual."


class _UnitNorm(nn.Module):
    """The image tower, its embedding scaled to length 1 as `encode_image(normalize=True)` does."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.tower(images), dim=-1)


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Adapter entry: L2-normalised image embeddings.

    Raises
    ------
    SpecError
        The spec has no weights path, or its dim is not the model's.
    WeightsError
        The config or checkpoint is missing, another one, or does not fit strictly.
    """
    if spec.weights is None or spec.weights.path is None:
        raise SpecError("open_clip needs `weights: path:` to a checkpoint in the model's folder.", where=spec.name)
    path = spec.weights.verified()
    config = _read_config(path.parent / "open_clip_config.json")
    model = config.get("model_cfg", config)
    if int(model["embed_dim"]) != spec.dim:
        raise SpecError(f"dim is {spec.dim}, but the model's embed_dim is {model['embed_dim']}.", where=spec.name)
    vision = CLIPVisionCfg(**model["vision_cfg"])
    tower = _build_vision_tower(model["embed_dim"], vision, quick_gelu=bool(model.get("quick_gelu")), cast_dtype=None)
    state = {
        name.removeprefix(_PREFIX): tensor for name, tensor in read_checkpoint(path).items() if name.startswith(_PREFIX)
    }
    load_strictly(tower, state, where=path.name)
    return TorchEncoder(_UnitNorm(tower), spec, _inputs(spec, config, vision), device)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError("the model's config is missing or not JSON.", where=str(path)) from error
    model = config.get("model_cfg", config)
    if "embed_dim" not in model or "vision_cfg" not in model:
        raise WeightsError("the config names no embed_dim and vision_cfg.", where=str(path))
    return config


def _inputs(spec: EncoderSpec, config: dict[str, Any], vision: Any) -> Input:
    """The spec's input where it gives one, else what the model was published with."""
    if spec.input is not None:
        return spec.input
    published = config.get("preprocess_cfg", {})
    size = vision.image_size[0] if isinstance(vision.image_size, tuple | list) else vision.image_size
    return Input(
        size_px=int(size),
        mean=tuple(published.get("mean", (0.48145466, 0.4578275, 0.40821073))),
        std=tuple(published.get("std", (0.26862954, 0.26130258, 0.27577711))),
        resize="bilinear" if published.get("interpolation") == "bilinear" else "bicubic",
    )
