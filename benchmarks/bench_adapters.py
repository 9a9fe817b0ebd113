"""Adapters: overhead of `encode` (resize, normalise, forward, to NumPy) over the bare forward pass, measured in turns.

The published sizes are also loaded from files in the published layouts, with random weights, and compared with another
implementation. Convolutional networks: slices per second of onnxruntime and of torch, in turns. Views: the time of windows and
resizing over that of a loop with Pillow, with equal pixels.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# as `fmaudit run` sets it; read once, when torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import timm
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.medimageinsight import ARCHITECTURES
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.similarity import cosines
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.imaging.window import SliceArray, View, to_window
from tests.encoders import checkpoints

SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 448, "patch_size": 14,
}  # fmt: skip
WINDOWS = {"windows": ["lung", "pe", "mediastinal"]}
LIMIT = 1.10
#: batches of a turn of a runtime: an encoder reads many, one after another
BATCHES = 8


def drawn(n: int, size: int) -> SliceArray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def exported(folder: Path, kind: str) -> checkpoints.Case:
    """Write a ResNet-18 to a file and return its case."""
    network = checkpoints.randomise(timm.create_model("resnet18", pretrained=False, num_classes=0))
    path = folder / f"resnet18.{kind}"
    example = torch.zeros(2, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(network, example), str(path))
        else:
            torch.onnx.export(
                network, (example,), str(path), dynamo=False, input_names=["x"], output_names=["y"],
                dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            )  # fmt: skip
    raw = {
        "name": kind, "adapter": "exported", "variant": kind, "dim": 512,
        "input": {"size_px": 224, **checkpoints.IMAGENET},
    }  # fmt: skip
    return checkpoints.Case(path, raw, {}, network, "", lambda *_: None)


def dinov2(folder: Path) -> checkpoints.Case:
    """Write a DINOv2-small in the layout of transformers and return its case."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = checkpoints.randomise(
        transformers.Dinov2Model(transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=224))
    )
    model.save_pretrained(folder)
    raw = {
        "name": "dinov2", "adapter": "transformers", "dim": 384, "input": {"size_px": 224, **checkpoints.IMAGENET},
    }  # fmt: skip
    return checkpoints.Case(
        folder / "model.safetensors",
        raw,
        {},
        lambda x: model(pixel_values=x).last_hidden_state[:, 0],
        "",
        lambda *_: None,
    )


SMALL: dict[str, Callable[[Path], checkpoints.Case]] = {
    "transformers (DINOv2-S)": dinov2,
    "timm (ResNet-50)": lambda folder: checkpoints.timm_model(folder, "resnet50"),
    "open_clip (BiomedCLIP)": lambda folder: checkpoints.biomedclip(folder, "vit_base_patch16_224", 512),
    "exported (TorchScript)": lambda folder: exported(folder, "torchscript"),
    "exported (ONNX)": lambda folder: exported(folder, "onnx"),
}
PUBLISHED: dict[str, Callable[[Path], checkpoints.Case]] = {
    "MedImageInsight": lambda folder: checkpoints.medimageinsight(folder, ARCHITECTURES[""], variant="", size=480),
    "MedSigLIP": lambda folder: checkpoints.siglip(folder, vision=SO400M),
    "BiomedCLIP": lambda folder: checkpoints.biomedclip(folder, "vit_base_patch16_224", 512),
}


def bare_pass(encoder: Any, batch: SliceArray) -> Callable[[], object]:
    """Return a call of the network alone, with its input ready on the device."""
    if hasattr(encoder, "_graph"):
        values = encoder._prepared(batch).contiguous().numpy()
        return lambda: encoder._graph.run(values)
    ready = encoder.prepared(batch)

    def forward() -> object:
        with torch.inference_mode():
            return encoder._network(ready)

    return forward


def overhead(label: str, spec: EncoderSpec, slices: SliceArray, rounds: int) -> bool:
    """Print the time of `encode` relative to the bare forward pass; return whether it is within the limit.

    Both are measured batch by batch, in turns.
    """
    encoder = load_encoder(spec, "cpu")
    forward = bare_pass(encoder, slices)
    works = (forward, lambda: encoder.encode(slices))
    for work in works:
        work()
    wall: list[list[float]] = [[], []]
    busy: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter(), time.process_time()
            works[which]()
            wall[which].append(time.perf_counter() - start[0])
            busy[which].append(time.process_time() - start[1])
    # ratios of pairs, so that other processes affect both alike; processor time is hardly affected
    elapsed, ratio = (statistics.median(w / b for b, w in zip(*one, strict=True)) for one in (wall, busy))
    alone = statistics.median(busy[0]) / len(slices) * 1e3
    print(
        f"  {label:<26} {alone:8.1f} ms of processor a slice bare, ratio {ratio:6.3f} (on the clock {elapsed:6.3f})",
        flush=True,
    )
    return ratio <= LIMIT


def write_and_refer(name: str, folder: Path, n: int) -> tuple[np.ndarray, int]:
    """Write the checkpoint and its spec, and return the reference embeddings; runs in a separate process."""
    case = PUBLISHED[name](folder)
    case.spec(view=WINDOWS, batch_size=1)
    found = np.concatenate([case.wanted(one[None]) for one in drawn(n, case.raw["input"]["size_px"])])
    return found, case.path.stat().st_size


