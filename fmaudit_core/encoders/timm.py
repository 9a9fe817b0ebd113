"""Any image model of timm from a local checkpoint in timm's own naming: its pooled features before the classifier."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from fmaudit_core.encoders.checkpoint import read_checkpoint
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import TorchEncoder, load_strictly, needs_dim, needs_input


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Load the adapter: the features of `create_model(variant, num_classes=0)`, not normalised.

    Raises
    ------
    SpecError
        The variant is not a model of timm, or weights, input or dim are missing or differ.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.weights is None or not timm.is_model(spec.variant):
        raise SpecError("timm needs weights, and `variant` must be the name of a timm model.", where=spec.name)
    network: Any = timm.create_model(spec.variant, pretrained=False, num_classes=0)
    known = network.pretrained_cfg
    inputs = needs_input(
        spec,
        f"input: {{size_px: {known['input_size'][-1]}, resize: {known['interpolation']}, "
        f"mean: {list(known['mean'])}, std: {list(known['std'])}}}",
    )
    needs_dim(spec, int(getattr(network, "head_hidden_size", None) or network.num_features))
    _takes(network, inputs.size_px, spec)
    path = spec.weights.verified()
    heads = _classifiers(known)
    load_strictly(network, read_checkpoint(path, wanted=lambda name: not name.startswith(heads)), where=path.name)
    return TorchEncoder(network, spec, inputs, device)


def _classifiers(known: Any) -> tuple[str, ...]:
    """Return the prefixes of the classifier's tensors, which are left out."""
    named = known.get("classifier") or ()
    return tuple(f"{one}." for one in ((named,) if isinstance(named, str) else named))


def _takes(network: nn.Module, size_px: int, spec: EncoderSpec) -> None:
    patches: Any = getattr(network, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    if size is not None and getattr(patches, "strict_img_size", False) and set(size) != {size_px}:
        raise SpecError(f"{spec.variant} takes slices of {size[0]} px only, not {size_px}.", where=spec.name)
