"""The registry: a folder with one YAML per encoder. One bad file never hides the others."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.publish import written_beside

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Registry:
    """Encoder specs in one folder.

    Parameters
    ----------
    folder : Path
        May be missing: then no encoder is registered.
    """

    folder: Path

    def specs(self) -> dict[str, EncoderSpec]:
        """Valid specs by name, sorted; the files that are not are told by `problems`."""
        return self._read()[0]

    def problems(self) -> dict[str, str]:
        """File name -> what is wrong with it, for every file that is no usable spec."""
        return self._read()[1]

    def spec(self, name: str) -> EncoderSpec:
        """One registered encoder.

        Raises
        ------
        SpecError
            No valid spec has that name; says which there are.
        """
        specs = self.specs()
        if name not in specs:
            raise SpecError(
                f"no encoder is called {name}; there are {', '.join(specs) or 'none'}.",
                where=str(self.folder),
                fix="Add its YAML with `fmaudit encoders add SPEC`.",
            )
        return specs[name]

    def add(self, source: Path) -> EncoderSpec:
        """Validate a spec and copy it into the registry in one rename.

        Raises
        ------
        SpecError
            The spec is wrong, or its name is taken by another file.
        WeightsError, ImportedFileError
            The file it names is missing, another one, or wrong.
        """
        spec = load_spec(source)
        if spec.weights and spec.weights.path:
            spec.weights.verified()
        if spec.embeddings:
            from fmaudit_core.encoders.imported import (
                read_imported,  # a list of specs needs neither DuckDB nor pyarrow
            )

            read_imported(spec)
        target = self.folder / f"{spec.name}.yaml"
        taken = {name for path in self._files() if path != target for name in [_name_in(path)] if name}
        if spec.name in taken:
            raise SpecError(f"the name {spec.name} is taken.", where=str(self.folder), fix="Give the encoder another.")
        text = source.read_text(encoding="utf-8")
        with written_beside(target) as beside:
            beside.write_text(text, encoding="utf-8")
        return spec

    def _read(self) -> tuple[dict[str, EncoderSpec], dict[str, str]]:
        specs: dict[str, EncoderSpec] = {}
        problems: dict[str, str] = {}
        for path in self._files():
            try:
                spec = load_spec(path)
            except SpecError as error:
                problems[path.name] = str(error)
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
    """Specs that come with fmaudit: name -> YAML."""
    folder = Path(str(files("fmaudit_core.encoders") / "specs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _name_in(path: Path) -> str | None:
    try:
        return load_spec(path).name
    except SpecError:
        return None
