"""Adapters: the library's own network, strictly loaded, frozen, the same twice."""

from __future__ import annotations

import hashlib
import importlib
import json

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.encoders.torch_network import TorchEncoder
from tests.encoders import checkpoints
from tests.encoders.checkpoints import Case

CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"},
}


def slices(n=5, size=224, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def lite0_on(runtime):
    return load_encoder(load_spec(shipped_specs()["efficientnet_lite0"]).model_copy(update={"runtime": runtime}), "cpu")


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def lite0(request):
    return lite0_on(request.param)


def test_two_passes_agree_and_a_batch_is_its_slices(lite0):
    both = lite0.encode(slices()), lite0.encode(slices())
    assert np.array_equal(*both)
    assert both[0].shape == (5, 1280)
    assert np.isfinite(both[0]).all()
    alone = np.concatenate([lite0.encode(one[None]) for one in slices()])
    cosine = (alone * both[0]).sum(1) / np.linalg.norm(alone, axis=1) / np.linalg.norm(both[0], axis=1)
    assert cosine.min() > 0.99999


@pytest.mark.parametrize(("variant", "runtime"), [("0", "torch"), ("0", "auto"), ("1", "auto"), ("2", "auto")])
def test_features_equal_the_packages_own_network(variant, runtime):
    """The reference: the class that ships with the weights, its classifier left off."""
    spec = load_spec(shipped_specs()[f"efficientnet_lite{variant}"]).model_copy(update={"runtime": runtime})
    package = importlib.import_module("efficientnet_lite_pytorch")
    model = package.EfficientNet.from_name(f"efficientnet-lite{variant}").eval()
    model.load_state_dict(torch.load(spec.weights.located(), weights_only=True))
    images = slices(2, spec.view.size_px)
    with torch.inference_mode():
        features = model.extract_features((torch.from_numpy(images).float() - 127) / 128)
        want = features.mean(dim=(2, 3)).numpy()
    got = load_encoder(spec, "cpu").encode(images)
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_every_encoder_is_frozen_and_in_eval_mode():
    lite0 = lite0_on("torch")
    assert isinstance(lite0, TorchEncoder)
    assert not any(module.training for module in lite0._network.modules())
    assert not any(one.requires_grad for one in lite0._network.parameters())


@pytest.fixture
def clip_folder(tmp_path):
    """A tiny open_clip model with random weights, as open_clip publishes one."""
    torch.manual_seed(0)
    config = dict(CLIP["model_cfg"])
    model = open_clip.CLIP(**{**config, "vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])})
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CLIP))
    return tmp_path, model.eval()


def clip_spec(folder, file="open_clip_pytorch_model.bin", **changes):
    sha256 = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    raw = {"name": "clip", "adapter": "open_clip", "dim": 16, "weights": {"path": file, "sha256": sha256}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(raw | changes))
    return load_spec(folder / "spec.yaml")


def test_the_image_tower_alone_equals_open_clip(clip_folder):
    folder, model = clip_folder
    images = slices(3, 32)
    mean, std = (torch.tensor(CLIP["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        want = model.encode_image((torch.from_numpy(images).float() / 255 - mean) / std, normalize=True).numpy()
    got = load_encoder(clip_spec(folder), "cpu").encode(images)
    assert np.abs(got - want).max() < 1e-6


def test_other_sizes_are_resized_and_one_channel_is_repeated(clip_folder):
    encoder = load_encoder(clip_spec(clip_folder[0]), "cpu")
    grey = slices(2, 48)[:, :1]
    assert np.allclose(encoder.encode(grey), encoder.encode(grey.repeat(3, axis=1)), atol=1e-6)


def spoil(state, how):
    if how == "missing":
        state.pop("visual.proj")
    elif how == "extra":
        state["visual.more"] = torch.zeros(1)
    else:
        state["visual.proj"] = torch.zeros(3, 3)
    return state


@pytest.mark.parametrize("how", ["missing", "extra", "misshaped"])
def test_a_checkpoint_that_does_not_fit_strictly_is_refused(clip_folder, how):
    folder, model = clip_folder
    torch.save(spoil(model.state_dict(), how), folder / "other.bin")
    with pytest.raises(WeightsError, match=r"other\.bin: the checkpoint does not fit the network"):
        load_encoder(clip_spec(folder, "other.bin"), "cpu")


def test_a_pickle_with_code_in_it_is_refused(clip_folder):
    folder, _ = clip_folder
    torch.save({"visual.proj": print}, folder / "code.bin")
    with pytest.raises(WeightsError, match="cannot be read safely"):
        load_encoder(clip_spec(folder, "code.bin"), "cpu")


def test_a_cut_off_checkpoint_is_refused(clip_folder):
    folder, _ = clip_folder
    whole = (folder / "open_clip_pytorch_model.bin").read_bytes()
    (folder / "cut.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read safely"):
        load_encoder(clip_spec(folder, "cut.bin"), "cpu")


def test_a_wrong_dimension_is_told(clip_folder):
    with pytest.raises(SpecError, match="the network's output has 16"):
        load_encoder(clip_spec(clip_folder[0], dim=17), "cpu")


def test_the_control_tells_the_share_of_each_range():
    spec = load_spec(shipped_specs()["hu_histogram"])
    encoder = load_encoder(spec)
    hu = np.full((2, 1, 16, 16), -1000, np.int16)
    hu[1, 0, :8] = 300
    figures = encoder.encode(hu)
    assert figures.shape == (2, spec.dim)
    assert figures[:, :66].sum(axis=1) == pytest.approx([1.0, 1.0])
    assert figures[0, 66] == 1.0  # all air
    assert figures[1, 66] == figures[1, 70] == 0.5  # half of it contrast


def test_the_control_needs_hu():
    with pytest.raises(SpecError, match="values: int16"):
        load_encoder(EncoderSpec(name="x", adapter="hu_histogram", dim=80))


def test_cuda_asked_for_where_there_is_none(clip_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Exception, match="torch finds no GPU"):
        load_encoder(clip_spec(clip_folder[0]), "cuda")
    with pytest.raises(Exception, match="needs CUDA, but there is no GPU"):
        load_encoder(clip_spec(clip_folder[0], device="cuda", cpu_fallback=False), "auto")


def of_one_channel(folder, **raw):
    """A ViT of timm with one channel and another size than timm's, inside a checkpoint that holds more."""
    built = {"img_size": 48, "patch_size": 8, "in_chans": 1}
    model = checkpoints.randomise(timm.create_model("test_vit", pretrained=False, num_classes=0, **built))
    path = folder / "model.safetensors"
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoints.save_safetensors(state | {"head.weight": torch.ones(2, 2)}, path)
    spec = {
        "name": "one", "adapter": "timm", "variant": "test_vit", "dim": model.num_features, "view": {"values": "int16"},
        "options": built | {"prefix": "backbone."},
        "input": {"size_px": 48, "clip_hu": [-1000, 1000], "mean": [65.0], "std": [178.0]},
    }  # fmt: skip
    return model, Case(path, spec | raw, {}, None, "", None)


def test_a_network_of_timm_with_options_embeds_slices_in_hu(tmp_path):
    model, case = of_one_channel(tmp_path)
    hu = np.random.default_rng(0).integers(-1500, 2000, (3, 1, 48, 48)).astype(np.int16)
    with torch.inference_mode():
        want = model((torch.from_numpy(hu).float().clamp(-1000, 1000) - 65.0) / 178.0).numpy()
    got = load_encoder(case.spec(), "cpu").encode(hu)
    assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_chans": 3}, "3 channels, but `input` has 1"),
        ({"in_chans": 1, "prefix": "student."}, "no tensor whose name starts with 'student.'"),
        ({"in_chans": 1, "img_size": 48, "patch_size": 8}, "does not fit the network"),  # the prefix is missing
    ],
)
def test_options_that_do_not_suit_the_checkpoint_are_told(tmp_path, options, message):
    _, case = of_one_channel(tmp_path, options={"img_size": 48, "patch_size": 8} | options)
    with pytest.raises((SpecError, WeightsError), match=message):
        load_encoder(case.spec(), "cpu")


def test_options_that_a_network_does_not_have_are_told(tmp_path):
    case = checkpoints.timm_model(tmp_path, "test_resnet")
    with pytest.raises(SpecError, match="cannot build test_resnet with these `options`"):
        load_encoder(case.spec(options={"patch_size": 8}), "cpu")
    with pytest.raises(SpecError, match="`options` applies to `adapter: timm` only"):
        case.spec(adapter="open_clip", options={"in_chans": 1})
