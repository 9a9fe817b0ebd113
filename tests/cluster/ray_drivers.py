"""What the tests of the Ray engine run on the cluster: `python -m tests.cluster.ray_drivers ADDRESS NAME ARGUMENTS`."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.config import ComputeSection, ExtractionSection
from fmaudit_core.encoders import extract as extraction
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import WeightsError
from fmaudit_core.encoders.extract import extract
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.shard_encoder import encode_here
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.engines import ray_shards
from fmaudit_core.engines.engine import opened_engine
from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.series import found_series
from fmaudit_core.imaging.window import View
from tests.ct_files import volume_hu, write_series

if TYPE_CHECKING:
    from fmaudit_core.imaging.slices import SliceStore

SPEC = load_spec(shipped_specs()["hu_histogram"])
#: another encoder, of other slices
OTHER = SPEC.model_copy(update={"name": "other", "view": SPEC.view.model_copy(update={"stride": 2})})
VOLUME = View.model_validate({"values": "int16", "volume": {"shape_zyx": [4, 4, 4]}})
SHARD_STUDIES = 4


def images_of(root: Path) -> list[tuple[str, Path]]:
    return [(folder.name, folder) for folder in sorted((root / "ct").iterdir())]


def broken(root: Path) -> str:
    """The study that cannot be read."""
    return images_of(root)[7][0]


def settings(address: str, **others: object) -> ComputeSection:
    given = {"engine": "ray", "address": address, "encoders": 2, "gpus": 0, "slicing_cpus": 2}
    return ComputeSection.model_validate(given | {"shard_studies": SHARD_STUDIES} | others)


@dataclass(frozen=True)
class Broken:
    """A store in which one study cannot be read."""

    store: SliceStore
    study_id: str

    def read(self, study_id, view):
        if study_id == self.study_id:
            raise SliceStoreError("is truncated or corrupt.")
        return self.store.read(study_id, view)

    def read_views(self, study_id, views):
        return [self.read(study_id, view) for view in views]

    def of(self, study_ids):
        return replace(self, store=self.store.of(study_ids))


@dataclass(frozen=True)
class Traced:
    """A source that records which process read which study, and takes its time."""

    source: Broken
    trace: Path

    def read(self, study_id, view):
        return self.read_views(study_id, [view])[0]

    def read_views(self, study_id, views):
        time.sleep(0.05)
        with (self.trace / f"slicer-{os.getpid()}").open("a") as file:
            file.write(f"{study_id}\n")
        return self.source.read_views(study_id, views)

    def of(self, study_ids):
        return replace(self, source=self.source.of(study_ids))


@dataclass(frozen=True)
class Loader:
    """Loads the encoder, and records the process that does."""

    trace: Path
    how: str

    def __call__(self, spec, device):
        (self.trace / f"actor-{os.getpid()}").touch()
        if self.how == "no weights":
            raise WeightsError("has another SHA-256.", where="model.safetensors")
        return Deadly() if self.how == "deadly" else load_encoder(spec, device)


class Deadly:
    """An encoder that kills its process."""

    device = "cpu"

    def encode(self, slices):
        os.kill(os.getpid(), signal.SIGKILL)


def slices(address: str, root: Path, home: Path) -> None:
    """Read the phantom's series on the cluster, the table of qualities into `quality.parquet`."""
    from fmaudit_core.imaging.slices import SliceStore

    home.mkdir()
    store = SliceStore(home / "slices")
    with opened_engine(settings(address), home=home) as engine:
        store.write(images_of(root), [SPEC.view], perform=engine.perform)
    store.described([study for study, _ in images_of(root)]).quality.write_parquet(home / "quality.parquet")


def embed(address: str, root: Path, home: Path, out: Path, how: str = "kept") -> None:
    """Encode the phantom on the cluster, traced; print the numbers of studies, or the error.

    `together` also makes the shards of another encoder, whose own extraction `other` then reads nothing.
    """
    from fmaudit_core.imaging.slices import SliceStore

    trace = home / "trace"
    trace.mkdir(exist_ok=True)
    extraction.load_encoder = Loader(trace, how)
    ray_shards.DEATHS = 1 if how == "deadly" else ray_shards.DEATHS
    ct = home / "unmounted" if how == "unmounted" else root / "ct"
    images = {study: ct / study for study, _ in images_of(root)}
    store = SliceStore(home / "slices", images, images_root=ct, keep=how == "kept")
    compute = settings(address)
    with opened_engine(compute, home=home) as engine:
        result = extract(
            OTHER if how == "other" else SPEC, store=Traced(Broken(store, broken(root)), trace), studies=list(images),
            work=home / "extraction", out=out, section=ExtractionSection(), version="v", encode=engine.encode,
            shard_studies=compute.shard_studies, also=[(OTHER, "v")] if how == "together" else (),
        )  # fmt: skip
    print(result.n_studies, result.n_failed)


@dataclass(frozen=True)
class Drawn:
    """Any number of studies without a CT, a tiny volume each."""

    def read(self, study_id, view):
        return np.full((2, 1, 2, 2), int(study_id) % 256, np.int16)

    def of(self, study_ids):
        return self


class Means:
    device = "cpu"

    def encode(self, slices):
        return slices.mean(axis=(1, 3, 4), dtype=np.float32)


def load_means(spec, device):
    return Means()


