"""Reporting guidelines next to an audit: for each item where the audit covers it, and what a person must add.

The guidelines are data (`guidelines/*.yaml`): items in short words of our own, with the names of what an audit can point to
(`guidelines/evidence.yaml`). A table supports the writing of a report; it is no statement that a report complies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from fmaudit_core.report.text.templating import environment

AuditSummary = Mapping[str, Any]

GUIDELINES: Final = ("tripod_ai", "claim_2024", "standing_together")
PAGE_LINK: Final = "../index.html"
KEY_LINK: Final = "../audit.json"
_SHOWN: Final = 8


def checklists(audit_summary: AuditSummary, *, anchors: Set[str]) -> dict[str, str]:
    """Return every guideline filled from an audit: path below the report's folder -> content, as HTML and as one JSON file.

    Parameters
    ----------
    audit_summary : mapping
        The content of audit.json.
    anchors : set of str
        Ids of the page's sections; one that is not there is not linked to.
    """
    tables = [filled(name, audit_summary, anchors=anchors) for name in GUIDELINES]
    page = environment().get_template("templates/checklist.html.jinja")
    out = {f"checklists/{one['name']}.html": page.render(table=one, audit_summary=audit_summary) for one in tables}
    out["checklists/checklists.json"] = json.dumps(tables, indent=2, ensure_ascii=False) + "\n"
    return out


def titles() -> dict[str, str]:
    """Return the title of each guideline by its name."""
    return {name: f"{_data(name)['title']}, {_data(name)['version']}" for name in GUIDELINES}


def filled(name: str, audit_summary: AuditSummary, *, anchors: Set[str]) -> dict[str, Any]:
    """Return one guideline as a table: its items with what of the audit supports each, and what is left for people.

    Parameters
    ----------
    name : str
        One of `GUIDELINES`.
    """
    guideline = _data(name)
    items = [_item(one, audit_summary, anchors) for one in guideline["items"]]
    return {
        "name": name,
        **{key: guideline[key] for key in ("title", "version", "of", "citation", "url")},
        "supported": sum(bool(one["supports"]) for one in items),
        "left_to_people": sum(one["add"] is not None for one in items),
        "items": items,
    }


def _item(item: Mapping[str, Any], audit_summary: AuditSummary, anchors: Set[str]) -> dict[str, Any]:
    supports = list(_supports(item.get("from", ()), audit_summary, anchors))
    add = item.get("add")
    if not supports and add is None:
        add = "what this audit holds nothing about"
    return {
        "id": item["id"],
        "section": item["section"],
        "asks": item["asks"],
        "fairness": bool(item.get("fairness")),
        "supports": supports,
        "add": add,
    }


def _supports(names: Iterator[str], audit_summary: AuditSummary, anchors: Set[str]) -> Iterator[dict[str, str]]:
    evidence = _data("evidence")
    for name in names:
        one = evidence[name]
        value = _at(audit_summary, one["key"])
        if value is None or value == [] or value == {} or value == "":
            continue
        if not all(_at(audit_summary, needed) for needed in one.get("needs", ())):
            continue
        says = one["says"].format(n=_count(value), value=value, values=_listed(value))
        link = {"page": f"{PAGE_LINK}#{one['anchor']}"} if one["anchor"] in anchors else {}
        yield {"says": says, "key": f"{KEY_LINK}#{one['key']}", **link}


def _at(audit_summary: AuditSummary, pointer: str) -> Any:
    """Return the value at a JSON pointer; None if there is none."""
    value: Any = audit_summary
    for part in pointer.removeprefix("/").split("/"):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _count(value: Any) -> str:
    return f"{len(value):,}" if isinstance(value, list | tuple | Mapping) else ""


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {n}" for name, n in value.items())
    if not isinstance(value, list | tuple):
        return str(value)
    shown = [str(one) for one in value[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else "")


@cache
def _data(name: str) -> dict[str, Any]:
    text = files("fmaudit_core.report").joinpath("guidelines", f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