def load_and_encode(folder: Path, n: int) -> tuple[np.ndarray, float, float, int]:
    """Return embeddings, seconds of loading, peak GiB and parameters; runs in a separate process."""
    spec = load_spec(folder / "spec.yaml")
    assert spec.input is not None
    assert spec.weights is not None
    spec.weights.verified()
    start = time.perf_counter()
    encoder: Any = load_encoder(spec, "cpu")
    seconds = time.perf_counter() - start
    found = np.concatenate([encoder.encode(one[None]) for one in drawn(n, spec.input.size_px)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found, seconds, peak, encoder.n_parameters


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def small(rounds: int) -> bool:
    """Measure every adapter at the size of a common network."""
    fits = resizing(rounds)
    print("encode over the bare forward pass (batches of 8 slices of 512 px, resized on the device)")
    for label, build in SMALL.items():
        with tempfile.TemporaryDirectory() as name:
            fits &= overhead(label, build(Path(name)).spec(view=WINDOWS), drawn(8, 512), rounds)
    lite0 = load_spec(shipped_specs()["efficientnet_lite0"])
    fits &= overhead("efficientnet (lite0)", lite0, drawn(8, 224), rounds)
    with tempfile.TemporaryDirectory() as name:
        for label, spec in (("lite0", lite0), ("ResNet-50", SMALL["timm (ResNet-50)"](Path(name)).spec(view=WINDOWS))):
            fits &= runtimes(label, spec, rounds)
    return fits


def with_pillow(view: View, volume_hu: np.ndarray) -> np.ndarray:
    """Return what a view gives, by a loop over its slices and windows with Pillow."""
    size = (view.size_px, view.size_px)
    if view.values == "int16":
        planes = [Image.fromarray(one.astype(np.float32)).resize(size, Image.Resampling.BICUBIC) for one in volume_hu]
        return np.rint(np.stack([np.asarray(one) for one in planes])).astype(np.int16)[:, None]
    grey = [to_window(volume_hu, centre_hu=one.centre_hu, width_hu=one.width_hu) for one in view.channel_windows]
    resized = [
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in of_window]
        for of_window in grey
    ]
    return np.stack([np.stack(one) for one in resized], axis=1)


def resizing(rounds: int) -> bool:
    """Print the processor time of views by Pillow and by fmaudit, measured in turns; return whether the pixels are equal."""
    rng = np.random.default_rng(0)
    radius = np.hypot(*np.mgrid[-1:1:512j, -1:1:512j])
    volume = (np.digitize(radius, (0.3, 0.7, 0.9)) * -300 + rng.normal(100, 30, (16, 512, 512))).astype(np.int16)
    equal = True
    print("views of slices of 512 px, windows and resizing, on one core")
    for view in (View(**WINDOWS, size_px=224), View(**WINDOWS, size_px=480), View(values="int16", size_px=224)):
        works = (lambda one=view: with_pillow(one, volume), lambda one=view: one.apply(volume))
        equal &= np.array_equal(*(work() for work in works))
        busy: list[list[float]] = [[], []]
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                start = time.process_time()
                works[which]()
                busy[which].append(time.process_time() - start)
        theirs, ours = (statistics.median(one) / len(volume) * 1e3 for one in busy)
        what = "HU" if view.values == "int16" else f"{view.channels} windows"
        print(
            f"  {what} to {view.size_px} px: Pillow {theirs:6.2f} ms a slice, fmaudit {ours:6.2f}, ratio {theirs / ours:5.2f}"
        )
    print(f"  equal pixels: {'yes' if equal else 'NO'}", flush=True)
    return equal


def runtimes(label: str, spec: EncoderSpec, rounds: int) -> bool:
    """Print slices per second of both runtimes, measured in turns of some batches; return whether their embeddings agree."""
    encoders = [
        load_encoder(spec.model_copy(update={"runtime": one, "batch_size": 4}), "cpu")
        for one in ("torch", "onnxruntime")
    ]
    slices = drawn(4, spec.input.size_px if spec.input else 224)
    found = [one.encode(slices) for one in encoders]
    seconds: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            for _ in range(BATCHES):
                start = time.perf_counter()
                encoders[which].encode(slices)
                seconds[which].append(time.perf_counter() - start)
    distance = 1 - float(cosines(*found).min())
    torch_speed, ours = (len(slices) / statistics.median(one) for one in seconds)
    print(
        f"  {label:<26} torch {torch_speed:6.1f}, onnxruntime {ours:6.1f} slices/s, ratio {ours / torch_speed:5.2f}; "
        f"cosine distance {distance:.1e}",
        flush=True,
    )
    return distance < 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slices", type=int, default=2, help="slices through each of the published sizes")
    parser.add_argument("--small", action="store_true", help="leave out the published sizes")
    parser.add_argument("--published", action="append", choices=PUBLISHED, help="only these published sizes, alone")
    options = parser.parse_args()
    fits = True
    if not options.published:
        fits &= small(options.rounds)
    for published in [] if options.small else options.published or PUBLISHED:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            want, size = apart(write_and_refer, published, folder, options.slices)
            got, seconds, peak, parameters = apart(load_and_encode, folder, options.slices)
            difference = float(np.abs(got - want).max())
            print(
                f"{published}: {parameters / 1e6:.1f} M parameters of a file of {size / 2**30:.2f} GiB, loaded strictly in "
                f"{seconds:.1f} s, peak {peak:.2f} GiB; differs from the reference by {difference:.1e}",
                flush=True,
            )
            fits &= difference < 1e-5
            if published != "BiomedCLIP":  # already measured above
                fits &= overhead(published, load_spec(folder / "spec.yaml"), drawn(1, 512), 3)
    print(f"every ratio at most {LIMIT}, every difference under 1e-5: {'yes' if fits else 'NO'}")
    sys.exit(not fits)


if __name__ == "__main__":
    main()
