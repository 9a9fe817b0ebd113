"""Check of an encoder: that it loads, that its output is as its spec declares and reproducible, and how long it takes here."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.encoders.adapter import Encoder, load_encoder
from fmaudit_core.encoders.alterations import Scan
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.sensitivity import Sensitivity, measure_sensitivity
from fmaudit_core.encoders.similarity import cosines
from fmaudit_core.encoders.spec import IMPORTED, EncoderSpec
from fmaudit_core.imaging.window import SliceArray

#: minimum cosine between two passes, or between a slice alone and in a batch; backends change embeddings by 1e-6
AGREE_COSINE: Final = 0.99999
#: minimum cosine between a lower precision and float32
PRECISION_COSINE: Final = 0.999
#: assumed slices per chest CT while the cohort's own number is not known
ASSUMED_SLICES: Final = 250
_PROBE_SLICES: Final = 4
_PROBE_VOLUMES: Final = 2
_TIMED_SECONDS: Final = 5.0

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CohortSize:
    """The number of studies and items that an encoder has to embed."""

    n_studies: int
    #: slices of its view, volumes or patches; None if no series has been read yet
    n_items: int | None


@dataclass
class CheckResult:
    """The result of a check.

    Parameters
    ----------
    facts : dict of str to str
        Reported properties, in order.
    problems : list of str
        Reasons why the encoder must not be used; empty if it may be used.
    sensitivity : list of Sensitivity
        Effect of alterations of the CT; empty if not measured.
    """

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)


def check_encoder(
    spec: EncoderSpec, *, device: str = "auto", cohort: CohortSize | None = None, scans: Iterable[Scan] | None = None
) -> CheckResult:
    """Load an encoder, check its output, and measure its speed and its sensitivity.

    Parameters
    ----------
    device : "auto", "cpu" or "cuda"
    cohort : CohortSize, optional
        Used to estimate the total time.
    scans : iterable of Scan, optional
        One per patient, two or more: alterations of them are compared. Without them, the sensitivity is not measured.

    Raises
    ------
    EncoderError
        It cannot be loaded: weights, keys, shapes, dimension, device.
    """
    found = CheckResult()
    facts = found.facts
    if spec.adapter == IMPORTED:
        from fmaudit_core.encoders.imported import read_imported

        ids, _ = read_imported(spec)
        facts["embeddings"] = f"{len(ids):,} studies, {spec.dim}-d, imported: there is no network to check"
        return found
    if not spec.embeds:
        facts["predictions"] = f"of {', '.join(one.task for one in spec.predictions)}: there is no network to check"
        for one in spec.predictions:
            if sha256_of(one.located()) != one.sha256:
                found.problems.append(f"{one.path.name} differs from the file that was added: its sha256 changed.")
        return found
    if spec.weights is not None:
        path = spec.weights.verified_parts()[0]
        proved = {"author": "as given in the spec", "published": "as published", "first_seen": "as when it was added"}
        facts["weights"] = f"{path.name}, sha256 {spec.weights.sha256} ({proved[spec.weights.sha256_from]})"
    started = time.perf_counter()
    encoder = load_encoder(spec, device)
    facts["loaded"] = f"strictly, in {time.perf_counter() - started:.1f} s"
    parameters = getattr(encoder, "n_parameters", None)
    facts["parameters"] = (
        f"{parameters / 1e6:,.1f} million" if parameters is not None else ("not reported by the adapter")
    )
    facts["device"] = encoder.device
    slices = probe_slices(spec)
    try:
        started = time.perf_counter()
        once = encoder.encode(slices)
        seconds_once = time.perf_counter() - started
        _probe(found, encoder, spec, slices, once)
        if not found.problems and encoder.device.startswith("cuda") and spec.dtype != "float32":
            _compare_precision(found, spec, slices, once, device)
        if not found.problems:
            _measure(found, encoder, spec, slices, seconds_once, cohort)
    except FmauditError:
        raise
    except Exception as error:  # a third party's adapter may raise anything
        found.problems.append(f"it fails on synthetic slices: {_first_line(error)}")
    if not found.problems and scans is not None:
        try:
            found.sensitivity = measure_sensitivity(encoder, spec, scans)
        except FmauditError:
            raise
        except Exception as error:  # as above
            found.problems.append(f"it fails on scans: {_first_line(error)}")
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def probe_slices(spec: EncoderSpec) -> SliceArray:
    """Generate slices, volumes or patches, through the spec's own view: all different, and the same in every call."""
    rng = np.random.default_rng(2026)
    if spec.view.volume is not None:
        volumes = [spec.view.apply(_drawn(rng, 64, 256), (4.0, 1.5, 1.5)) for _ in range(_PROBE_VOLUMES)]
        items = [list(spec.view.items(one)) for one in volumes]
        return np.concatenate([one[len(one) // 2] for one in items])  # of patches one in the middle
    slices = spec.view.apply(_drawn(rng, _PROBE_SLICES * spec.view.stride, 512))[:_PROBE_SLICES]
    return slices if spec.input is None else spec.input.of_study(slices)


def _drawn(rng: np.random.Generator, n_slices: int, size_px: int) -> npt.NDArray[np.int16]:
    """Return ellipses of CT values with noise, (slices, rows, columns) HU."""
    row, column = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    volume = np.full((n_slices, size_px, size_px), -1000, np.int16)
    for one in volume:
        for hu, size in ((40, 0.9), (-800, 0.7), (350, 0.25)):
            at = rng.uniform(-0.25, 0.25, 2)
            one[((row - at[0]) / size) ** 2 + ((column - at[1]) / (size * rng.uniform(0.6, 1.0))) ** 2 < 1] = hu
    volume += rng.integers(-30, 31, volume.shape, dtype=np.int16)
    return volume


def _probe(found: CheckResult, encoder: Encoder, spec: EncoderSpec, slices: SliceArray, once: Float32Array) -> None:
    """Check the properties that frozen features must have, treating the network as a black box."""
    if once.shape != (len(slices), spec.dim):
        found.problems.append(
            f"its output has shape {once.shape} for {len(slices)} slices, but its spec has dim {spec.dim}."
        )
        return
    norms = np.linalg.norm(once, axis=1)
    if not np.isfinite(once).all() or not norms.all():
        found.problems.append("its output has NaN, infinite or all-zero embeddings.")
        return
    found.facts["embedding"] = f"{spec.dim}-d, norm {norms.min():.4g} to {norms.max():.4g}"
    agree = float(cosines(once, encoder.encode(slices)).min())
    alone = float(cosines(once, np.concatenate([encoder.encode(one[None]) for one in slices])).min())
    apart = float(cosines(once[:-1], once[1:]).max())
    found.facts["parity"] = f"cosine of two passes {agree:.7f}, of a slice alone and in a batch {alone:.7f}"
    if agree < AGREE_COSINE:
        found.problems.append(
            f"two passes over the same slices differ (cosine {agree:.5f}): the network is not in eval mode, or is not "
            "deterministic."
        )
    elif alone < AGREE_COSINE:
        found.problems.append(
            f"a slice's embedding depends on the other slices of its batch (cosine {alone:.5f}): a normalisation is "
            "not in eval mode."
        )
    if apart > 1 - 1e-7:
        found.problems.append("different slices have the same embedding.")


def _compare_precision(
    found: CheckResult, spec: EncoderSpec, slices: SliceArray, once: Float32Array, device: str
) -> None:
    exact = load_encoder(spec.model_copy(update={"dtype": "float32"}), device).encode(slices)
    cosine = float(cosines(once, exact).min())
    found.facts["precision"] = f"cosine of {spec.dtype} and float32 {cosine:.5f}"
    if cosine < PRECISION_COSINE:
        found.problems.append(
            f"{spec.dtype} is not precise enough (cosine {cosine:.4f} with float32): set another dtype."
        )


def _measure(
    found: CheckResult,
    encoder: Encoder,
    spec: EncoderSpec,
    slices: SliceArray,
    seconds_once: float,
    cohort: CohortSize | None,
) -> None:
    n = spec.batch_size if seconds_once / len(slices) * spec.batch_size < 4 * _TIMED_SECONDS else len(slices)
    batch: SliceArray = np.resize(slices, (n, *slices.shape[1:]))
    reset, peak = _memory(encoder.device)
    reset()
    done, started = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - started < _TIMED_SECONDS:
        encoder.encode(batch)
        done += n
    rate = done / (time.perf_counter() - started)
    items = "patches" if spec.view.of_patches else f"{spec.view.item}s"
    found.facts["throughput"] = f"{rate:,.3g} {items} per second, in batches of {n}"
    found.facts["peak memory"] = peak()
    if cohort is None:
        return
    if cohort.n_items is None and spec.view.of_patches:
        return
    n_items = cohort.n_items if cohort.n_items is not None else cohort.n_studies * ASSUMED_SLICES
    assumed = "" if cohort.n_items is not None else f", assuming {ASSUMED_SLICES} per study: none has been read yet"
    found.facts["this cohort"] = (
        f"about {_duration(n_items / rate)} for {cohort.n_studies:,} studies ({n_items:,} {items}{assumed})"
    )


def _memory(device: str) -> tuple[Callable[[], None], Callable[[], str]]:
    """Return functions to reset and to read the peak memory of a device."""
    if device.startswith("cuda"):
        import torch

        cuda: Any = torch.cuda
        return cuda.reset_peak_memory_stats, lambda: f"{cuda.max_memory_allocated() / 2**30:.2f} GiB of the GPU"
    return lambda: None, lambda: f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of this process"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
