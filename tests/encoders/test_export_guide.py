"""The guide to exporting 3D encoders: its programs are run, smaller, and the files give what the networks give."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.check import check_encoder
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.registry import Registry, shipped_specs
from fmaudit_core.encoders.spec import load_spec

GUIDE = Path(__file__).parents[2] / "docs/how-to/export-a-3d-encoder.md"
#: (text of the program that tells it, sizes made smaller, the file it writes, shape of a volume)
PROGRAMS = [
    ("SegResEncoder(", {"96, 320, 320": "16, 32, 32", "init_filters=32": "init_filters=4"}, "ct_fm.ts", (16, 32, 32)),
    ("Conv3d(1, 64", {"192, 192, 192": "12, 14, 16", "64": "4", "128": "8"}, "theirs.onnx", (12, 14, 16)),
    ("timm.create_model", {"64, 224, 224": "4, 32, 32"}, "slices.ts", (4, 32, 32)),
]


@pytest.mark.parametrize(("named", "smaller", "file", "shape"), PROGRAMS)
def test_a_program_of_the_guide_exports_what_its_network_gives(tmp_path, monkeypatch, named, smaller, file, shape):
    program = next(block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if named in block)
    for large, small in smaller.items():
        assert large in program
        program = program.replace(large, small)
    monkeypatch.chdir(tmp_path)
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(program, scope)
    network = scope["ForAudit"](scope["network"]).eval()
    hu = np.random.default_rng(0).integers(-1500, 2500, (2, shape[0], 1, *shape[1:])).astype(np.int16)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(hu.swapaxes(1, 2).astype(np.float32))).numpy()
    raw = {
        "name": "theirs", "adapter": "exported", "variant": "onnx" if file.endswith("onnx") else "torchscript",
        "weights": {"path": file, "sha256": sha256_of(tmp_path / file)}, "dim": wanted.shape[1],
        "view": {"values": "int16", "volume": {"shape_zyx": list(shape), "spacing_zyx_mm": [8.0, 8.0, 8.0]}},
    }  # fmt: skip
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(raw))
    spec = load_spec(tmp_path / "theirs.yaml")
    assert np.abs(load_encoder(spec, "cpu").encode(hu) - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert check_encoder(spec, device="cpu").problems == []


def test_the_specs_of_the_guide_are_valid(tmp_path):
    specs = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(specs) == 3
    for text in specs:
        (tmp_path / "spec.yaml").write_text(text.replace("sha256: ...", f"sha256: '{'0' * 64}'"))
        spec = load_spec(tmp_path / "spec.yaml")
        if spec.view.of_patches:
            assert spec.has_slices
            continue
        shipped = load_spec(shipped_specs()[spec.name])
        if spec.view.volume is not None:
            assert spec.view == shipped.view
        assert spec.dim == shipped.dim


def test_a_shipped_spec_of_an_export_says_what_to_export_and_takes_the_file(tmp_path):
    registry = Registry(tmp_path / "encoders")
    with pytest.raises(Exception, match=r"exported from project-lighter/.*Export ct_fm\.ts in the encoder's own"):
        registry.add(shipped_specs()["ct_fm"])
    (tmp_path / "ct_fm.ts").write_bytes(b"a program")
    spec = registry.add(shipped_specs()["ct_fm"], weights=tmp_path)
    assert spec.weights is not None
    assert spec.weights.sha256_from == "first_seen"
