"""The documentation keeps its word: commands parse, settings validate, links resolve, examples print what they say."""

from __future__ import annotations

import doctest
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import click
import duckdb
import polars as pl
import pytest
import yaml

from fmaudit_core.config import Audit
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.tables.schemas import TABLES
from fmaudit_dagster.cli.main import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
    if "_build" not in path.relative_to(ROOT).parts
]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
NO_PROGRAM = {"yaml", "toml", "pycon", "python"}

sys.path.insert(0, str(DOCS / "_ext"))


def named(path):
    return str(path.relative_to(ROOT))


def fenced(page, *languages):
    return [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language.strip() in languages]


# -- commands


def command_lines():
    """(page, command, whether it stands alone on a line): every `fmaudit ...` of the documentation."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [body for language, body in FENCE.findall(text) if language.strip() not in NO_PROGRAM]
        prose = FENCE.sub("", text)
        blocks += INDENTED.findall(prose)
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?fmaudit( .*|$)", line)
                if found:
                    yield page, found[1].split("  #")[0].split(" # ")[0].strip(), True
        for inline in re.findall(r"`(?:\.venv/bin/)?fmaudit ([^`]+)`", INDENTED.sub("", prose)):
            yield page, inline, False


COMMANDS = sorted({(named(page), line, alone) for page, line, alone in command_lines()})


def test_the_documentation_is_found():
    assert len(PAGES) >= 25
    assert len(COMMANDS) >= 40
    shown = {line.split()[0] for _, line, _ in COMMANDS}
    unsaid = sorted(set(main.commands) - shown)
    assert not unsaid, f"README or a page should say what these commands of fmaudit are for: {', '.join(unsaid)}"


@pytest.mark.parametrize(("page", "line", "alone"), COMMANDS)
def test_a_command_parses_against_the_real_one(page, line, alone):
    arguments = [one for one in shlex.split(line) if one not in ("...", "[QUERY]")]
    command = main
    context = click.Context(main, info_name="fmaudit")
    while True:
        # options are looked up and take their values; nothing is opened or run
        values, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
        if not isinstance(command, click.Group):
            break
        if not rest:
            assert values or not alone, f"{page}: `fmaudit {line}` names no command"
            return
        name, *arguments = rest
        assert name in command.commands, f"{page}: `fmaudit {line}`: there is no command {name}"
        command = command.commands[name]
        context = click.Context(command, parent=context, info_name=name)
    assert not rest, f"{page}: `fmaudit {line}` is given {rest}, which it does not take"
    if alone:
        needed = [one.name for one in command.params if one.required and values.get(one.name) is None]
        assert not needed, f"{page}: `fmaudit {line}` lacks {needed}"


QUERIES = sorted({(page, shlex.split(line)[1]) for page, line, _ in COMMANDS if re.match(r'sql "', line)})


@pytest.mark.parametrize(("page", "query"), QUERIES)
def test_a_query_runs_on_the_tables_there_are(page, query, tmp_path):
    import tables

    with duckdb.connect() as connection:
        for name, table in tables.TABLES.items():
            further = {"listed_slices": pl.Int64} if name == "studies" and page == "docs/inspect.md" else {}
            connection.register(name, pl.DataFrame(schema={**table.schema, **further}))
        connection.execute("ATTACH ':memory:' AS hu_histogram")
        connection.execute("CREATE TABLE hu_histogram.provenance(key VARCHAR, value VARCHAR)")
        connection.execute(query.replace("TO 'subgroup_metrics.csv'", f"TO '{tmp_path}/subgroup_metrics.csv'"))


def test_there_are_queries():
    assert len(QUERIES) >= 10


# -- settings


def yaml_blocks():
    for page in PAGES:
        for at, body in enumerate(fenced(page, "yaml")):
            yield named(page), at, body


@pytest.mark.parametrize(("page", "at", "body"), list(yaml_blocks()))
def test_a_yaml_block_is_what_it_says(page, at, body):
    """Encoder specs and audit.yaml, whole or in part; a file of somebody else says so in its first line."""
    first = body.splitlines()[0]
    content = yaml.safe_load(re.sub(r"sha256: \.\.\.", f"sha256: {'a' * 64}", body))
    assert isinstance(content, dict), f"{page}, block {at}"
    if re.match(r"# (dagster|values|workspace)\.yaml", first):
        return
    if "adapter" in content:
        EncoderSpec.model_validate(content)
    else:
        Audit.model_validate({"cohort": {"kind": "phantom"}} | content)


def test_every_setting_and_every_key_of_a_spec_is_told():
    import settings

    for model in (Audit, EncoderSpec):
        text, keys = settings.reference(model, level=2), dict(settings.keys(model))
        assert len(keys) > 25
        for key, meaning in keys.items():
            assert f"| `{key}` |" in text, key
            assert meaning, (
                f"{model.__name__}: {key} is not explained: give it a comment `#:` or a line in the docstring"
            )


def test_the_reference_tells_type_default_and_bounds():
    import settings

    text = settings.reference(Audit, level=2)
    assert "| `fairness.alpha` | number, above 0.0, below 0.5 | `0.05` |" in text
    assert "| `age_bands` | list of text like `18-40` | `[18-40, 41-60, 61-74, 75-90]` |" in text
    assert "| `cohort.ehr` | path | none |" in text
    assert "| `cohort.images` | path or text | none |" in text


def test_the_reference_lists_every_table_and_column():
    import tables

    text = tables.reference()
    for name, table in TABLES.items():
        assert f"## `{name}`" in text
        assert all(f"| `{column}` |" in text for column in table.columns), name


def test_a_page_asks_for_parts_that_exist():
    import generated

    asked = [name for page in PAGES for name in generated._MARK.findall(page.read_text(encoding="utf-8"))]
    assert sorted(asked) == sorted(generated.PARTS)


# -- links


def slug(heading):
    """The anchor a code host and the site give a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


