"""Merlin (Blankemeier et al. 2024): the image tower, a 3D ResNet-152, from the published checkpoint.

Its preprocessing is MONAI's: RAS, 1.5 x 1.5 x 3 mm from the first voxel, -1000 to 1000 HU mapped to 0..1, padded or cropped
to 224 x 224 x 160 (`ImageTransforms` of StanfordMIMI/Merlin).
"""

from __future__ import annotations

from typing import Final

from fmaudit_core.encoders.checkpoint import read_part
from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.i3_resnet import DIM, VolumeBackbone, built
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.volume import Grid

#: the input it was trained on
GRID: Final = Grid(
    shape_zyx=(160, 224, 224),
    orientation="RAS",
    spacing_zyx_mm=(3.0, 1.5, 1.5),
    anchor="first_voxel",
    pad_hu=-1000,
)
_BLACK_HU, _WHITE_HU = -1000.0, 1000.0
_TOWER: Final = "encode_image.i3_resnet."
#: heads of the tower that the embedding does not pass through
_HEADS: Final = ("classifier.", "contrastive_head.")


def load(spec: EncoderSpec, device: str) -> VolumeBackbone:
    """Load the adapter: the 2048-d mean-pooled features of the whole volume.

    Raises
    ------
    SpecError
        The spec has no weights, or its view differs from the training view.
    WeightsError
        The checkpoint is missing, has another checksum, or does not fit strictly.
    """
    if spec.weights is None or spec.dim != DIM:
        raise SpecError(f"merlin needs weights and `dim: {DIM}`.", where=spec.name)
    if spec.view.volume != GRID:
        raise SpecError(
            "merlin needs the whole volumes that it was trained on.",
            where=spec.name,
            fix="Copy `view` from the shipped spec: fmaudit encoders add merlin.",
        )
    path = spec.weights.verified()
    network = built(read_part(path, _TOWER, _HEADS), where=path.name)
    return VolumeBackbone(network, spec, device, black_hu=_BLACK_HU, white_hu=_WHITE_HU)
