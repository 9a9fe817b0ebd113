"""Forward passes: batches across studies, halved if memory runs out; a study that fails is excluded and recorded.

Reading and use of the embeddings: `extract.py`.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.batch_trial import fastest_batch
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import SliceArray

Float32Array = npt.NDArray[np.float32]

#: consecutive failed studies after which the encoder or the device is at fault, not the studies
HOPELESS: Final = 16
#: concurrent batches: on a GPU one is copied and queued while another is computed
_LANES_CUDA: Final = 2
_NOT_FINITE: Final = "the encoder gives NaN or infinite values"

#: slices of one study, with its index among the added studies
_Piece = tuple[int, SliceArray]


@dataclass(frozen=True)
class _Refused:
    """A forward pass that failed."""

    why: str
    out_of_memory: bool


class Forward:
    """A runner of one encoder over a sequence of studies, which buffers results until they are taken.

    Parameters
    ----------
    encoder : Encoder
    spec : EncoderSpec
    batch : int
        Batch size in slices, volumes or patches; halved permanently if the device runs out of memory.
    find_batch : bool
        On a GPU, find the fastest batch size, from `batch` upwards, with the items of the first study.
    """

    def __init__(self, encoder: Encoder, spec: EncoderSpec, batch: int, *, find_batch: bool = False) -> None:
        self._encoder, self._spec, self.batch = encoder, spec, batch
        on_gpu = encoder.device.startswith("cuda")
        #: whether the batch size is still to be found
        self.finds_batch = find_batch and on_gpu
        self._pool = ThreadPoolExecutor(_LANES_CUDA, "forward") if on_gpu else None
        self._waiting: list[_Piece] = []
        self._running: deque[tuple[Future[Float32Array | _Refused], list[_Piece]]] = deque()
        self._ids: list[str] = []
        self._found: list[list[Float32Array]] = []
        self._failed: dict[int, str] = {}
        self._failures_in_a_row = 0
        #: one image that was encoded, and the last study that was not; None if a study was encoded since
        self._encodable: SliceArray | None = None
        self._refused: SliceArray | None = None

    @property
    def is_failing(self) -> bool:
        """Return whether the last study could not be encoded."""
        return self._failures_in_a_row > 0

    def add(self, study_id: str, *blocks: SliceArray) -> None:
        """Add one study's slices, (slices, channels, rows, columns), its volume, (1, slices, 1, rows, columns), or its patches.

        Patches are blocks of one, which are copied a batch at a time.
        """
        at = len(self._ids)
        self._ids.append(study_id)
        self._found.append([])
        for items in blocks if self._spec.input is None else map(self._spec.input.of_study, blocks):
            if self.finds_batch:
                self.finds_batch = False
                self.batch = fastest_batch(self._passes, items, self.batch)
                _give_memory_back()
            if self._waiting and self._waiting[0][1].shape[1:] != items.shape[1:]:
                self._flush()
            self._waiting.append((at, items))
            while sum(len(piece) for _, piece in self._waiting) >= self.batch:
                self._send(self._cut(self.batch))

    def taken(self) -> tuple[list[str], list[Float32Array], list[tuple[str, str]]]:
        """Finish the waiting batches, and return all studies since the last call.

        Returns
        -------
        study_ids : list of str
        embeddings : list of (slices, d) float32, one per study
        failed : list of (study_id, reason)

        Raises
        ------
        ExtractionError
            The output differs from the spec's dimension, or the encoder fails on everything, or on what it encoded before.
        """
        self._flush()
        self._check_after_failures(self._refused)
        ids = [one for at, one in enumerate(self._ids) if at not in self._failed]
        found = [np.concatenate(pieces) for at, pieces in enumerate(self._found) if at not in self._failed]
        failed = [(self._ids[at], why) for at, why in sorted(self._failed.items())]
        self._ids, self._found, self._failed = [], [], {}
        return ids, found, failed

    def close(self) -> None:
        """Wait for the threads to finish."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _cut(self, size: int) -> list[_Piece]:
        """Take up to `size` waiting items, as pieces of studies."""
        pieces: list[_Piece] = []
        while self._waiting and size:
            at, items = self._waiting.pop(0)
            if len(items) > size:
                self._waiting.insert(0, (at, items[size:]))
            if at not in self._failed:
                pieces.append((at, items[:size]))
            size -= min(size, len(items))
        return pieces

    def _flush(self) -> None:
        while self._waiting:
            self._send(self._cut(self.batch))
        while self._running:
            self._receive()

    def _send(self, pieces: list[_Piece]) -> None:
        if not pieces:
            return
        if self._pool is None:
            self._settle(pieces, self._attempt(pieces))
            return
        self._running.append((self._pool.submit(self._attempt, pieces), pieces))
        if len(self._running) > _LANES_CUDA:
            self._receive()

    def _receive(self) -> None:
        future, pieces = self._running.popleft()
        self._settle(pieces, future.result())

    def _attempt(self, pieces: Sequence[_Piece]) -> Float32Array | _Refused:
        """Run one forward pass, or return why it failed; the error itself is not kept, since it would keep the tensors alive."""
        items = [one for _, one in pieces]
        together: SliceArray = items[0] if len(items) == 1 else np.concatenate(items)  # type: ignore[assignment]  # one value type per view
        try:
            out = self._encoder.encode(together)
        except Exception as error:  # a network may raise anything, and one study must not stop the others
            return _Refused(_summary(error), _is_out_of_memory(error))
        if out.shape != (len(together), self._spec.dim):
            raise ExtractionError(
                f"the encoder's output has {out.shape[-1]} dimensions, but its spec has dim {self._spec.dim}.",
                where=self._spec.name,
            )
        return out.astype(np.float32, copy=False)

    def _passes(self, items: SliceArray) -> bool:
        """Return whether a forward pass over a batch succeeds; its embeddings are not kept."""
        return not isinstance(self._attempt([(0, items)]), _Refused)

    def _settle(self, pieces: list[_Piece], out: Float32Array | _Refused) -> None:
        """Assign the embeddings of one batch to their studies; a failed batch is retried in smaller parts."""
        if isinstance(out, _Refused):
            self._again(pieces, out)
            return
        at = 0
        for study, items in pieces:
            rows = out[at : at + len(items)]
            at += len(items)
            if np.isfinite(rows).all():
                self._found[study].append(rows)
                self._failures_in_a_row, self._refused = 0, None
                if self._encodable is None:
                    self._encodable = items[:1].copy()
            else:
                self._fail(study, items, _NOT_FINITE)

    def _again(self, pieces: list[_Piece], refused: _Refused) -> None:
        """Halve the batch if memory ran out; otherwise retry study by study, to find the one that fails."""
        total = sum(len(items) for _, items in pieces)
        if refused.out_of_memory and total > 1:
            _give_memory_back()
            # a concurrent batch of the old size does not halve it again
            self.batch = min(self.batch, total // 2)
            for part in _split(pieces, total // 2):
                self._settle(part, self._attempt(part))
        elif len(pieces) > 1:
            for piece in pieces:
                if piece[0] not in self._failed:
                    self._settle([piece], self._attempt([piece]))
        else:
            self._fail(*pieces[0], refused.why)

    def _check_after_failures(self, failed: SliceArray | None) -> None:
        """Raise if the last studies failed and the encoder fails on an image that it encoded before, or on an empty one.

        Then the studies are not the cause, and must not be recorded as failed.
        """
        known = self._encodable
        if failed is None:
            return
        out = self._attempt([(0, np.zeros_like(failed[:1]) if known is None else known)])
        if isinstance(out, _Refused) or (known is not None and not np.isfinite(out).all()):
            why = out.why if isinstance(out, _Refused) else _NOT_FINITE
            raise ExtractionError(
                f"the encoder fails on {'an empty image' if known is None else 'an image that it encoded before'} too ({why}); "
                "nothing was published.",
                where=self._spec.name,
                fix="Check the device. Finished studies are kept: run again.",
            )

    def _fail(self, study: int, items: SliceArray, why: str) -> None:
        if study in self._failed:
            return
        self._failed[study], self._refused = why, items
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= HOPELESS:
            raise ExtractionError(
                f"the encoder failed on {HOPELESS} studies in a row ({why}); nothing was published.",
                where=self._spec.name,
                fix="Finished studies are kept: fix the cause, then run again.",
            )


def _split(pieces: list[_Piece], size: int) -> list[list[_Piece]]:
    """Split the items into parts of at most `size`."""
    parts: list[list[_Piece]] = [[]]
    room = size
    for study, items in pieces:
        start = 0
        while start < len(items):
            if not room:
                parts.append([])
                room = size
            parts[-1].append((study, items[start : start + room]))
            taken = min(room, len(items) - start)
            start, room = start + taken, room - taken
    return parts


def _is_out_of_memory(error: Exception) -> bool:
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # torch's allocator on the CPU raises a plain RuntimeError
    return isinstance(error, MemoryError) or "not enough memory" in str(error) or "can't allocate memory" in str(error)


def _give_memory_back() -> None:
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _summary(error: Exception) -> str:
    """Return a one-line summary of an error."""
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