class Paced(Means):
    """An encoder that leaves the processor alone, like one on a GPU."""

    def encode(self, slices):
        time.sleep(0.04 * len(slices))
        return super().encode(slices)


def load_paced(spec, device):
    return Paced()


def paced(address: str, home: Path) -> None:
    """Print how much faster two encoders are than one, over the second half of the shards: both have started by then."""
    extraction.load_encoder = load_paced
    spec = EncoderSpec(name="paced", adapter="paced", dim=1, batch_size=4, view=VOLUME)
    took = []
    for encoders in (1, 2):
        compute, times = settings(address, encoders=encoders), list[float]()
        (home / str(encoders)).mkdir(parents=True)
        with opened_engine(compute, home=home / str(encoders)) as engine:
            extract(
                spec, store=Drawn(), studies=[f"{at:03d}" for at in range(240)], work=home / str(encoders) / "extraction",
                out=home / f"{encoders}.duckdb", section=ExtractionSection(), version="v", shard_studies=SHARD_STUDIES,
                encode=engine.encode, progress=lambda done, total, times=times: times.append(time.perf_counter()),
            )  # fmt: skip
        took.append(times[-1] - times[len(times) // 2])
    print(took[0] / took[1])


#: slices as a network wants them
SLICES = View(size_px=224)


@dataclass(frozen=True)
class Metered:
    """Studies that all have the CT of a folder; each process records its processor time."""

    ct: Path
    trace: Path

    def read(self, study_id, view):
        (series,) = found_series(self.ct)
        slices = view.apply(series.volume_hu)
        note_cpu(self.trace, "slicer")
        return slices

    def of(self, study_ids):
        return self


@dataclass(frozen=True)
class MeteredMeans:
    trace: Path
    device: str = "cpu"

    def encode(self, slices):
        note_cpu(self.trace, "actor")
        return slices.mean(axis=(2, 3), dtype=np.float32)[:, :1]


@dataclass(frozen=True)
class MeteredLoader:
    trace: Path

    def __call__(self, spec, device):
        return MeteredMeans(self.trace)


def note_cpu(trace: Path, who: str) -> None:
    with (trace / f"{who}-{os.getpid()}").open("a") as file:
        file.write(f"{time.process_time()}\n")


def ms_a_study(trace: Path, who: str) -> float:
    """Return the processor time between two studies of the processes of a kind; what they do at their start is not in it."""
    noted = [[float(one) for one in path.read_text().split()] for path in trace.glob(f"{who}-*")]
    return 1e3 * sum(one[-1] - one[0] for one in noted) / sum(len(one) - 1 for one in noted)


def cost(address: str, home: Path) -> None:
    """Print the processor time of a study in ms, with the engine of one process and on the cluster: the least of some rounds."""
    spec = EncoderSpec(name="means", adapter="means", dim=1, batch_size=24, view=SLICES)
    compute = settings(address, encoders=1, slicing_cpus=1, shard_studies=8)
    found: dict[str, list[float]] = {"local": [], "ray": []}
    write_series(home / "ct", volume_hu(24, size=512))
    with opened_engine(compute, home=home) as engine:
        for at in range(2):
            for name, encode in (("local", encode_here), ("ray", engine.encode)):
                folder = home / f"{name}{at}"
                trace = folder / "trace"
                trace.mkdir(parents=True)
                extraction.load_encoder = MeteredLoader(trace)
                extract(
                    spec, store=Metered(home / "ct", trace), studies=[f"{one:03d}" for one in range(32)],
                    work=folder / "extraction", out=folder / "out.duckdb", section=ExtractionSection(), version="v",
                    shard_studies=compute.shard_studies, encode=encode,
                )  # fmt: skip
                parts = ("slicer",) if name == "local" else ("slicer", "actor")  # one process does both
                found[name].append(sum(ms_a_study(trace, part) for part in parts))
    print(min(found["local"]), min(found["ray"]))


def many(address: str, home: Path, n_studies: str) -> None:
    """Schedule many studies, and print this process's peak memory in MB, and the CPU time of a study in ms."""
    home.mkdir()
    extraction.load_encoder = load_means
    compute = settings(address, shard_studies=250, slicing_cpus=4)
    spec = EncoderSpec(name="means", adapter="means", dim=1, batch_size=250, view=VOLUME)
    studies = [f"{at:06d}" for at in range(int(n_studies))]
    times: list[tuple[float, float]] = []
    with opened_engine(compute, home=home) as engine:
        result = extract(
            spec, store=Drawn(), studies=studies, work=home / "extraction", out=home / "out.duckdb",
            section=ExtractionSection(), version="v", shard_studies=compute.shard_studies, encode=engine.encode,
            progress=lambda done, total: times.append((time.process_time(), peak_mb())),
        )  # fmt: skip
    assert result.n_studies == len(studies)
    print(times[-1][1], (times[-1][0] - times[1][0]) / len(studies) * 1e3)


def peak_mb() -> float:
    # not `ru_maxrss`, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3


if __name__ == "__main__":
    address, name, *arguments = sys.argv[1:]
    paths = [Path(one) if "/" in one else one for one in arguments]
    try:
        {"slices": slices, "embed": embed, "many": many, "paced": paced, "cost": cost}[name](address, *paths)
    except FmauditError as error:
        print(f"{type(error).__name__}: {error}")
