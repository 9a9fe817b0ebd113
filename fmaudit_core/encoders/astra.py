"""The Astra (Merlin-derived) 3D backbone: a CT-native ResNet-152 with kernels inflated to three dimensions.

Network and preprocessing follow the publications (I3ResNet: StanfordMIMI/Merlin; weights and the preprocessing "chest": Astra). A
third party distributes the checkpoint in three packages; the spec's SHA-256 verifies the joined bytes.
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
#: the input it was trained on: the body resized to 224 x 224 x 160 in RAS
CHEST: Final = Grid(shape_zyx=(160, 224, 224), orientation="RAS", crop_above_hu=-1000)
#: HU mapped to 0 and 1
_BLACK_HU, _WHITE_HU = -1000.0, 200.0
_OUT_OF_SPEC: Final = "out of spec"
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


class AstraEncoder:
    """The frozen backbone on its device."""

    def __init__(self, network: I3ResNet, spec: EncoderSpec, device: str) -> None:
        placement = placed(spec, device)
        self.device = str(placement)
        #: number of parameters of the network as loaded
        self.n_parameters = sum(one.numel() for one in network.parameters())
        self._place, self._dtype = placement.device, placement.dtype
        self._network = folded(network).requires_grad_(False).to(self._place)

    @torch.inference_mode()
    def encode(self, slices: SliceArray) -> npt.NDArray[np.float32]:
        """Embed volumes, (n, slices, 1, rows, columns) int16 HU in RAS, as (n, 2048) float32."""
        with torch.autocast(self._place.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            out = self._network(self.prepared(slices))
        found: npt.NDArray[np.float32] = out.float().cpu().numpy()
        return found

    def prepared(self, slices: SliceArray) -> torch.Tensor:
        """Return the input on the device, (n, 3, z, x, y) float in 0..1, with the in-plane axes in the order of training."""
        hu = on_device(slices, self._place).to(torch.float32)
        grey = hu.sub_(_BLACK_HU).div_(_WHITE_HU - _BLACK_HU).clamp_(0.0, 1.0)
        return grey.permute(0, 2, 1, 4, 3).expand(-1, 3, -1, -1, -1)


def load(spec: EncoderSpec, device: str) -> AstraEncoder:
    """Load the adapter: the 2048-d mean-pooled features of the whole volume.

    Raises
    ------
    SpecError
        The spec has no weights, or its view differs from the training view without a note in its title.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.weights is None or spec.dim != DIM:
        raise SpecError(f"astra needs weights and `dim: {DIM}`.", where=spec.name)
    grid = spec.view.volume
    if grid is None or grid.model_copy(update={"shape_zyx": CHEST.shape_zyx}) != CHEST:
        raise SpecError(
            "astra needs the whole volumes that it was trained on.",
            where=spec.name,
            fix="Set `view: {values: int16, volume: {shape_zyx: [160, 224, 224], orientation: RAS, crop_above_hu: -1000}}`.",
        )
    if grid != CHEST and _OUT_OF_SPEC not in spec.title.lower():
        raise SpecError(
            "this is not the size the backbone was trained on (160 x 224 x 224).",
            where=spec.name,
            fix=f"Put `{_OUT_OF_SPEC}` in its title, so that findings are not attributed to the published encoder.",
        )
    with torch.device(
        "meta"
    ):  # all tensors come from the checkpoint: random initialisation would take longer than reading it
        network = I3ResNet()
    network.to_empty(device="cpu")
    load_strictly(network, read_parts(spec.weights), where=str(spec.weights.file))
    return AstraEncoder(network, spec, device)


def read_parts(weights: Weights) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint in parts, verified; a pickle is opened for tensors only, never for code.

    Raises
    ------
    WeightsError
        A part is missing, the whole has another checksum, or it does not hold tensors only.
    """
    joined = io.BytesIO(b"".join(path.read_bytes() for path in weights.verified_parts()))
    try:
        found: Any = torch.load(joined, map_location="cpu", weights_only=True)
        return cast("dict[str, torch.Tensor]", found["state_dict"])
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise WeightsError(
            f"the checkpoint cannot be read safely ({str(error).splitlines()[0][:160]}).", where=str(weights.file)
        ) from error


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
