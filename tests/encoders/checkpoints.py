"""Checkpoints with random weights in the layouts they are published in, and the reference each is compared with.

The references are the upstream library's own classes, other implementations than the ones the adapters use where there
are two.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
import transformers
import yaml
from safetensors.torch import save_file
from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

from fmaudit_core.encoders.medimageinsight import Architecture
from fmaudit_core.encoders.spec import EncoderSpec, load_spec

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
TINY_DAVIT = Architecture(depths=(1, 1, 2, 1), widths=(32, 64, 96, 128), heads=(1, 2, 3, 4), embedding=24)
VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


@dataclass
class Case:
    """A checkpoint of one adapter."""

    path: Path
    raw: dict
    state: dict
    #: (n, 3, size, size) float in [0, 255] as slices, normalised by the spec's input -> (n, dim)
    reference: Callable[[torch.Tensor], torch.Tensor]
    #: a tensor whose shape can be spoilt, under its published name
    tensor: str
    save: Callable[[dict, Path], None]

    def spec(self, **changes) -> EncoderSpec:
        """The spec of the checkpoint as it now is."""
        raw = self.raw | changes
        raw["weights"] = {"path": str(self.path), "sha256": sha256(self.path)} | raw.get("weights", {})
        yaml_path = self.path.parent / "spec.yaml"
        yaml_path.write_text(yaml.safe_dump(raw))
        return load_spec(yaml_path)

    def wanted(self, slices) -> np.ndarray:
        """What the reference makes of 8-bit slices of the network's size."""
        given = self.raw["input"]
        mean, std = (torch.tensor(given[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        with torch.inference_mode():
            return self.reference((torch.from_numpy(slices).float() / 255 - mean) / std).numpy()


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def randomise(network, seed=0):
    """Weights that no two layers share and no layer ignores, activations of order 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in network.named_parameters():
            noise = torch.randn(one.shape, generator=generator)
            if one.ndim > 1:
                one.copy_(noise / max(one[0].numel(), 1) ** 0.5)
            else:
                one.copy_(noise * 0.1 + float(name.endswith("weight")))
    return network.eval()


def save_safetensors(state, path):
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)


def florence(architecture):
    """Microsoft's DaViT as transformers has it: another implementation than timm's."""
    config = transformers.Florence2VisionConfig(
        depths=architecture.depths, embed_dim=architecture.widths, num_heads=architecture.heads,
        num_groups=architecture.heads, window_size=12, drop_path_rate=0.0,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return Florence2VisionBackbone(config)


def published_davit_name(name):
    """Name of a Florence-2 tensor in the checkpoint of MedImageInsight."""
    for pattern, to in (
        (r"^(convs\.\d+)\.conv\.", r"\1.proj."),
        (r"^(blocks.*\.conv[12])\.", r"\1.fn.dw."),
        (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
        (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
        (r"(window|channel)_attn\.(qkv|proj)\.", r"\1_attn.fn.\2."),
        (r"^(blocks.*)\.norm2\.", r"\1.ffn.norm."),
        (r"\.ffn\.fc", ".ffn.fn.net.fc"),
    ):
        name = re.sub(pattern, to, name)
    return name


def medimageinsight(folder, architecture=TINY_DAVIT, variant="tiny", size=64, legacy=False) -> Case:
    """The two-tower file; `legacy` in the layout before the published one."""
    davit = randomise(florence(architecture))
    width, dim = architecture.widths[-1], architecture.embedding
    norm = randomise(torch.nn.LayerNorm(width, eps=1e-5), seed=1)
    projection = torch.randn(width, dim, generator=torch.Generator().manual_seed(2)) / width**0.5

    def reference(images):
        out = davit(images)
        out = getattr(out, "last_hidden_state", out)
        return torch.nn.functional.normalize(norm(out.flatten(2).mean(-1)) @ projection, dim=-1)

    tower, ours, text = ("visual.", "vision_projection", "text.") if legacy else (
        "image_encoder.", "image_projection", "lang_encoder.",
    )  # fmt: skip
    state = {tower + published_davit_name(name): tensor for name, tensor in davit.state_dict().items()}
    state |= {f"{tower}norms.{name}": tensor for name, tensor in norm.state_dict().items()}
    state |= {ours: projection, f"{text}embed.weight": torch.ones(4, 4), "logit_scale": torch.ones(1)}
    state |= {"text_projection" if legacy else "lang_projection": torch.ones(4, 4)}
    path = folder / "medimageinsigt-v1.0.0.pt"
    save_safetensors(state, path)
    raw = {
        "name": "mi2", "adapter": "medimageinsight", "variant": variant, "dim": dim,
        "input": {"size_px": size, **IMAGENET},
    }  # fmt: skip
    return Case(path, raw, state, reference, f"{tower}convs.0.proj.weight", save_safetensors)


def siglip(folder, vision=VIT, text=None, sharded=False) -> Case:
    """MedSigLIP's folder: the two-tower SiglipModel."""
    text = text or {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 50,
        "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "projection_size": vision["hidden_size"],
    }  # fmt: skip
    model = randomise(transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text)))
    model.config.to_json_file(folder / "config.json", use_diff=False)

    def reference(images):
        return model(input_ids=torch.tensor([[3, 4, 2]]), pixel_values=images).image_embeds

    state = dict(model.state_dict())
    path, save = folder / "model.safetensors", save_safetensors
    if sharded:
        path, save = folder / "model.safetensors.index.json", save_sharded
    save(state, path)
    dim = vision["hidden_size"]
    raw = {
        "name": "siglip", "adapter": "transformers", "dim": dim,
        "input": {"size_px": vision["image_size"], "mean": [0.5] * 3, "std": [0.5] * 3},
    }  # fmt: skip
    return Case(path, raw, state, reference, "vision_model.head.probe", save)


def save_sharded(state, index):
    names = sorted(state)
    places = {name: f"model-{1 + i * 3 // len(names):05d}-of-00003.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_safetensors({name: state[name] for name in names if places[name] == file}, index.parent / file)
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def biomedclip(folder, timm_name="vit_tiny_patch16_224", dim=16) -> Case:
    """BiomedCLIP's folder: timm's ViT beside a text tower under `text.`; a small text tower stands for its BERT."""
    config = {
        "model_cfg": {
            "embed_dim": dim,
            "vision_cfg": {
                "timm_model_name": timm_name, "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear",
                "image_size": 224,
            },
            "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    towers = {key: dict(config["model_cfg"][key]) for key in ("vision_cfg", "text_cfg")}
    model = randomise(open_clip.CustomTextCLIP(embed_dim=dim, **towers))
    state = dict(model.state_dict())
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(state, path)
    raw = {
        "name": "clip", "adapter": "open_clip", "dim": dim,
        "input": {"size_px": 224, "fit": "centre_crop", **config["preprocess_cfg"]},
    }  # fmt: skip
    return Case(
        path,
        raw,
        state,
        lambda images: model.encode_image(images, normalize=True),
        "visual.head.proj.weight",
        torch.save,
    )


def timm_model(folder, name="test_vit") -> Case:
    """A checkpoint as timm publishes one, its classifier included."""
    model = randomise(timm.create_model(name, pretrained=False))
    state = dict(model.state_dict())
    path = folder / "model.safetensors"
    save_safetensors(state, path)
    size = model.pretrained_cfg["input_size"][-1]
    raw = {
        "name": "timm", "adapter": "timm", "variant": name, "dim": model.num_features,
        "input": {"size_px": size, **IMAGENET},
    }  # fmt: skip

    def reference(images):
        return model.forward_head(model.forward_features(images), pre_logits=True)

    tensor = next(one for one in state if state[one].ndim == 4)
    return Case(path, raw, state, reference, tensor, save_safetensors)


class Projected(torch.nn.Module):
    """A small network to export."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3)
        self.norm = torch.nn.BatchNorm2d(6)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(self.conv(images)).relu()).mean(dim=(2, 3))


def scripted(module, path):
    """Write TorchScript; torch warns that it is old."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated", category=FutureWarning)
        torch.jit.save(torch.jit.script(module), str(path))


def exported_onnx(module, example, path):
    """Write ONNX by torch's own exporter, for any batch size; torch warns that it is old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning, UserWarning))
        torch.onnx.export(module, (example,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})


def torchscript(folder) -> Case:
    """A TorchScript file, written in training mode: loading has to put it into eval mode."""
    module = randomise(Projected())
    path = folder / "encoder.ts"
    scripted(module.train(), path)
    raw = {
        "name": "script", "adapter": "exported", "variant": "torchscript", "dim": 6,
        "input": {"size_px": 32, **IMAGENET},
    }  # fmt: skip
    return Case(path, raw, {}, module.eval(), "", lambda state, path: None)


def onnx_bytes(weight, batch="n", external=""):
    """GlobalAveragePool, then a product with `weight` (3, dim); `external` keeps the weight in another file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensor = numpy_helper.from_array(weight, "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=external))
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, weight.shape[1]])
    graph = helper.make_graph(nodes, "g", [x], [y], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def onnx_graph(folder, batch="n") -> Case:
    """An ONNX file, written by hand."""
    weight = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    path = folder / "encoder.onnx"
    path.write_bytes(onnx_bytes(weight, batch))
    raw = {
        "name": "graph", "adapter": "exported", "variant": "onnx", "dim": 5, "input": {"size_px": 32, **IMAGENET},
    }  # fmt: skip
    return Case(path, raw, {}, lambda images: images.mean(dim=(2, 3)) @ torch.from_numpy(weight), "", lambda *_: None)
