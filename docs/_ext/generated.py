"""Parts of the reference that are written from the code, so that they cannot drift.

A page holds ``<!-- generated: NAME -->`` where a part belongs; the part replaces it when the page is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import notebook
import settings
import tables
from docutils import nodes
from plotly.offline import get_plotlyjs
from pydantic import BaseModel
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

from fmaudit_core import config
from fmaudit_core import tables as declarations
from fmaudit_core.encoders import spec
from fmaudit_core.imaging import rules, series
from fmaudit_core.imaging.archive import reasons as passed_over
from fmaudit_core.pipeline import steps
from fmaudit_core.sites import errors as site_errors
from fmaudit_core.sites import probe_file, summary_file
from fmaudit_dagster import checks


def _quarantine() -> str:
    """Why a series is refused, and what is flagged in one that is accepted."""
    reasons = [f"| `{name}` | {said} |" for name, said in (series.REASONS | rules.RULE_REASONS).items()]
    flags = [f"| `{name}` | {said} |" for name, said in series.FLAGS.items()]
    head = "|---|---|"
    return "\n".join(
        [
            "| reason | means |",
            head,
            *reasons,
            "",
            "An accepted series may carry flags:",
            "",
            "| flag | means |",
            head,
            *flags,
        ]
    )


def _archive() -> str:
    """Why a file of an archive belongs to no study."""
    rows = [f"| `{name}` | {said} |" for name, said in passed_over.PASSED_OVER.items()]
    return "\n".join(["| passed over | what |", "|---|---|", *rows])


def _checks() -> str:
    """Every asset check: of what, what it holds, whether it blocks."""
    rows = [
        f"| `{spec.name}` | `{spec.asset_key.to_user_string()}` | {'yes' if spec.blocking else 'no'} | {spec.description} |"
        for check in checks.CHECKS
        for spec in check.check_specs
    ]
    return "\n".join(["| check | of | blocks | holds |", "|---|---|---|---|", *rows])


def _steps() -> str:
    """Every step: its partitions, the assets it makes, what it reads, and its tables."""

    def names(values: Iterable[str]) -> str:
        return ", ".join(f"`{value}`" for value in values)

    rows = [
        f"| `{step.name}` | {step.by} | {names(step.input_steps) or '-'} | {names(step.tables)} |"
        for step in steps.STEPS
    ]
    return "\n".join(["| step | partition | reads | publishes |", "|---|---|---|---|", *rows])


def _site_errors() -> str:
    """Every error of a file that sites exchange."""
    rows = [f"| `{name}` | {said} |" for name, said in site_errors.ERRORS.items()]
    return "\n".join(["| error | means |", "|---|---|", *rows])


def _modules(package: ModuleType) -> list[str]:
    """Files of a package."""
    return sorted(str(path) for path in Path(str(package.__file__)).parent.glob("*.py"))


_NOTEBOOK: Final = Path(__file__).parents[1] / "tutorial" / "in-a-notebook.ipynb"
#: name of a part -> its Markdown, and the files whose change makes the page out of date
PARTS: Final[Mapping[str, tuple[Callable[[], str], tuple[str, ...]]]] = {
    "notebook": (lambda: notebook.rendered(_NOTEBOOK), (str(_NOTEBOOK), notebook.__file__)),
    "configuration": (lambda: settings.reference(config.Audit, level=2), (*_modules(config), settings.__file__)),
    "encoder-spec": (lambda: settings.reference(spec.EncoderSpec, level=2), (*_modules(spec), settings.__file__)),
    "quarantine": (_quarantine, (series.__file__, rules.__file__)),
    "archive": (_archive, (passed_over.__file__,)),
    "checks": (_checks, (checks.__file__,)),
    "steps": (_steps, (steps.__file__,)),
    "probe-file": (lambda: settings.reference(probe_file.ProbeFile, level=3), (probe_file.__file__,)),
    "summary-file": (lambda: settings.reference(summary_file.SiteSummary, level=3), (summary_file.__file__,)),
    "site-errors": (_site_errors, (site_errors.__file__,)),
    "tables": (tables.reference, (tables.__file__, *_modules(declarations))),
}
_MARK: Final = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)


def filled(text: str, page: str) -> tuple[str, list[str]]:
    """Return a page with its parts in place, and the files they depend on."""
    files: list[str] = []

    def part(found: re.Match[str]) -> str:
        if found[1] not in PARTS:
            raise ExtensionError(f"{page}: no part is called {found[1]}; there are {', '.join(PARTS)}.")
        write, depends = PARTS[found[1]]
        files.extend(depends)
        return write()

    return _MARK.sub(part, text), files


def _on_read(app: Sphinx, page: str, source: list[str]) -> None:
    source[0], files = filled(source[0], page)
    for file in files:
        app.env.note_dependency(file)


def _write_plotly(app: Sphinx, error: Exception | None) -> None:
    """Write the script that draws a notebook's figures into the site, which needs no network then."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, notebook.PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")


_NOT_A_CALL: Final = ("attribute", "data", "property")


def _keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Napoleon takes what stands before the colon of an attribute's comment for its type; ours are sentences."""
    if what in _NOT_A_CALL:
        app.env.temp_data[f"said of {name}"] = list(lines)


def _restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if what in _NOT_A_CALL:
        lines[:] = app.env.temp_data.pop(f"said of {name}")


def _without_fields(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Skip the fields of pydantic models: the references of settings and specs describe them."""
    is_model = isinstance(obj, type) and issubclass(obj, BaseModel)
    return ("", None) if is_model else (signature, returns)


def _type_of_a_signature(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.TextElement
) -> nodes.TextElement | None:
    """Types in signatures are links where a page holds them, else words; references in the text must resolve."""
    above = node.parent
    while above is not None:
        if isinstance(above, addnodes.desc_signature):
            return contnode
        above = above.parent
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("source-read", _on_read)
    app.connect("build-finished", _write_plotly)
    app.connect("missing-reference", _type_of_a_signature)
    app.connect("autodoc-process-signature", _without_fields)
    app.connect("autodoc-process-docstring", _keep, priority=400)  # napoleon comes at 500
    app.connect("autodoc-process-docstring", _restore, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
