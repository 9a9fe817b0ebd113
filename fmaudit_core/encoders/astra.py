"""The Astra (Merlin-derived) 3D backbone: a CT-native ResNet-152 whose kernels were inflated to three dimensions.

Network and preprocessing as published (I3ResNet: StanfordMIMI/Merlin; weights and the preprocessing "chest": Astra). The
checkpoint comes in three packages by a third party, whose joined bytes the spec's SHA-256 proves.
"""

from __future__ import annotations

import io
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.preprocessing import on_device
from fmaudit_core.encoders.spec import EncoderSpec, Weights
from fmaudit_core.encoders.torch_network import load_strictly, placed
from fmaudit_core.imaging.volume import Grid
from fmaudit_core.imaging.window import SliceArray

DIM: Final = 2048
#: the input it was trained on: the body squashed to 224 x 224 x 160 in RAS
CHEST: Final = Grid(shape_zyx=(160, 224, 224), orientation="RAS", crop_above_hu=-1000)
#: HU that become 0 and 1
_BLACK_HU, _WHITE_HU = -1000.0, 200.0
_OUT_OF_SPEC: Final = "out of spec"
_BLOCKS: Final = (3, 8, 36, 3)
_EXPANSION: Final = 4


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions beside a shortcut; the middle one strides."""

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
        """(n, channels, z, x, y) -> (n, 4 width, ...), smaller by the stride."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


class I3ResNet(nn.Module):
    """(n, 1, z, x, y) in 0..1 -> (n, 2048): the mean of the last stage's features over the volume.

    Parameters
    ----------
    blocks : four ints
        Bottlenecks per stage; 152 layers unless given otherwise.
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
        """Features averaged over what is left of the volume."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        for index in range(len(_BLOCKS)):
            x = getattr(self, f"layer{index + 1}")(x)
        return x.mean(dim=(2, 3, 4))


class AstraEncoder:
    """The frozen backbone on its device."""

    def __init__(self, network: I3ResNet, spec: EncoderSpec, device: str) -> None:
        placement = placed(spec, device)
        self.device = str(placement)
        #: parameters of the network as it is loaded
        self.n_parameters = sum(one.numel() for one in network.parameters())
        self._place, self._dtype = placement.device, placement.dtype
        self._network = folded(network).requires_grad_(False).to(self._place)

    @torch.inference_mode()
    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """(n, slices, 1, rows, columns) int16 HU, RAS -> (n, 2048) float32."""
        with torch.autocast(self._place.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            out = self._network(self.prepared(slices))
        found: npt.NDArray[np.float32] = out.float().cpu().numpy()
        return found

    def prepared(self, slices: SliceArray) -> torch.Tensor:
        """(n, 3, z, x, y) float in 0..1 on the device: the network was trained on the plane's axes in this order."""
        hu = on_device(slices, self._place).to(torch.float32)
        grey = hu.sub_(_BLACK_HU).div_(_WHITE_HU - _BLACK_HU).clamp_(0.0, 1.0)
        return grey.permute(0, 2, 1, 4, 3).expand(-1, 3, -1, -1, -1)


def load(spec: EncoderSpec, device: str) -> AstraEncoder:
    """Adapter entry: the 2048-d mean-pooled features of the whole volume.

    Raises
    ------
    SpecError
        The spec has no weights or another view than the backbone was trained on without saying so in its title.
    WeightsError
        The checkpoint is missing, another one, or does not fit strictly.
    """
    if spec.weights is None or spec.dim != DIM:
        raise SpecError(f"astra needs weights and `dim: {DIM}`.", where=spec.name)
    grid = spec.view.volume
    if grid is None or grid.model_copy(update={"shape_zyx": CHEST.shape_zyx}) != CHEST:
        raise SpecError(
            "astra needs whole volumes as it was trained on.",
            where=spec.name,
            fix="Set `view: {values: int16, volume: {shape_zyx: [160, 224, 224], orientation: RAS, crop_above_hu: -1000}}`.",
        )
    if grid != CHEST and _OUT_OF_SPEC not in spec.title.lower():
        raise SpecError(
            "this is not the size the backbone was trained on (160 x 224 x 224).",
            where=spec.name,
            fix=f"Say `{_OUT_OF_SPEC}` in its title, so that no finding is taken for the published encoder's.",
        )
    with torch.device(
        "meta"
    ):  # every tensor is the checkpoint's: drawing random ones would take longer than reading it
        network = I3ResNet()
    network.to_empty(device="cpu")
    load_strictly(network, read_parts(spec.weights), where=str(spec.weights.file))
    return AstraEncoder(network, spec, device)


def read_parts(weights: Weights) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint in parts, verified; a pickle is opened for tensors only, never for code.

    Raises
    ------
    WeightsError
        A part is missing, the whole is another one, or holds something else than tensors.
    """
    joined = io.BytesIO(b"".join(path.read_bytes() for path in weights.verified_parts()))
    try:
        found: Any = torch.load(joined, map_location="cpu", weights_only=True)
        return cast("dict[str, torch.Tensor]", found["state_dict"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(
            f"the checkpoint cannot be read safely ({str(error).splitlines()[0][:160]}).", where=str(weights.file)
        ) from error


def folded(network: I3ResNet) -> I3ResNet:
    """The network in eval mode, every batch normalisation folded into the convolution before it: rounding apart, the same."""
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
    return network.eval()  # what was put in above, too
