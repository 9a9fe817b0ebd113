"""Published layouts load strictly and give what the upstream library gives; whatever does not fit is refused."""

from __future__ import annotations

import hashlib
import subprocess

import numpy as np
import pytest
import torch

from fmaudit_core.config import ExtractionSection
from fmaudit_core.encoders import medimageinsight
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.checksums import checkpoint_sha256
from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.extract import extract
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from tests.encoders import checkpoints
from tests.encoders.checkpoints import Case

CASES = {
    "medimageinsight": checkpoints.medimageinsight,
    "medimageinsight_legacy": lambda folder: checkpoints.medimageinsight(folder, legacy=True),
    "medsiglip": checkpoints.siglip,
    "medsiglip_sharded": lambda folder: checkpoints.siglip(folder, sharded=True),
    "biomedclip": checkpoints.biomedclip,
    "timm_vit": checkpoints.timm_model,
    "timm_resnet": lambda folder: checkpoints.timm_model(folder, "test_resnet"),
    "torchscript": checkpoints.torchscript,
    "onnx": checkpoints.onnx_graph,
}
STRICT = [name for name in CASES if name not in {"torchscript", "onnx"}]


def slices(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def sharded_spec(case: Case, **changes):
    if case.path.suffix == ".json":
        changes["weights"] = {"sha256": checkpoint_sha256(case.path)} | changes.get("weights", {})
    return case.spec(view={"windows": ["lung", "pe", "mediastinal"]}, **changes)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_equal_the_upstream_library(tmp_path, name):
    case = CASES[name](tmp_path)
    images = slices(3, case.raw["input"]["size_px"])
    encoder = load_encoder(sharded_spec(case), "cpu")
    got, want = encoder.encode(images), case.wanted(images)
    assert got.shape == want.shape == (3, case.raw["dim"])
    assert np.abs(got - want).max() < 1e-5
    assert np.abs(want - want[0]).max() > 1e-3  # the reference tells slices apart
    assert np.array_equal(got, encoder.encode(images))


class Slices:
    """A source of drawn slices, of the spec's size."""

    def __init__(self, size):
        self.size = size

    def read(self, study_id, view):
        return slices(4, self.size, seed=int(study_id))


def refused(case, tmp_path, match, kind=EncoderError, **changes):
    """Loading through the real extraction fails, and nothing is published."""
    out = tmp_path / "out" / "one.duckdb"
    with pytest.raises(kind, match=match):
        extract(
            sharded_spec(case, **changes),
            store=Slices(case.raw["input"]["size_px"]),
            studies=["1", "2"],
            work=tmp_path / "work",
            out=out,
            section=ExtractionSection(device="cpu"),
            version="v",
        )
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize("how", ["missing", "extra", "misshaped"])
@pytest.mark.parametrize("name", STRICT)
def test_a_checkpoint_that_does_not_fit_strictly_is_refused(tmp_path, name, how):
    case = CASES[name](tmp_path)
    state = dict(case.state)
    if how == "missing":
        del state[case.tensor]
    elif how == "extra":
        state[case.tensor + "_more"] = torch.ones(2)
    else:
        state[case.tensor] = state[case.tensor].repeat(2, *[1] * (state[case.tensor].ndim - 1))
    case.save(state, case.path)
    refused(case, tmp_path, "does not fit the network", WeightsError)


@pytest.mark.parametrize("name", ["medimageinsight", "medsiglip", "biomedclip", "timm_vit"])
def test_a_missing_tensor_is_noticed_wherever_it_is(tmp_path, name):
    """No tensor of the image tower is optional: a network half random would be found by nothing later."""
    case = CASES[name](tmp_path)
    texts = ("lang", "text", "logit", "head.")  # other towers, and timm's classifier
    tower = [one for one in case.state if not one.startswith(texts)]
    assert len(tower) > 30
    for one in tower[:: len(tower) // 12]:
        case.save({key: tensor for key, tensor in case.state.items() if key != one}, case.path)
        with pytest.raises(WeightsError, match="does not fit the network"):
            load_encoder(sharded_spec(case), "cpu")


@pytest.mark.parametrize("name", STRICT)
def test_a_tensor_of_no_tower_is_refused(tmp_path, name):
    case = CASES[name](tmp_path)
    case.save({**case.state, "stowaway": torch.ones(2)}, case.path)
    refused(case, tmp_path, "stowaway", WeightsError)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_sha256_is_refused(tmp_path, name):
    refused(
        CASES[name](tmp_path), tmp_path, "not the one named in the spec", WeightsError, weights={"sha256": "0" * 64}
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_off_file_is_refused(tmp_path, name, kept):
    case = CASES[name](tmp_path)
    path = max(tmp_path.glob("model-*.safetensors"), default=case.path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(case, tmp_path, "cannot be read safely|not a complete TorchScript|cannot be loaded", WeightsError)


class Code:
    """Runs when a pickle of it is opened carelessly."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return subprocess.run, (["touch", str(self.mark)],)


@pytest.mark.parametrize("name", [name for name in CASES if name != "medsiglip_sharded"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path, name):
    case = CASES[name](tmp_path)
    torch.save({case.tensor: Code(tmp_path / "ran")}, case.path)
    refused(case, tmp_path, "cannot be read safely|holds no TorchScript|cannot be loaded|cannot be read", WeightsError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", CASES)
def test_another_dimension_is_told(tmp_path, name):
    refused(CASES[name](tmp_path), tmp_path, "dim is 7, but", SpecError, dim=7)


@pytest.mark.parametrize("name", ["medsiglip", "biomedclip"])
def test_a_changed_config_is_noticed_where_the_spec_proves_it(tmp_path, name):
    case = CASES[name](tmp_path)
    config = next(tmp_path.glob("*config.json"))
    proved = hashlib.sha256(config.read_bytes()).hexdigest()
    load_encoder(case.spec(weights={"config_sha256": proved}), "cpu")
    config.write_text(config.read_text() + "\n")
    refused(case, tmp_path, "the config is not the one", WeightsError, weights={"config_sha256": proved})
    config.unlink()
    refused(case, tmp_path, "config is not next to", WeightsError)


def test_a_config_never_makes_the_library_fetch_weights_of_its_own(tmp_path):
    case = checkpoints.biomedclip(tmp_path)
    config = tmp_path / "open_clip_config.json"
    config.write_text(config.read_text().replace('"timm_model_pretrained": false', '"timm_model_pretrained": true'))
    images = slices(2, 224)
    assert np.abs(load_encoder(sharded_spec(case), "cpu").encode(images) - case.wanted(images)).max() < 1e-5
    config.write_text(config.read_text().replace('"image_size"', '"colour"'))
    with pytest.raises(WeightsError, match="does not describe an image tower"):
        load_encoder(sharded_spec(case), "cpu")


def test_the_text_tower_is_not_read(tmp_path, monkeypatch):
    """Of the two-tower file of MedImageInsight only the image tower's bytes are touched."""
    case = checkpoints.medimageinsight(tmp_path)
    read = []
    from fmaudit_core.encoders import checkpoint

    class Spy:
        def __init__(self, opened):
            self.opened = opened

        def __enter__(self):
            self.file = self.opened.__enter__()
            return self

        def __exit__(self, *error):
            return self.opened.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

    real = checkpoint.safe_open
    monkeypatch.setattr(checkpoint, "safe_open", lambda *args, **kwargs: Spy(real(*args, **kwargs)))
    load_encoder(case.spec(), "cpu")
    assert set(read) == {name for name in case.state if name.startswith("image_")}


def test_a_block_that_is_missing_whole_is_noticed(tmp_path):
    """The architecture is the variant's, not what the file happens to hold."""
    case = checkpoints.medimageinsight(tmp_path)
    case.save({name: one for name, one in case.state.items() if ".blocks.2.1." not in name}, case.path)
    with pytest.raises(WeightsError, match="does not fit the network"):
        load_encoder(case.spec(), "cpu")


def test_mixed_layouts_are_refused(tmp_path):
    case = checkpoints.medimageinsight(tmp_path)
    case.save({**case.state, "visual.convs.0.proj.bias": torch.ones(32)}, case.path)
    with pytest.raises(WeightsError, match="not MedImageInsight's"):
        load_encoder(case.spec(), "cpu")


def test_the_published_medimageinsight_has_402_tensors_and_360_million_parameters():
    with torch.device("meta"):
        tower = medimageinsight.ImageTower(medimageinsight.ARCHITECTURES[""])
        other = checkpoints.florence(medimageinsight.ARCHITECTURES[""])
    names = {f"image_encoder.{checkpoints.published_davit_name(name)}" for name in other.state_dict()}
    names |= {"image_encoder.norms.weight", "image_encoder.norms.bias", "image_projection"}
    assert len(names) == 403  # 402 of the encoder, and the projection
    mapped = medimageinsight.tower_names(dict.fromkeys(names, torch.ones(1)))
    assert set(mapped) == set(tower.state_dict())
    davit = sum(one.numel() for one in tower.davit.parameters())
    assert davit == pytest.approx(360.6e6, rel=1e-3)


def test_an_index_and_its_shards_must_agree(tmp_path):
    case = checkpoints.siglip(tmp_path, sharded=True)
    text = case.path.read_text()
    case.path.write_text(text.replace('"logit_scale"', '"logit_other"'))
    with pytest.raises(WeightsError, match="disagree about the tensor logit"):
        load_encoder(sharded_spec(case), "cpu")
    case.path.write_text(text.replace("model-00001", "../model-00001"))
    with pytest.raises(WeightsError, match="is in another folder"):
        checkpoint_sha256(case.path)
    case.path.write_text(text.replace("model-00001", "model-00009"))
    with pytest.raises(WeightsError, match="is missing"):
        checkpoint_sha256(case.path)
    case.path.write_text("[]")
    with pytest.raises(WeightsError, match="not the index"):
        checkpoint_sha256(case.path)


def test_the_sha256_of_shards_is_what_the_shell_says(tmp_path):
    checkpoints.siglip(tmp_path, sharded=True)
    shell = "sha256sum *.safetensors *.safetensors.index.json | LC_ALL=C sort -k2 | sha256sum"
    said = subprocess.run(shell, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()[0]
    assert checkpoint_sha256(tmp_path / "model.safetensors.index.json") == said


def test_a_changed_shard_is_noticed(tmp_path):
    case = checkpoints.siglip(tmp_path, sharded=True)
    spec = sharded_spec(case)
    shard = min(tmp_path.glob("model-*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(WeightsError, match="not the one named in the spec"):
        load_encoder(spec, "cpu")


def test_biomedclip_equals_transformers_own_vit(tmp_path):
    """A third implementation: the attention's joint matrix split in three, LayerNorm eps 1e-6."""
    import transformers

    case = checkpoints.biomedclip(tmp_path)
    tower = {k.removeprefix("visual.trunk."): v for k, v in case.state.items() if k.startswith("visual.trunk.")}
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, layer_norm_eps=1e-6
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    state = {
        "embeddings.cls_token": tower["cls_token"],
        "embeddings.position_embeddings": tower["pos_embed"],
        **{
            f"embeddings.patch_embeddings.projection.{end}": tower[f"patch_embed.proj.{end}"]
            for end in ("weight", "bias")
        },
        **{f"layernorm.{end}": tower[f"norm.{end}"] for end in ("weight", "bias")},
    }
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
    }
    for layer in range(12):
        for end in ("weight", "bias"):
            ours, theirs = f"blocks.{layer}.", f"layers.{layer}."
            for one, other in {**names, "mlp.fc2": "mlp.fc2"}.items():
                state[f"{theirs}{other}.{end}"] = tower[f"{ours}{one}.{end}"]
            for part, tensor in zip("qkv", tower[f"{ours}attn.qkv.{end}"].chunk(3), strict=True):
                state[f"{theirs}attention.{part}_proj.{end}"] = tensor
    model.load_state_dict(state)
    case.reference = lambda images: torch.nn.functional.normalize(
        model(images).last_hidden_state[:, 0] @ case.state["visual.head.proj.weight"].T, dim=-1
    )
    images = slices(2, 224)
    assert np.abs(load_encoder(case.spec(), "cpu").encode(images[:, :1].repeat(3, 1)) - case.wanted(
        images[:, :1].repeat(3, 1)
    )).max() < 1e-5  # fmt: skip


@pytest.mark.parametrize("name", ["medimageinsight", "medsiglip", "biomedclip"])
def test_the_papers_encoders_ship_as_they_are_published(name):
    spec = load_spec(shipped_specs()[name])
    dim, size, resize, antialias, fit = {
        "medimageinsight": (1024, 480, "bicubic", True, "squash"),
        "medsiglip": (1152, 448, "bilinear", False, "squash"),
        "biomedclip": (512, 224, "bicubic", True, "centre_crop"),
    }[name]
    assert (spec.dim, spec.input.size_px, spec.input.resize) == (dim, size, resize)
    assert (spec.input.antialias, spec.input.fit) == (antialias, fit)
    assert spec.needs_weights
    with pytest.raises(WeightsError, match=rf"{spec.published.hub} on the Hugging Face hub.*Gate: .*--weights PATH"):
        load_encoder(spec)