@cache
def anchors(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    labels = re.findall(r"^\((\S+)\)=$", text, re.MULTILINE)
    return {slug(one) for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE)} | set(labels)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_inside_the_repository_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"\{download\}`[^`]*<([^>]+)>`", text):
        if "://" in target or target.startswith("#"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve()
        assert there.exists(), f"{named(page)} links to {target}, which is not there"
        generated_page = "<!-- generated:" in there.read_text(encoding="utf-8") if there.suffix == ".md" else False
        if anchor and not generated_page:  # the site's own build looks those up
            assert anchor in anchors(there), f"{named(page)} links to {target}, which has no such heading"


def test_every_page_is_in_a_table_of_contents():
    listed = {(DOCS / "index.md").resolve()}
    for page in DOCS.rglob("*.md"):
        for body in fenced(page, "{toctree}"):
            names = [line for line in body.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    pages = {page.resolve() for page in PAGES if page.is_relative_to(DOCS)}
    assert pages == listed


# -- examples


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "pycon")], ids=named)
def test_examples_print_what_the_page_shows(page, monkeypatch):
    monkeypatch.chdir(page.parent)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    said = []
    with pl.Config(tbl_width_chars=100, fmt_str_lengths=80):
        test = parser.get_doctest("\n".join(fenced(page, "pycon")), {}, named(page), named(page), 0)
        assert test.examples
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_the_wards_are_the_ones_that_are_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "statistics"))
    from draw_wards import wards

    assert wards().write_csv() == (DOCS / "statistics" / "wards.csv").read_text(encoding="utf-8")


def test_readme_is_a_front_door():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_no_page_holds_a_machine_path():
    for page in PAGES:
        for path in ("/work/", "/root/", "/tmp/"):
            assert path not in page.read_text(encoding="utf-8"), f"{named(page)} holds {path}"
