"""EfficientNet-lite0, 1 and 2: timm's network with the weights of installed packages.

The packages' own code is never imported. Their checkpoints use the layer names of the reference implementation (Tan & Le 2019;
TensorFlow's SAME padding, BatchNorm eps 1e-3, ReLU6), and timm's `tf_efficientnet_lite*` is that network.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import timm
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.checkpoint import read_checkpoint
from fmaudit_core.encoders.convolutional import slice_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import load_strictly

VARIANTS: Final = ("lite0", "lite1", "lite2")
_FIRST_BLOCK: Final = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_TOP: Final = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def load(spec: EncoderSpec, device: str) -> Encoder:
    """Load the adapter: the 1280-d mean-pooled features before the classifier.

    Raises
    ------
    SpecError
        The variant is unknown, or the spec lacks weights or input.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.variant not in VARIANTS or spec.weights is None or spec.input is None:
        raise SpecError(f"efficientnet needs weights, input and a variant of {', '.join(VARIANTS)}.", where=spec.name)
    network = timm.create_model(f"tf_efficientnet_{spec.variant}", pretrained=False, num_classes=0)
    path = spec.weights.verified()
    load_strictly(network, timm_names(read_checkpoint(path), network), where=path.name)
    return slice_encoder(folded(network), spec, spec.input, device)


def folded(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network with every batch norm folded into the convolution before it.

    In a frozen network the two are one linear map: features change by rounding only (1e-5), and a CPU encodes a third more
    slices.
    """
    network.eval()
    blocks: Any = [block for group in cast("Any", network.blocks) for block in group]
    _fold(network, ("conv_stem", "bn1"), ("conv_head", "bn2"))
    _fold(blocks[0], ("conv_dw", "bn1"), ("conv_pw", "bn2"))
    for block in blocks[1:]:
        _fold(block, ("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    return network


def _fold(module: torch.nn.Module, *pairs: tuple[str, str]) -> None:
    for conv, norm in pairs:
        normalisation: Any = getattr(module, norm)
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), normalisation))
        setattr(module, norm, torch.nn.Sequential(normalisation.drop, normalisation.act))


def timm_names(state: dict[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Rename tensors from the reference naming to timm's; the classifier is left out.

    Raises
    ------
    WeightsError
        A name does not belong to an EfficientNet-lite.
    """
    blocks: Any = network.blocks
    stages = [f"blocks.{stage}.{index}" for stage, group in enumerate(blocks) for index in range(len(group))]
    mapped = {}
    for name, tensor in state.items():
        if name.startswith("_fc."):
            continue
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        layer, rest = (block[2], block[3]) if block else name.split(".", 1)
        names = _TOP if block is None else _FIRST_BLOCK if block[1] == "0" else _OTHER_BLOCKS
        if layer not in names or (block and int(block[1]) >= len(stages)):
            raise WeightsError(f"the checkpoint holds {name}, which is not part of this EfficientNet.")
        prefix = f"{stages[int(block[1])]}." if block else ""
        mapped[f"{prefix}{names[layer]}.{rest}"] = tensor
    return mapped
