"""A page as a reader without a browser takes it in: its words, what it would load, its tables."""

from __future__ import annotations

import base64
import gzip
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Words, loads and the rows of its tables; scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[str] = []
        self.loads: list[str] = []
        self.rows: list[list[str]] = []
        self.silent = ""
        self.styles: list[str] = []
        self.feed(text)
        self.visible = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self.silent = tag
        given = {name: value or "" for name, value in attrs}
        self.attributes += list(given.values())
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if name in given and not given[name].startswith("#"):
                self.loads.append(f"{tag} {given[name]}")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.silent:
            self.silent = ""

    def handle_data(self, data: str) -> None:
        if self.silent == "style":
            self.styles.append(data)
        if self.silent:
            return
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()


def packed(page: str, part: str) -> str:
    """What the page carries packed: `data` of its figures, or the library `plotly`."""
    found = re.search(rf'<script type="text/plain" id="{part}">([A-Za-z0-9+/=]+)</script>', page)
    assert found is not None, part
    return gzip.decompress(base64.b64decode(found[1])).decode()


def without_plotly(page: str) -> str:
    """All that is ours, in plain words: markup, style, script and the figures unpacked."""
    from plotly.offline import get_plotlyjs

    assert packed(page, "plotly") == get_plotlyjs()
    ours = re.sub(r'(<script type="text/plain" id="plotly">)[^<]*', r"\1", page)
    data = packed(page, "data")
    return re.sub(
        r'(<script type="text/plain" id="data">)[^<]*', lambda found: found[1] + data.replace("<", "&lt;"), ours
    )
