"""Any open_clip model from a local folder: its image tower only, without network access or text tower.

The folder holds `open_clip_config.json` as published by open_clip, next to the checkpoint named in the spec. The text tower is
never built, since some text towers (BiomedCLIP's) request their config from a model hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from open_clip.model import CLIPVisionCfg, _build_vision_tower

from fmaudit_core.encoders.checkpoint import read_checkpoint, read_config
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec, Input
from fmaudit_core.encoders.torch_network import TorchEncoder, UnitNorm, load_strictly, needs_dim

CONFIG: Final = "open_clip_config.json"
_PREFIX: Final = "visual."
#: tensors of the text towers (built-in and transformers), and those that the two towers share
_TEXT: Final = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask",
    "logit_scale", "logit_bias",
)  # fmt: skip


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Load the adapter: image embeddings of length 1, as computed by `encode_image(normalize=True)`.

    Raises
    ------
    SpecError
        The spec has no weights path, or its dim differs from the model's.
    WeightsError
        The config or checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.weights is None or spec.weights.path is None:
        raise SpecError("open_clip needs `weights: path:` to a checkpoint in the model's folder.", where=spec.name)
    config = _read_config(spec.weights.verified_config(CONFIG))
    model = config.get("model_cfg", config)
    needs_dim(spec, int(model["embed_dim"]))
    path = spec.weights.verified()
    try:
        # never the library's own pretrained weights: everything comes from the checkpoint
        vision = CLIPVisionCfg(**model["vision_cfg"] | {"timm_model_pretrained": False})
    except TypeError as error:
        raise WeightsError(f"the config does not describe an image tower ({error}).", where=CONFIG) from error
    tower = _build_vision_tower(model["embed_dim"], vision, quick_gelu=bool(model.get("quick_gelu")), cast_dtype=None)
    # tensors of neither tower keep their names, so that strict loading refuses them
    state = read_checkpoint(path, wanted=lambda name: not name.startswith(_TEXT))
    load_strictly(tower, {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}, where=path.name)
    return TorchEncoder(UnitNorm(tower), spec, _inputs(spec, config, vision), device)


def _read_config(path: Path) -> dict[str, Any]:
    config = read_config(path)
    model = config.get("model_cfg", config)
    if "embed_dim" not in model or "vision_cfg" not in model:
        raise WeightsError("the config has no embed_dim and vision_cfg.", where=str(path))
    return config


def _inputs(spec: EncoderSpec, config: dict[str, Any], vision: Any) -> Input:
    """Return the spec's input if given, else the input that the model was published with."""
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
