"""The Astra (Merlin-derived) 3D backbone: a CT-native ResNet-152 with kernels inflated to three dimensions.

Preprocessing follows the publication ("chest"). A third party distributes the checkpoint in three packages; the spec's SHA-256
verifies the joined bytes.
"""

from __future__ import annotations

import io
from typing import Any, Final, cast

import torch

from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.i3_resnet import DIM, VolumeBackbone, built
from fmaudit_core.encoders.spec import EncoderSpec, Weights
from fmaudit_core.imaging.volume import Grid

#: the input it was trained on: the body resized to 224 x 224 x 160 in RAS
CHEST: Final = Grid(shape_zyx=(160, 224, 224), orientation="RAS", crop_above_hu=-1000)
#: HU mapped to 0 and 1
_BLACK_HU, _WHITE_HU = -1000.0, 200.0
_OUT_OF_SPEC: Final = "out of spec"


def load(spec: EncoderSpec, device: str) -> VolumeBackbone:
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
    network = built(read_parts(spec.weights), where=str(spec.weights.file))
    return VolumeBackbone(network, spec, device, black_hu=_BLACK_HU, white_hu=_WHITE_HU)


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
