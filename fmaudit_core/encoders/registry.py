"""The registry: a folder with one YAML per encoder. An invalid file does not hide the others."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.published import with_weights
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.storage.atomic_write import written_beside

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Registry:
    """Encoder specs in one folder.

    Parameters
    ----------
    folder : Path
        If it is missing, no encoder is registered.
    """

    folder: Path

    def specs(self) -> dict[str, EncoderSpec]:
        """Return the valid specs by name, sorted; `problems` lists the invalid files."""
        return self.read()[0]

    def problems(self) -> dict[str, str]:
        """Return file name -> problem, for every file that is not a usable spec."""
        return self.read()[1]

    def spec(self, name: str) -> EncoderSpec:
        """Return one registered encoder.

        Raises
        ------
        SpecError
            No valid spec has that name; the message lists the valid names.
        """
        specs = self.specs()
        if name not in specs:
            raise SpecError(
                f"unknown encoder {name}; the encoders are {', '.join(specs) or 'none'}.",
                where=str(self.folder),
                fix="Add its YAML with `fmaudit encoders add SPEC`.",
            )
        return specs[name]

    def named(self, name: str) -> EncoderSpec:
        """Return a registered encoder, or a shipped one that is not registered.

        Raises
        ------
        SpecError
            No encoder has that name.
        """
        shipped = shipped_specs()
        if name not in self.specs() and name in shipped:
            return load_spec(shipped[name])
        return self.spec(name)

    def add(self, source: Path, weights: Path | None = None) -> EncoderSpec:
        """Validate a spec and copy it into the registry in one rename.

        Parameters
        ----------
        weights : Path, optional
            For a spec of published weights: the file, or its folder. The registered spec names it.

        Raises
        ------
        SpecError
            The spec is invalid, or another file has its name already.
        WeightsError, ImportedFileError
            The file it names is missing, has another checksum, or is invalid.
        """
        spec = load_spec(source)
        text = source.read_text(encoding="utf-8")
        if weights is not None:
            if spec.published is None:
                raise SpecError(
                    "the spec has no section `published`, so --weights cannot be used with it.",
                    where=source.name,
                    fix="Name the checkpoint in it: weights: {path: ..., sha256: ...}",
                )
            text = with_weights(text, spec.published, weights)
        elif spec.needs_weights and spec.published is not None:
            raise spec.published.missing(spec.name)
        elif spec.weights and spec.weights.path:
            spec.weights.verified()
            text = _anchored(text, "weights", spec.weights.path)
        if spec.embeddings:
            from fmaudit_core.encoders.imported import (
                read_imported,  # listing specs needs neither DuckDB nor pyarrow
            )

            read_imported(spec)
            text = _anchored(text, "embeddings", spec.embeddings.path)
        target = self.folder / f"{spec.name}.yaml"
        taken = {name for path in self._files() if path != target for name in [_name_in(path)] if name}
        if spec.name in taken:
            raise SpecError(
                f"the name {spec.name} is taken.", where=str(self.folder), fix="Give the encoder another name."
            )
        with written_beside(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return load_spec(target)

    def read(self) -> tuple[dict[str, EncoderSpec], dict[str, str]]:
        """Return `specs` and `problems` together: every file is parsed once."""
        specs: dict[str, EncoderSpec] = {}
        problems: dict[str, str] = {}
        for path in self._files():
            try:
                spec = load_spec(path)
            except SpecError as error:
                problems[path.name] = str(error)
                continue
            if spec.needs_weights and spec.published is not None:
                problems[path.name] = str(spec.published.missing(spec.name))
                continue
            if spec.name in specs:
                problems[path.name] = f"{path.name}: the name {spec.name} is already taken by another file."
                continue
            specs[spec.name] = spec
        return dict(sorted(specs.items())), problems

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(
            path for path in self.folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")
        )


def shipped_specs() -> dict[str, Path]:
    """Return the specs shipped with fmaudit: name -> YAML."""
    folder = Path(str(files("fmaudit_core.encoders") / "specs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _anchored(text: str, part: str, path: Path) -> str:
    """Return the YAML with an absolute path of its file; a relative path is resolved from the folder of the original YAML."""
    raw = yaml.safe_load(text)
    if Path(raw[part]["path"]).is_absolute():
        return text
    raw[part]["path"] = str(path)
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)


def _name_in(path: Path) -> str | None:
    try:
        return load_spec(path).name
    except SpecError:
        return None
