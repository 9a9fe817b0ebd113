"""Published weights that cannot be redistributed: where to obtain them, and the spec that names the file once it is present."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from fmaudit_core.encoders.checksums import checkpoint_sha256, sha256_of
from fmaudit_core.encoders.errors import SpecError, WeightsError


class Published(BaseModel):
    """The source of a published checkpoint.

    Parameters
    ----------
    hub : str
        Repository on the Hugging Face hub.
    files : tuple of str
        The checkpoint's path there, the usual one first; others hold the same weights.
    config : str
        File that belongs next to the checkpoint, if the adapter reads one.
    size_bytes, sha256 : optional
        Size and SHA-256 of the first file, if known.
    gate : str
        Conditions of its owner for access.
    export : str
        What the user makes of the published weights, in the encoder's own environment, for a file that is not published.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str
    files: tuple[str, ...] = Field(min_length=1)
    config: str = ""
    size_bytes: int | None = Field(default=None, ge=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    gate: str = ""
    export: str = ""

    def missing(self, name: str) -> WeightsError:
        """Return the error that states where encoder `name`'s weights can be obtained."""
        if self.export:
            return WeightsError(
                f"its weights are not part of fmaudit: they are exported from {self.hub} on the Hugging Face hub, as "
                f"{self.export}. Gate: {self.gate or 'none stated'}.",
                where=name,
                fix=f"Export {self.files[0]} in the encoder's own environment, then: fmaudit encoders add {name} --weights PATH",
            )
        size = f"{self.size_bytes:,} bytes" if self.size_bytes else "size unknown"
        proof = f"sha256 {self.sha256}" if self.sha256 else "sha256 unknown: that of your file is recorded"
        with_config = f", with {self.config} next to it" if self.config else ""
        return WeightsError(
            f"its weights are not part of fmaudit: {self.files[0]} ({size}; {proof}){with_config}, from {self.hub} on the "
            f"Hugging Face hub. Gate: {self.gate or 'none stated'}.",
            where=name,
            fix=f"Download it, then: fmaudit encoders add {name} --weights PATH",
        )

    def found_in(self, place: Path) -> Path:
        """Return the checkpoint at `place`, a file or the folder it was downloaded to.

        Raises
        ------
        WeightsError
            It is not there, or its size differs from the published one.
        """
        names = [option for file in self.files for option in (file, Path(file).name)]
        options = [place / name for name in names] if place.is_dir() else [place]
        path = next((option for option in options if option.is_file()), None)
        if path is None:
            raise WeightsError(f"found no {' or '.join(self.files)}.", where=str(place))
        size = path.stat().st_size
        if self.size_bytes and path.name == Path(self.files[0]).name and size != self.size_bytes:
            raise WeightsError(
                f"the file has {size:,} bytes, but the published file has {self.size_bytes:,}.",
                where=str(path),
                fix="Download it again: it may be truncated.",
            )
        if self.config and not (path.parent / self.config).is_file():
            raise WeightsError(f"{self.config} is not next to the checkpoint.", where=str(path.parent))
        return path


def with_weights(text: str, published: Published, place: Path) -> str:
    """Return the YAML `text` of a spec without weights, completed with the verified weights at `place`.

    Raises
    ------
    WeightsError
        The weights are not there, or not the published ones.
    SpecError
        The YAML names weights already.
    """
    if "weights" in yaml.safe_load(text):
        raise SpecError(
            "the spec names its weights already.", fix="Omit --weights, or remove the weights from the YAML."
        )
    path = published.found_in(place.absolute())
    sha256 = checkpoint_sha256(path)
    if published.sha256 and sha256 != published.sha256:
        raise WeightsError(
            f"these are not the published weights: their sha256 is {sha256}, not {published.sha256}.",
            where=str(path),
            fix=f"Get {published.files[0]} of {published.hub}; other weights need a spec with another name.",
        )
    weights = {"path": str(path), "sha256": sha256, "sha256_from": "published" if published.sha256 else "first_seen"}
    if published.config:
        weights["config_sha256"] = sha256_of(path.parent / published.config)
    origin = (
        "the published one"
        if published.sha256
        else "that of the file found when the spec was added; no published digest is known"
    )
    return f"{text.rstrip()}\n# the sha256 is {origin}\n{yaml.safe_dump({'weights': weights}, sort_keys=False)}"
