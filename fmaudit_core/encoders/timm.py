"""Any image model of timm from a local checkpoint in timm's own naming: its pooled features before the classifier."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.checkpoint import read_part
from fmaudit_core.encoders.convolutional import slice_encoder
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import EncoderSpec, Input, TimmOptions
from fmaudit_core.encoders.torch_network import load_strictly, needs_dim, needs_input


def load(spec: EncoderSpec, device: str) -> Encoder:
    """Load the adapter: the features of `create_model(variant, num_classes=0, **options)`, not normalised.

    Raises
    ------
    SpecError
        The variant is not a model of timm, the options do not suit it, or weights, input or dim are missing or differ.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.weights is None or not timm.is_model(spec.variant):
        raise SpecError("timm needs weights, and `variant` must be the name of a timm model.", where=spec.name)
    options = spec.options or TimmOptions()
    network = _built(spec, options)
    known = network.pretrained_cfg
    inputs = needs_input(
        spec,
        f"input: {{size_px: {known['input_size'][-1]}, resize: {known['interpolation']}, "
        f"mean: {list(known['mean'])}, std: {list(known['std'])}}}",
    )
    needs_dim(spec, int(getattr(network, "head_hidden_size", None) or network.num_features))
    _takes(network, inputs, options, spec)
    path = spec.weights.verified()
    load_strictly(network, read_part(path, options.prefix, _classifiers(known)), where=path.name)
    return slice_encoder(network, spec, inputs, device)


def _built(spec: EncoderSpec, options: TimmOptions) -> Any:
    try:
        return timm.create_model(spec.variant, pretrained=False, num_classes=0, **options.arguments())
    except (
        TypeError,
        ValueError,
        AssertionError,
    ) as error:  # an option that this network does not have, or cannot take
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SpecError(f"timm cannot build {spec.variant} with these `options`: {message}", where=spec.name) from error


def _classifiers(known: Any) -> tuple[str, ...]:
    """Return the prefixes of the classifier's tensors, which are left out."""
    named = known.get("classifier") or ()
    return tuple(f"{one}." for one in ((named,) if isinstance(named, str) else named))


def _takes(network: nn.Module, inputs: Input, options: TimmOptions, spec: EncoderSpec) -> None:
    patches: Any = getattr(network, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    if size is not None and getattr(patches, "strict_img_size", False) and set(size) != {inputs.size_px}:
        raise SpecError(f"{spec.variant} takes slices of {size[0]} px only, not {inputs.size_px}.", where=spec.name)
    channels = options.in_chans or 3
    if len(inputs.mean) != channels:
        raise SpecError(
            f"the network has {channels} channels, but `input` has {len(inputs.mean)} values of mean and std.",
            where=spec.name,
        )
