"""The inflated 3D ResNet-152 of Merlin and Astra: a ResNet whose kernels were inflated to three dimensions.

The network follows its publication (I3ResNet: StanfordMIMI/Merlin).
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fmaudit_core.encoders.preprocessing import on_device
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import load_strictly, n_parameters, of_volumes_on, placed
from fmaudit_core.imaging.window import SliceArray

DIM: Final = 2048
_BLOCKS: Final = (3, 8, 36, 3)
_EXPANSION: Final = 4


class Bottleneck(nn.Module):
    """A residual block of 1x1x1, 3x3x3 and 1x1x1 convolutions with a shortcut; the middle convolution is strided."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out)
        changes = stride != 1 or channels != out
        self.downsample = (
            nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out)) if changes else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, z, x, y) to (n, 4 width, ...), reduced by the stride."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


class I3ResNet(nn.Module):
    """An inflated 3D ResNet, (n, 1, z, x, y) in 0..1 -> (n, 2048): the last stage's features averaged over the volume.

    Parameters
    ----------
    blocks : four ints
        Bottlenecks per stage; 152 layers by default.
    """

    def __init__(self, blocks: tuple[int, int, int, int] = _BLOCKS) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        channels = 64
        for stage, depth in enumerate(blocks):
            width = 64 * 2**stage
            made = []
            for index in range(depth):
                made.append(Bottleneck(channels, width, 2 if stage and not index else 1))
                channels = width * _EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features averaged over the remaining spatial positions."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        for index in range(len(_BLOCKS)):
            x = getattr(self, f"layer{index + 1}")(x)
        return x.mean(dim=(2, 3, 4))


class VolumeBackbone:
    """A frozen I3ResNet on its device.

    Parameters
    ----------
    black_hu, white_hu : HU mapped to 0 and 1
    """

    def __init__(self, network: I3ResNet, spec: EncoderSpec, device: str, *, black_hu: float, white_hu: float) -> None:
        self._black_hu, self._width_hu = black_hu, white_hu - black_hu
        self._placement = placed(spec, device)
        self.device = str(self._placement)
        #: number of parameters of the network as loaded
        self.n_parameters = n_parameters(network)
        self._network = of_volumes_on(folded(network), self._placement)

    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed volumes, (n, slices, 1, rows, columns) int16 HU in RAS, as (n, 2048) float32."""
        return self._placement.embedded(self._network, self.prepared(slices))

    def prepared(self, slices: SliceArray) -> torch.Tensor:
        """Return the input on the device, (n, 3, z, x, y) float in 0..1, with the in-plane axes in the order of training."""
        hu = on_device(slices, self._placement.device).to(torch.float32)
        grey = hu.sub_(self._black_hu).div_(self._width_hu).clamp_(0.0, 1.0)
        return grey.permute(0, 2, 1, 4, 3).expand(-1, 3, -1, -1, -1)


def built(state: dict[str, torch.Tensor], where: str) -> I3ResNet:
    """Return the network with the tensors of a checkpoint.

    Raises
    ------
    WeightsError
        They do not fit strictly.
    """
    # all tensors come from the checkpoint: random initialisation would take longer than reading it
    with torch.device("meta"):
        network = I3ResNet()
    network.to_empty(device="cpu")
    load_strictly(network, state, where=where)
    return network


def folded(network: I3ResNet) -> I3ResNet:
    """Return the network in eval mode with every batch norm folded into its convolution; results are equal up to rounding."""
    network.eval()
    for module in list(network.modules()):
        names = ("1", "2", "3") if isinstance(module, Bottleneck) else ("1",) if module is network else ()
        for name in names:
            conv, norm = getattr(module, f"conv{name}"), getattr(module, f"bn{name}")
            setattr(module, f"conv{name}", fuse_conv_bn_eval(conv, norm))
            setattr(module, f"bn{name}", nn.Identity())
        if isinstance(module, Bottleneck) and module.downsample is not None:
            conv, norm = cast("nn.Conv3d", module.downsample[0]), cast("nn.BatchNorm3d", module.downsample[1])
            module.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm))
    return network.eval()  # includes the modules replaced above
