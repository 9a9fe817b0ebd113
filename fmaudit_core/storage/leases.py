"""Leases: claims that are renewed while their holder lives, and taken over once they are not. How a claim is stored: `claims.py`.

A holder of this machine is judged by its process. Of another machine only the claim is seen. It is judged by whether the claim
changes while this process watches it, by this process's own monotonic clock: clocks of two machines may differ, and a suspended
laptop's stands still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.storage.claims import Claim, Claims, Holder

#: seconds to wait for a thread that was asked to end, in case its disk or database does not answer
_JOIN_S: Final = 5.0


class LeaseLostError(FmauditError):
    """A claim was taken over while this process still worked for it."""


@dataclass(frozen=True)
class LeaseTimes:
    """How often leases are renewed and looked at.

    Parameters
    ----------
    renew_s : float
        Seconds between two renewals.
    expire_s : float
        Seconds of watching without a renewal after which a lease of another machine is taken over.
    poll_s : float
        Seconds between two looks of a process that waits for a claim.
    watch_s : float
        Seconds between two looks for other runs whose process is gone.
    """

    renew_s: float = 20.0
    expire_s: float = 60.0
    poll_s: float = 0.5
    watch_s: float = 5.0


@dataclass
class _Sight:
    number: int
    at: float
    unchanged_s: float = 0.0


@dataclass
class Lookout:
    """How long each claim has not changed while this process watched it.

    Parameters
    ----------
    clock : callable
        Seconds of a clock that never jumps.
    """

    times: LeaseTimes
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Sight] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has_expired(self, name: str, number: int) -> bool:
        """Look at a claim; return whether it has not been renewed for long enough.

        The time between two looks counts up to one renewal: where a disk did not answer for longer, its holder could not renew.
        """
        now = self.clock()
        with self._lock:
            seen = self._seen.get(name)
            if seen is None or seen.number != number:
                seen = self._seen[name] = _Sight(number, now)
            seen.unchanged_s += min(now - seen.at, self.times.renew_s)
            seen.at = now
            return seen.unchanged_s >= self.times.expire_s

    def forget(self, name: str) -> None:
        """Watch a claim anew from its next look on."""
        with self._lock:
            self._seen.pop(name, None)

    def forget_others(self, folder: str, names: Collection[str]) -> None:
        """Forget the claims of a folder, but those named."""
        with self._lock:
            for name in [name for name in self._seen if name.startswith(folder) and name not in names]:
                del self._seen[name]


class Lease:
    """A claim that this process holds."""

    def __init__(self, claims: Claims, name: str, number: int, about: Callable[[], Holder]) -> None:
        self.name = name
        self.is_lost = False
        self._claims, self._number, self._about = claims, number, about
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Renew the claim; note if it was taken over.

        Raises
        ------
        OSError, PublishError
            The disk does not answer, or is full; whether the claim is still held is then not known.
        """
        with self._lock:
            if not self.is_lost:
                number = self._claims.replace(self.name, self._number, self._about())
                self.is_lost = number is None
                self._number = number or self._number

    def check(self) -> None:
        """Renew the claim.

        Raises
        ------
        LeaseLostError
            It was taken over. What was made for it must not be published.
        """
        self.renew()
        if self.is_lost:
            by = (self._claims.read(self.name).holder or {}).get("host", "another process")
            raise LeaseLostError(
                f"{self.name} was taken over by {by}, because its lease was not renewed in time. Nothing was published.",
                fix="A suspended computer or a disk that did not answer is the usual cause. Run again: what is finished is kept.",
            )

    def release(self) -> None:
        """Give the claim back, unless it was taken over."""
        with self._lock, suppress(OSError, FmauditError):
            if not self.is_lost:
                self.is_lost = True
                self._claims.replace(self.name, self._number, None)


@dataclass(frozen=True)
class Leases:
    """The leases of one workspace, as seen by one process.

    Parameters
    ----------
    process : callable
        Name of this process.
    lives : callable
        Whether the process of a name is running; None if it cannot be seen from here.
    """

    claims: Claims
    process: Callable[[], Mapping[str, str]]
    lives: Callable[[str], bool | None]
    lookout: Lookout

    @property
    def times(self) -> LeaseTimes:
        """Return how often leases are renewed and looked at."""
        return self.lookout.times

    def is_held(self, name: str, claim: Claim) -> bool:
        """Look at a claim; return whether somebody holds it who lives, as far as can be known yet."""
        if claim.holder is None:
            return False
        lives = self.lives(claim.holder.get("process", ""))
        return not self.lookout.has_expired(name, claim.number) if lives is None else lives

    def take(self, name: str, **about: str) -> Lease | None:
        """Return the lease of a claim that is free or whose holder is gone; None while it is held."""
        claim = self.claims.read(name)
        return None if self.is_held(name, claim) else self.take_over(name, claim, **about)

    def take_over(self, name: str, claim: Claim, **about: str) -> Lease | None:
        """Return the lease of a claim, whoever held it when it was seen; None if it has changed since."""

        def holder() -> Holder:
            until = datetime.now(UTC) + timedelta(seconds=self.times.expire_s)
            return {**self.process(), **about, "until": until.isoformat(timespec="seconds")}

        number = self.claims.replace(name, claim.number, holder())
        self.lookout.forget(name)
        return None if number is None else Lease(self.claims, name, number, holder)

    @contextmanager
    def held(self, name: str, **about: str) -> Iterator[Lease]:
        """Hold the lease of a claim, renewed by a thread; wait while another process holds it."""
        while (lease := self.take(name, **about)) is None:
            time.sleep(self.times.poll_s)
        with self.renewed(lease):
            yield lease

    @contextmanager
    def renewed(self, lease: Lease) -> Iterator[None]:
        """Renew a lease by a thread inside this context, then release it."""

        def renew() -> None:
            with suppress(OSError, FmauditError):  # the next renewal may find the disk again; who publishes checks
                lease.renew()

        try:
            with repeated(renew, self.times.renew_s):
                yield
        finally:
            lease.release()


@contextmanager
def repeated(action: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call `action` in a thread inside this context, first after `every_s` seconds."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every_s):
            action()

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_JOIN_S)
