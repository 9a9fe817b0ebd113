"""A prefix of an S3-compatible bucket: objects that are read whole or by range, created once, or replaced by compare-and-swap.

The store's own error messages hold addresses and debug output, so errors are named here. Credentials are read from the
environment by obstore and are held nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fmaudit_core.common.errors import FmauditError, needs_extra

if TYPE_CHECKING:
    from obstore.store import S3Store

_T = TypeVar("_T")
#: requests of a process to a store at the same time
REQUESTS: Final = 16
#: about 3 s for a store that restarts; a longer outage is reported
_RETRIES: Final = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
#: part of a failed request -> what it means
_CAUSES: Final = (
    ("latest/api/token", "there are no credentials in the environment"),
    ("latest/meta-data", "there are no credentials in the environment"),
    ("ConnectionRefused", "the connection was refused"),
    ("dns error", "the name of its store cannot be resolved"),
    ("InvalidCertificate", "the certificate of its store is not trusted"),
    ("BadScheme", "its store is reached without TLS, which needs `storage: endpoint: http://...` in audit.yaml"),
    ("InvalidContentType", "its store does not speak TLS at this port"),
    ("TimedOut", "its store did not answer in time"),
    ("timed out", "its store did not answer in time"),
    ("Unreachable", "its store is not reachable from this machine"),
)
_CREDENTIALS: Final = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones) in the environment; the key must "
    "be allowed to list, read, write and delete below the prefix."
)
_ADDRESS: Final = (
    "Check its address and `storage:` in audit.yaml, and that the store runs. Run again: finished work is kept."
)


class StoreError(FmauditError):
    """A bucket cannot be reached, or refuses."""


class ObjectLostError(StoreError):
    """An object that was there is not there any more."""


@dataclass(frozen=True)
class StoredObject:
    """An object as listed.

    Parameters
    ----------
    name : str
        Below the prefix.
    n_bytes : int
    tag : str
        Its ETag, which is another one for another content.
    """

    name: str
    n_bytes: int
    tag: str


@dataclass(frozen=True)
class Bucket:
    """A prefix of a bucket. Names of objects are relative to it.

    Parameters
    ----------
    address : str
        `s3://bucket/prefix`.
    endpoint : str, optional
        Address of the store; Amazon's if it is None.
    region : str, optional
    """

    address: str
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str | None, str | None]]:
        """Be sent to another process without the client, which that one makes for itself."""
        return Bucket, (self.address, self.endpoint, self.region)

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none.

        Raises
        ------
        StoreError
            The bucket does not answer or refuses; so for every other method.
        """
        found = self.read_tagged(name)
        return None if found is None else found[0]

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of an object and its ETag, by which `replace` knows it; None if there is none."""

        def get() -> tuple[bytes, str]:
            found = self._obstore.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        return self._or_none(get)

    def tag(self, name: str) -> str | None:
        """Return the ETag of an object; None if there is none, or no bucket."""
        found = self._or_none(lambda: self._obstore.head(self._store, name))
        return None if found is None else str(found["e_tag"])

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return some bytes of an object that is there."""
        return self._asked(lambda: bytes(self._obstore.get_range(self._store, name, start=start, length=length)))

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there yet (`If-None-Match: *`); return whether it was not.

        Writers must have different contents: if the answer to its request was lost, this one knows by its content that it won.
        """
        return self._conditional(name, content, "create")

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Replace an object if it still has this ETag (`If-Match`); return whether it had. Contents differ as in `create`."""
        return self._conditional(name, content, {"e_tag": tag})

    def write(self, name: str, content: bytes) -> None:
        """Write an object, whatever it held."""
        self._asked(lambda: self._obstore.put(self._store, name, content))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects of a folder and of those below it."""
        pages = iter(self._obstore.list(self._store, prefix))
        while (page := self._asked(lambda: next(pages, None))) is not None:
            for one in page:
                yield StoredObject(one["path"], one["size"], one["e_tag"])

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        if names:
            self._or_none(lambda: self._obstore.delete(self._store, list(names)))

    def _conditional(self, name: str, content: bytes, mode: Any) -> bool:
        """Put an object under a condition. A request that was repeated after a lost answer may have failed on its own success."""
        exceptions = self._obstore.exceptions

        def put() -> bool:
            try:
                self._obstore.put(self._store, name, content, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return False
            return True

        return self._asked(put) or self.read(name) == content

    def _or_none(self, ask: Callable[[], _T]) -> _T | None:
        """Return the answer of the store; None if the object is not there, which a missing bucket is not."""
        try:
            return ask()
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket</Code>" in str(error):
                raise self._named(error) from None
            return None
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise self._named(error) from None

    def _asked(self, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise self._named(error) from None

    def _named(self, error: Exception) -> StoreError:
        """Return the error of a request in words, without its address and headers."""
        text = str(error)
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        status = re.search(r"status code: (\d{3})", text)
        answer = " ".join(found[1] for found in (status, code) if found) or type(error).__name__
        if code and code[1] == "NoSuchBucket":
            return StoreError("the bucket does not exist.", where=self.address, fix=_ADDRESS)
        if code and code[1] == "NoSuchKey":
            return ObjectLostError(
                "an object that a table lists is lost.", where=self.address, fix="`fmaudit run` makes it again."
            )
        if "AccessDenied" in text or (
            status and status[1] in ("401", "403")
        ):  # of one object among several, without a status
            return StoreError(f"access to the bucket was refused ({answer}).", where=self.address, fix=_CREDENTIALS)
        cause = next((words for part, words in _CAUSES if part in text), f"its store answered {answer}")
        fix = _CREDENTIALS if "credentials" in cause else _ADDRESS
        return StoreError(f"the bucket cannot be reached: {cause}.", where=self.address, fix=fix)

    @property
    def _obstore(self) -> Any:
        with needs_extra("cloud", "a bucket"):
            import obstore
            import obstore.exceptions
        return obstore

    @cached_property
    def _store(self) -> S3Store:
        with needs_extra("cloud", "a bucket"):
            from obstore.store import S3Store
        bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        # this name has precedence over every variable of the environment
        given = {"aws_endpoint_url_s3": self.endpoint, "region": self.region}
        client: dict[str, Any] = {
            "allow_http": (self.endpoint or "").startswith("http://"),
            "allow_invalid_certificates": False,  # also where the environment allows them
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=20),  # of silence
            "timeout": timedelta(minutes=10),
        }
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options=client,  # type: ignore[arg-type]  # a TypedDict of the same keys
            retry_config=_RETRIES,  # type: ignore[arg-type]  # likewise
            **{key: value for key, value in given.items() if value},  # type: ignore[arg-type]  # likewise
        )
