"""Any vision model of transformers from a local folder: config.json and safetensors, offline and strict.

The output used as the embedding is defined per model type, never guessed:

======================================  =======================================  =========
model type                              embedding                                length 1
======================================  =======================================  =========
siglip (MedSigLIP), its vision model    pooler_output, the attention pool        yes
clip, its vision model                  image_embeds, the projected pool         yes
dinov2, dinov2_with_registers           CLS token after the last LayerNorm       no
dinov3_vit                              CLS token after the last LayerNorm       no
dinov3_convnext                         pooler_output, the normalised mean       no
vit                                     CLS token after the last LayerNorm       no
======================================  =======================================  =========

RAD-DINO is a dinov2. `variant` chooses another output: `mean_patches`, the mean of the patch tokens without CLS and registers, or
`cls+mean_patches`, both joined; used unchanged. Every other type needs a `variant`: one of these, `pooler_output`, `cls`, or
`mean` of all tokens of `last_hidden_state`.
The library loads the tensors itself, since it renames those of older checkpoints; any tensor it reports as missing, left over or
misshaped is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
import transformers
from torch import nn
from transformers.utils import logging as library_logging

from fmaudit_core.encoders.checkpoint import State, read_checkpoint, read_config
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import TorchEncoder, UnitNorm, needs_dim, needs_input

CONFIG: Final = "config.json"
#: outputs that any transformer of patches has
_OF_PATCHES: Final = ("mean_patches", "cls+mean_patches")
VARIANTS: Final = ("pooler_output", "cls", "mean", *_OF_PATCHES)


@dataclass(frozen=True)
class _Family:
    """How one model type is loaded, and which output is its embedding."""

    network: str
    output: str
    unit_norm: bool = False
    #: prefixes of tensors that are not part of the image embedding: another tower, a head of another task
    left_out: tuple[str, ...] = ()
    #: whether only slices of the config's image_size are accepted
    fixed_size: bool = False


_TEXT: Final = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
_SIGLIP: Final = _Family("SiglipVisionModel", "pooler_output", True, _TEXT, fixed_size=True)
_CLIP: Final = _Family("CLIPVisionModelWithProjection", "image_embeds", True, _TEXT, fixed_size=True)
FAMILIES: Final = {
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "dinov2": _Family("Dinov2Model", "cls", left_out=("classifier.",)),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel", "cls", left_out=("classifier.",)),
    "dinov3_vit": _Family("DINOv3ViTModel", "cls"),
    "dinov3_convnext": _Family("DINOv3ConvNextModel", "pooler_output"),
    # a ViT's own pooler is a trained head on the CLS token
    "vit": _Family("ViTModel", "cls", left_out=("classifier.", "pooler.", "vit.pooler."), fixed_size=True),
}


class _Embedding(nn.Module):
    """A network reduced to one of its outputs, as a matrix.

    Parameters
    ----------
    network : nn.Module
    output : one of `VARIANTS`, or "image_embeds"
    n_patches : number of patch tokens of a slice, which are the last ones; for outputs of patches
    """

    def __init__(self, network: nn.Module, output: str, n_patches: int) -> None:
        super().__init__()
        self.network, self.output, self.n_patches = network, output, n_patches

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, size, size) to (n, dim)."""
        out = self.network(pixel_values=images)
        if self.output in {"pooler_output", "image_embeds"}:
            found: torch.Tensor = out[self.output].flatten(1)
            return found
        tokens: torch.Tensor = out.last_hidden_state
        if self.output == "cls":
            return tokens[:, 0]
        if self.output in _OF_PATCHES:
            mean = tokens[:, -self.n_patches :].mean(dim=1)
            return mean if self.output == "mean_patches" else torch.cat([tokens[:, 0], mean], dim=1)
        return tokens.mean(dim=1) if tokens.ndim == 3 else tokens.mean(dim=(2, 3))


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Load the adapter: the model type's embedding, or the output named by `variant`.

    Raises
    ------
    SpecError
        Weights, input or a needed variant are missing, or the model's input or output sizes differ.
    WeightsError
        The config or checkpoint is missing, has another checksum, requires its own code, or does not fit strictly.
    """
    if spec.weights is None or spec.weights.path is None:
        raise SpecError("transformers needs `weights: path:` to a checkpoint in the model's folder.", where=spec.name)
    config = _config(spec)
    family = _family(spec, config)
    # a model of two towers has a separate config for the image tower
    vision = getattr(config, "vision_config", config)
    inputs = needs_input(spec, _published_input(spec))
    if family.fixed_size and vision.image_size != inputs.size_px:
        raise SpecError(f"the model takes slices of {vision.image_size} px, not {inputs.size_px}.", where=spec.name)
    needs_dim(spec, _dim(family, vision, spec))
    path = spec.weights.verified()
    state = read_checkpoint(path, wanted=lambda name: not name.startswith(family.left_out))
    network = _Embedding(
        _loaded(family, vision, state, path.name), family.output, _n_patches(family, vision, spec, inputs.size_px)
    )
    return TorchEncoder(UnitNorm(network) if family.unit_norm else network, spec, inputs, device)


def _config(spec: EncoderSpec) -> Any:
    path = spec.weights.verified_config(CONFIG)  # type: ignore[union-attr]  # load has checked
    raw = read_config(path)
    known = str(raw.get("model_type"))
    if known not in transformers.CONFIG_MAPPING:
        asks = " It requires custom code, which is never run." if "auto_map" in raw else ""
        raise WeightsError(f"transformers has no model type {known}.{asks}", where=str(path))
    try:
        return transformers.CONFIG_MAPPING[known].from_dict(raw)
    except Exception as error:  # the library's own validation may raise anything
        raise WeightsError(f"is not a valid config: {str(error).splitlines()[0][:200]}.", where=str(path)) from error


def _family(spec: EncoderSpec, config: Any) -> _Family:
    family = FAMILIES.get(config.model_type)
    if spec.variant:
        if spec.variant not in VARIANTS:
            raise SpecError(
                f"unknown variant {spec.variant!r}; the variants are {', '.join(VARIANTS)}.", where=spec.name
            )
        if family is not None and spec.variant in _OF_PATCHES:
            return replace(family, output=spec.variant, unit_norm=False)
        if family is not None and spec.variant != family.output:
            raise SpecError(
                f"the embedding of a {config.model_type} is its {family.output}; leave the variant out, or set it to "
                f"{' or '.join(_OF_PATCHES)}.",
                where=spec.name,
            )
        return family or _Family("AutoModel", spec.variant)
    if family is None:
        raise SpecError(
            f"it is not known which output of a {config.model_type} is the embedding.",
            where=spec.name,
            fix=f"Set `variant` to {', '.join(VARIANTS[:-1])} or {VARIANTS[-1]}, as the model's authors use it.",
        )
    return family


def _dim(family: _Family, vision: Any, spec: EncoderSpec) -> int:
    """Return the embedding's width; for an unknown type the spec's, which is compared during extraction."""
    if family.output == "cls+mean_patches":
        return 2 * int(vision.hidden_size)
    if family.output == "image_embeds":
        return int(vision.projection_dim)
    if family.network == "DINOv3ConvNextModel":
        return int(vision.hidden_sizes[-1])
    return int(vision.hidden_size) if family.network != "AutoModel" else spec.dim


def _n_patches(family: _Family, vision: Any, spec: EncoderSpec, size_px: int) -> int:
    """Return the number of patch tokens of one slice; 0 for outputs that need none.

    Raises
    ------
    SpecError
        The model has no patch tokens, no CLS token before them, or the input is not a multiple of its patches.
    """
    if family.output not in _OF_PATCHES:
        return 0
    patch = getattr(vision, "patch_size", None)
    if not isinstance(patch, int) or size_px % patch:
        raise SpecError(
            f"{family.output} needs a model of square patches and an input of a multiple of their size; the patches are "
            f"{patch} px, the input is {size_px} px.",
            where=spec.name,
        )
    if family.output.startswith("cls") and family.network == "SiglipVisionModel":
        raise SpecError("a SigLIP has no CLS token; use `variant: mean_patches`.", where=spec.name)
    return (size_px // patch) ** 2


def _loaded(family: _Family, vision: Any, state: State, where: str) -> nn.Module:
    if family.network == "SiglipVisionModel" and family.output == "pooler_output" and not vision.vision_use_head:
        raise WeightsError(
            "the SigLIP has no pooling head (vision_use_head), so it has no image embedding.",
            where=where,
            fix="Set `variant: mean_patches` for the mean of its tokens.",
        )
    builder: Any = getattr(transformers, family.network)
    options: dict[str, Any] = {"add_pooling_layer": False} if family.network == "ViTModel" else {}
    if family.network == "AutoModel":
        builder = transformers.MODEL_MAPPING[type(vision)]
    try:
        with _quiet():
            network, loading_info = builder.from_pretrained(
                None, config=vision, state_dict=state, output_loading_info=True, dtype=torch.float32, **options
            )
    except RuntimeError as error:  # the library itself raises for misshaped tensors
        message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:300]
        raise WeightsError(f"the checkpoint does not fit the network: {message}", where=where) from error
    for what, names in (
        ("Missing", loading_info["missing_keys"]),
        ("Unexpected", loading_info["unexpected_keys"]),
        ("Misshaped", [name for name, *_ in loading_info["mismatched_keys"]]),
    ):
        if names:
            listed = ", ".join(sorted(names)[:3])
            raise WeightsError(
                f"the checkpoint does not fit the network: {what} key(s) {listed} ({len(names)} in all)", where=where
            )
    if loading_info["error_msgs"]:
        raise WeightsError(
            f"the checkpoint does not fit the network: {loading_info['error_msgs'][0][:300]}", where=where
        )
    loaded: nn.Module = network
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Run without the library's progress bars and reports: any problem becomes one error."""
    talk: Any = library_logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def _published_input(spec: EncoderSpec) -> str:
    """Return the content of the folder's preprocessor_config.json, for the error about a missing `input`."""
    path = spec.weights.located().parent / "preprocessor_config.json"  # type: ignore[union-attr]  # load has checked
    if not path.is_file():
        return "no preprocessor_config.json is next to the checkpoint; see its model card."
    names = ("size", "crop_size", "do_center_crop", "resample", "rescale_factor", "image_mean", "image_std")
    return ", ".join(f"{name} {found[name]}" for found in [read_config(path)] for name in names if name in found)
