"""The rooms of the product as its imports draw them: `python -m tests.house` counts rooms, arrows and floors.

A room is a folder of modules directly below a package that is divided into rooms. A module that lies there loose is a room
by itself. An arrow goes from a room to another that it imports, at the top of a module or inside a function. A floor is the
longest way down.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("fmaudit_core", "fmaudit_dagster")

Arrow = tuple[str, str]


@dataclass(frozen=True)
class Import:
    """One import of a module of the product."""

    file: Path
    line: int
    text: str
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def module_name(file: Path) -> str:
    """`fmaudit_core/report/page.py` -> `fmaudit_core.report.page`."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the product and its file, relative to `root`."""
    files = (path.relative_to(root) for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return {module_name(file): file for file in files}


def imports(root: Path = ROOT) -> Iterator[Import]:
    """Every import of one module of the product by another."""
    known = modules(root)
    for source, file in known.items():
        for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named = [(alias.name, f"import {alias.name}") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file}:{node.lineno}: imports are absolute"
                named = [
                    (f"{node.module}.{alias.name}", f"from {node.module} import {alias.name}") for alias in node.names
                ]
            else:
                continue
            for name, text in named:
                target = name if name in known else name.rpartition(".")[0]
                if target in known and target != source:
                    yield Import(file, node.lineno, text, source, target)


def room_of(module: str, house: str) -> str | None:
    """The room of a module in a package that is divided into rooms; None where it lies elsewhere, or is the package itself."""
    inside = module.removeprefix(f"{house}.")
    return None if inside == module else inside.split(".")[0]


def arrows(found: Iterable[Import], house: str) -> dict[Arrow, list[Import]]:
    """Arrows between the rooms of a package, each with the imports that draw it."""
    drawn: dict[Arrow, list[Import]] = {}
    for one in found:
        start, end = room_of(one.source, house), room_of(one.target, house)
        if start is not None and end is not None and start != end:
            drawn.setdefault((start, end), []).append(one)
    return drawn


def rooms(known: Iterable[str], house: str) -> set[str]:
    """The rooms of a package."""
    return {room for module in known if (room := room_of(module, house)) is not None}


def cycles(drawn: Iterable[Arrow]) -> list[list[str]]:
    """Rooms, or modules, that can be reached from themselves (strongly connected components of Tarjan, 1972)."""
    below: dict[str, set[str]] = {}
    for start, end in drawn:
        below.setdefault(start, set()).add(end)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def walk(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(below.get(node, ())):
            if other not in number:
                walk(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(below):
        if node not in number:
            walk(node)
    return found


def floors(every: Iterable[str], drawn: Iterable[Arrow]) -> dict[str, int]:
    """Room -> its floor: 1 where it imports no other, else one above the highest it imports. Rooms of a cycle share one."""
    drawn = list(drawn)
    group = {room: room for room in every}
    for part in cycles(drawn):
        group.update(dict.fromkeys(part, part[0]))
    below: dict[str, set[str]] = {}
    for start, end in drawn:
        if group[start] != group[end]:
            below.setdefault(group[start], set()).add(group[end])
    height: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((of(other) for other in below.get(room, ())), default=0)
        return height[room]

    return {room: of(group[room]) for room in group}


def code_lines(text: str) -> int:
    """Lines that are neither blank, comment nor docstring."""
    tree, prose = ast.parse(text), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for at, line in lines if line.strip() and not line.lstrip().startswith("#") and at not in prose)


def sizes(root: Path) -> Mapping[str, list[int]]:
    """Lines of files, and lines of code of functions and of assets."""
    found: dict[str, list[int]] = {"files": [], "functions": [], "assets": [], "code": []}
    for file in modules(root).values():
        text = (root / file).read_text(encoding="utf-8")
        found["files"].append(len(text.splitlines()))
        found["code"].append(code_lines(text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = [
                    one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
                ]
                n = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                found["functions"].append(n)
                if node.decorator_list and file.parts[:2] == ("fmaudit_dagster", "assets"):
                    found["assets"].append(n)
    return found


def _p95(values: list[int]) -> int:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def _drawing(root: Path, house: str) -> Iterator[str]:
    found, known = list(imports(root)), modules(root)
    every, drawn = rooms(known, house), arrows(found, house)
    height = floors(every, drawn)
    yield (
        f"{house}: {len(every)} rooms, {len(drawn)} arrows, {max(height.values())} floors, {len(cycles(drawn))} cycles"
    )
    for room in sorted(every, key=lambda one: (height[one], one)):
        below = sorted(end for start, end in drawn if start == room)
        yield f"  {height[room]:2d}  {room:<20s} {', '.join(below) or '-'}"
    yield from (f"  cycle: {' <-> '.join(part)}" for part in cycles(drawn))


def main() -> None:
    """Print the house, room by room from the ground up."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=main.__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="another checkout")
    root = parser.parse_args().root.absolute()
    divided = ["fmaudit_core", "fmaudit_core.report", "fmaudit_dagster"]
    for house in divided:
        print("\n".join(_drawing(root, house)))
    found, known = list(imports(root)), modules(root)
    whole = {f"core.{room}" for room in rooms(known, "fmaudit_core")} | {"fmaudit_core", "fmaudit_dagster"}

    def place(module: str) -> str:
        room = room_of(module, "fmaudit_core")
        return f"core.{room}" if room else module.split(".")[0]

    drawn = {(place(one.source), place(one.target)) for one in found if place(one.source) != place(one.target)}
    n_floors = max(floors(whole, drawn).values())
    print(f"the whole house, fmaudit_dagster as one room: {len(whole)} rooms, {len(drawn)} arrows, {n_floors} floors")
    measured = sizes(root)
    for name in ("files", "functions", "assets"):
        values = measured[name]
        print(
            f"lines of {name}: median {statistics.median(values):g}, 95th percentile {_p95(values)}, most {max(values)}"
        )
    print(f"lines of product: {sum(measured['files'])}, of code: {sum(measured['code'])}")


if __name__ == "__main__":
    main()
