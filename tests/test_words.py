"""The words of the product: phrases that were replaced by the field's standard terms stay out of code, docs and the page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("fmaudit_core", "fmaudit_dagster", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")
SUFFIXES = {".css", ".jinja", ".js", ".json", ".md", ".py", ".toml", ".yaml"}

#: what was written -> what to write; whole words, in any case. A phrase may span lines.
REPLACED = {
    # sentences
    "asked for, and never speak": "opt-in and never used for the primary findings",
    "lottery": "optimistically biased",
    "is content, and stands": "a content hash stored in",
    "is not at work": "is not running",
    "what it reads of nothing": "the chance level",
    "ranks better than chance explains": "significantly higher AUROC",
    "is the first worse": "non-inferior?",
    "censored for what death prevents": "censored for outcomes that require survival",
    "is meant to do": "is accepted",
    "without losing anything": "safe fixes",
    "that cannot be had": "that cannot be estimated",
    "nothing to mend": "no disparity found",
    "none helps": "no effective strategy",
    "could not be tried": "not evaluable",
    # words
    "dealt|dealers?|deals?": "permuted, permutations",
    "(?:is|was|are|were|been|being) made of": "inputs",
    "at work": "running",
    "(?<!class=\")beside": "next to, alongside",
    "(?:set|sets|setting) aside": "excluded",
    "(?:is|are|was|were) held against": "compared with",
    "speaks? for|speaking for": "is primary for",
    "mends?|mended|mending": "fix, repair",
    "(?:called|calls) in vain": "false alarm",
    "told(?!\\x20apart)": "reported, flagged, recognised",
    "(?<!regularisation\\x20)strengths?": "coefficient",
    "complaints?": "message",
    # names
    "told_config|resaid": "public_config, with_report_sentences",
    "carrier": "absorbing_subgroup",
    "mending_slices": "repairing_slice_store",
    "ledgers?|scaffolds?": "index, write_config",
}  # fmt: skip


def _product() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *PRODUCT], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES]


def _found(phrase: str, text: str) -> list[int]:
    """Return the lines that a phrase begins on; a blank of it matches any white space, and a comment's sign."""
    spread = re.sub(" ", r"[\\s#]+", phrase)
    return [text.count("\n", 0, one.start()) + 1 for one in re.finditer(rf"\b(?:{spread})\b", text, re.IGNORECASE)]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in _product() if path.exists()}


@pytest.mark.parametrize("phrase", REPLACED)
def test_no_replaced_word_is_left(phrase: str, texts: dict[str, str]) -> None:
    wrong = [f"{name}:{line}" for name, text in texts.items() for line in _found(phrase, text)]
    assert not wrong, f"write '{REPLACED[phrase]}' instead: {', '.join(wrong)}"


@pytest.mark.parametrize(
    ("text", "phrase", "lines"),
    [
        ("one\nIt is not\nat work.", "is not at work", [2]),
        ("# it is not\n# at work", "is not at work", [1]),
        ("written_beside(path)", "(?<!class=\")beside", []),
        ("a homework", "at work", []),
        ("an inverse regularisation strength", "(?<!regularisation\\x20)strengths?", []),
        ("Dealt anew", "dealt|dealers?|deals?", [1]),
    ],
)  # fmt: skip
def test_the_search_itself(text: str, phrase: str, lines: list[int]) -> None:
    assert _found(phrase, text) == lines
