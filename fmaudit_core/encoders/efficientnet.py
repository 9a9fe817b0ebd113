"""EfficientNet-lite0, 1 and 2: timm's network, the installed packages' weights.

The packages' own code is never imported: their checkpoints name layers as the reference implementation does (Tan &
Le 2019; TensorFlow's SAME padding, BatchNorm eps 1e-3, ReLU6), and timm's `tf_efficientnet_lite*` is that network.
"""

from __future__ import annotations

import re
from typing import Any, Final

import timm
import torch

from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import TorchEncoder, load_strictly, read_checkpoint

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


def load(spec: EncoderSpec, device: str) -> TorchEncoder:
    """Adapter entry: the 1280-d mean-pooled features before the classifier.

    Raises
    ------
    SpecError
        The variant is unknown, or the spec lacks weights or input.
    WeightsError
        The checkpoint is missing, another one, or does not fit strictly.
    """
    if spec.variant not in VARIANTS or spec.weights is None or spec.input is None:
        raise SpecError(f"efficientnet needs weights, input and a variant of {', '.join(VARIANTS)}.", where=spec.name)
    network = timm.create_model(f"tf_efficientnet_{spec.variant}", pretrained=False, num_classes=0)
    path = spec.weights.verified()
    load_strictly(network, timm_names(read_checkpoint(path), network), where=path.name)
    return TorchEncoder(network, spec, spec.input, device)


def timm_names(state: dict[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of the reference naming under timm's names; the classifier is left out.

    Raises
    ------
    WeightsError
        A name is not of an EfficientNet-lite.
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
            raise WeightsError(f"the checkpoint holds {name}, which is not of this EfficientNet.")
        prefix = f"{stages[int(block[1])]}." if block else ""
        mapped[f"{prefix}{names[layer]}.{rest}"] = tensor
    return mapped
