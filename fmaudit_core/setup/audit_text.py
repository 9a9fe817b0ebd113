"""Text of a proposed audit.yaml, and the sentences on its guesses, for a table whose columns are recognised."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fmaudit_core.common.vocabulary import ATTRIBUTES, how_many
from fmaudit_core.setup.recognise_columns import RecognisedTable

HEAD: Final = (
    "# Written by `fmaudit init` from the contents of a folder. Every line is a guess: correct what is wrong, then "
    "`fmaudit run`.\n# Every other setting has the method's default; the README lists them.\n"
)


def text_of(config: Path, table: RecognisedTable, *, name: str, images: Path | None, events: Path | None = None) -> str:
    """Return the audit.yaml of a table, with a comment on each guess."""
    lines = [
        f"name: {quoted(name)}",
        "cohort:",
        "  kind: table",
        f"  table: {quoted(relative_to_config(table.path, config))}   # {table.cells.height:,} rows",
    ]
    if images is None:
        lines.append("  # images: ct   # a folder per study, or a .nii.gz with the name of the study; none was found")
    else:
        lines.append(f"  images: {quoted(relative_to_config(images, config))}")
    if events is not None:
        lines.append(f"  events: {quoted(relative_to_config(events, config))}")
    mapped = {ours: theirs for ours, theirs in table.columns.items() if ours != theirs}
    if mapped:
        lines += ["  columns:   # our name: yours"]
        lines += [f"    {ours}: {quoted(theirs)}" for ours, theirs in mapped.items()]
    if "split" not in table.columns:
        lines.append("  # without a column `split`, patients are split 70/10/20 by a hash of their id")
    levels = ", ".join(f"{name} ({n} levels)" for name, n in table.levels.items())
    lines += [
        f"tasks: [{', '.join(table.tasks)}]   # columns of labels; remove those that are not outcomes",
        "# attributes are all columns of few levels; remove those that define no subgroup of interest",
        f"attributes: [{', '.join(_attributes_of(table))}]{f'   # {levels}' if levels else ''}",
    ]
    return HEAD + "\n".join(lines) + "\n"


def guesses(table: RecognisedTable) -> list[str]:
    """Return one sentence for each guess: columns, tasks, attributes with their levels, and columns that are not used."""
    known = [name for name in table.columns if name not in table.tasks and name not in table.levels]
    sentences = [f"`{table.columns[name]}` is {name}." for name in known if table.columns[name] != name]
    for task in table.tasks:
        column = table.columns[task]
        sentences.append(f"`{column}` is a task{'' if column == task else f', named {task}'}.")
    for name, n in table.levels.items():
        column = table.columns[name]
        sentences.append(
            f"`{column}` is an attribute{'' if column == name else f', named {name}'}: {how_many(n, 'level')}."
        )
    sentences.append("age_band is an attribute: bands of the age.")
    sentences += [
        f"`{column}` is not an attribute: dates, or a name or number of people." for column in table.passed_over
    ]
    if "split" not in table.columns:
        sentences.append("No column holds the split: patients are split 70/10/20 by a hash of their id.")
    return sentences


def _attributes_of(table: RecognisedTable) -> list[str]:
    further = [name for name in table.levels if name not in ATTRIBUTES]
    return [*(name for name in ATTRIBUTES if name == "age_band" or name in table.levels), *further]


def relative_to_config(path: Path, config: Path) -> str:
    """Return the path relative to the config's folder if it lies below it, else absolute."""
    base, full = config.absolute().parent.resolve(), path.resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def quoted(text: str) -> str:
    """Return a YAML scalar, quoted if plain text would be read as something else."""
    if re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in {
        "yes",
        "no",
        "true",
        "false",
        "null",
        "on",
        "off",
    }:
        return text
    return "'" + text.replace("'", "''") + "'"
