"""Model folders of transformers: the output that is the embedding, written as the library itself publishes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.transformers import FAMILIES
from tests.encoders.checkpoints import VIT, Case, randomise, save_safetensors

CLIP_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 50,
    "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_dim": 12,
}  # fmt: skip


def unit(found):
    return torch.nn.functional.normalize(found, dim=-1)


def clip(vision):
    config = transformers.CLIPConfig(
        vision_config=vision | {"projection_dim": 12}, text_config=CLIP_TEXT, projection_dim=12
    )
    model = transformers.CLIPModel(config)
    return model, lambda images: model(input_ids=torch.tensor([[3, 4, 2]]), pixel_values=images).image_embeds


def clip_vision(vision):
    model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**vision, projection_dim=12))
    return model, lambda images: unit(model(pixel_values=images).image_embeds)


def siglip_vision(vision):
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
    return model, lambda images: unit(model(pixel_values=images).pooler_output)


def cls_of(model_class, config_class):
    def built(vision):
        model = model_class(config_class(**vision))
        return model, lambda images: model(pixel_values=images).last_hidden_state[:, 0]

    return built


def vit_classifier(vision):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**vision))
    return model, lambda images: model.vit(pixel_values=images).last_hidden_state[:, 0]


def convnext(_):
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 32], depths=[1, 1, 1, 1])
    model = transformers.DINOv3ConvNextModel(config)
    return model, lambda images: model(pixel_values=images).pooler_output


#: (builder, dim, a tensor that a checkpoint may hold for another task)
MODELS = {
    "clip": (clip, 12),
    "clip_vision_model": (clip_vision, 12),
    "siglip_vision_model": (siglip_vision, 32),
    "dinov2": (cls_of(transformers.Dinov2Model, transformers.Dinov2Config), 32),
    "dinov2_with_registers": (
        cls_of(transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig),
        32,
    ),
    "dinov3_vit": (cls_of(transformers.DINOv3ViTModel, transformers.DINOv3ViTConfig), 32),
    "dinov3_convnext": (convnext, 32),
    "vit": (cls_of(transformers.ViTModel, transformers.ViTConfig), 32),
    "vit_classifier": (vit_classifier, 32),
}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def written(folder, name, **raw):
    """A folder as `save_pretrained` writes it: the tensor names of the hub."""
    build, dim = MODELS[name]
    model, reference = build(VIT)
    randomise(model).save_pretrained(folder)
    path = folder / "model.safetensors"
    state = load_file(path)
    spec = {"name": "model", "adapter": "transformers", "dim": dim, "input": {"size_px": 32, **HALF}} | raw
    return Case(path, spec, state, reference, "", save_safetensors)


def slices(n=3, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


THREE = {"windows": ["lung", "pe", "mediastinal"]}


@pytest.mark.parametrize("name", MODELS)
def test_the_embedding_is_the_output_its_type_is_used_by(tmp_path, name):
    case = written(tmp_path, name)
    got = load_encoder(case.spec(view=THREE), "cpu").encode(slices())
    want = case.wanted(slices())
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["missing", "extra", "misshaped"])
def test_what_does_not_fit_is_refused_for_every_type(tmp_path, name, how):
    case = written(tmp_path, name)
    family = FAMILIES[json.loads((tmp_path / "config.json").read_text())["model_type"]]
    image = [one for one in case.state if not one.startswith(family.left_out)]
    for one in image[:: max(1, len(image) // 6)]:
        state = dict(case.state)
        if how == "missing":
            del state[one]
        elif how == "extra":
            state[one + "_more"] = torch.ones(2)
        else:
            state[one] = torch.ones(5, 7)
        case.save(state, case.path)
        with pytest.raises(WeightsError, match="does not fit the network"):
            load_encoder(case.spec(view=THREE), "cpu")


#: tokens before those of the patches: CLS, and registers of DINOv2 and DINOv3
BEFORE_PATCHES = {"clip_vision_model": 1, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5, "vit": 1}


@pytest.mark.parametrize("name", BEFORE_PATCHES)
def test_the_mean_of_patches_leaves_cls_and_registers_out(tmp_path, name):
    vision = VIT | ({"num_register_tokens": 4} if BEFORE_PATCHES[name] == 5 else {})
    model, _ = MODELS[name][0](vision)
    randomise(model).save_pretrained(tmp_path)
    spec = {"name": "m", "adapter": "transformers", "view": THREE, "input": {"size_px": 32, **HALF}}
    case = Case(tmp_path / "model.safetensors", spec, {}, None, "", None)
    with torch.inference_mode():
        images = torch.from_numpy(slices()).float() / 255 * 2 - 1
        tokens = model.eval()(pixel_values=images).last_hidden_state
    mean = tokens[:, BEFORE_PATCHES[name] :].mean(dim=1)
    assert tokens.shape[1] == BEFORE_PATCHES[name] + 16
    got = load_encoder(case.spec(variant="mean_patches", dim=32), "cpu").encode(slices())
    assert np.abs(got - mean.numpy()).max() < 1e-5
    both = load_encoder(case.spec(variant="cls+mean_patches", dim=64), "cpu").encode(slices())
    assert np.abs(both - torch.cat([tokens[:, 0], mean], dim=1).numpy()).max() < 1e-5


def test_a_siglip_without_pooling_head_has_the_mean_of_its_tokens(tmp_path):
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VIT, vision_use_head=False))
    randomise(model).save_pretrained(tmp_path)
    raw = {"name": "m", "adapter": "transformers", "dim": 32, "view": THREE, "input": {"size_px": 32, **HALF}}
    case = Case(tmp_path / "model.safetensors", raw, {}, None, "", None)
    with torch.inference_mode():
        want = model.eval()(pixel_values=torch.from_numpy(slices()).float() / 255 * 2 - 1).last_hidden_state.mean(dim=1)
    got = load_encoder(case.spec(variant="mean_patches"), "cpu").encode(slices())
    assert np.abs(got - want.numpy()).max() < 1e-5
    with pytest.raises(SpecError, match="a SigLIP has no CLS token"):
        load_encoder(case.spec(variant="cls+mean_patches", dim=64), "cpu")


def test_patches_need_an_input_of_their_multiple(tmp_path):
    case = written(tmp_path, "dinov2", variant="mean_patches", input={"size_px": 36, **HALF})
    with pytest.raises(SpecError, match="the patches are 8 px, the input is 36 px"):
        load_encoder(case.spec(view=THREE), "cpu")
    case = written(tmp_path, "dinov3_convnext", variant="mean_patches")
    with pytest.raises(SpecError, match="needs a model of square patches"):
        load_encoder(case.spec(view=THREE), "cpu")


def test_every_known_type_is_tried():
    assert {name for name in MODELS if name != "vit_classifier"} | {"siglip"} == set(FAMILIES)


def test_a_two_tower_siglip_without_pooling_head_is_refused(tmp_path):
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VIT, vision_use_head=False))
    model.save_pretrained(tmp_path)
    raw = {"name": "m", "adapter": "transformers", "dim": 32, "input": {"size_px": 32, **HALF}}
    case = Case(tmp_path / "model.safetensors", raw, {}, None, "", None)
    with pytest.raises(WeightsError, match="no pooling head"):
        load_encoder(case.spec(view=THREE), "cpu")


def other_type(folder, **raw):
    """A type the table does not know."""
    model = transformers.IJepaModel(transformers.IJepaConfig(**VIT), add_pooling_layer=False)
    randomise(model).save_pretrained(folder)
    spec = {"name": "m", "adapter": "transformers", "dim": 32, "input": {"size_px": 32, **HALF}} | raw
    return model, Case(folder / "model.safetensors", spec, {}, None, "", save_safetensors)


def test_an_unknown_type_needs_a_variant_that_says_which_output(tmp_path):
    model, case = other_type(tmp_path)
    with pytest.raises(
        SpecError, match=r"it is not known which output of a ijepa is the embedding.*pooler_output, cls"
    ):
        load_encoder(case.spec(view=THREE), "cpu")
    case.reference = lambda images: model(pixel_values=images).last_hidden_state.mean(1)
    got = load_encoder(case.spec(view=THREE, variant="mean"), "cpu").encode(slices())
    assert np.abs(got - case.wanted(slices())).max() < 1e-5
    with pytest.raises(SpecError, match="the variants are pooler_output, cls, mean"):
        load_encoder(case.spec(view=THREE, variant="magic"), "cpu")


def test_a_known_type_takes_no_other_output(tmp_path):
    case = written(tmp_path, "dinov2", variant="mean")
    with pytest.raises(SpecError, match="the embedding of a dinov2 is its cls"):
        load_encoder(case.spec(view=THREE), "cpu")


def test_code_of_a_folder_is_never_run(tmp_path):
    case = written(tmp_path, "dinov2")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "magic", "auto_map": {"AutoModel": "modeling_magic.Magic"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_magic.py").write_text("raise SystemExit('ran')")
    with pytest.raises(WeightsError, match=r"has no model type magic\. It requires custom code"):
        load_encoder(case.spec(view=THREE), "cpu")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "dinov2", "hidden_size": "wide"}'])
def test_a_broken_config_is_told(tmp_path, text):
    case = written(tmp_path, "dinov2")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_encoder(case.spec(view=THREE), "cpu")


def test_the_input_has_to_be_said_and_what_was_published_is_told(tmp_path):
    case = written(tmp_path, "dinov2", input=None)
    published = {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    with pytest.raises(SpecError, match=r"needs `input`.*shortest_edge.*image_mean \[0.5, 0.5, 0.5\]"):
        load_encoder(case.spec(view=THREE), "cpu")


def test_a_size_the_network_does_not_take_is_told(tmp_path):
    case = written(tmp_path, "vit", input={"size_px": 48, **HALF})
    with pytest.raises(SpecError, match="takes slices of 32 px, not 48"):
        load_encoder(case.spec(view=THREE), "cpu")
    case = written(tmp_path, "dinov2", input={"size_px": 48, **HALF})  # its positions are interpolated
    assert load_encoder(case.spec(view=THREE), "cpu").encode(slices(2, 48)).shape == (2, 32)
