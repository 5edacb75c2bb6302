"""Draws the diagram of docs/architecture.md from the imports in the code.

    python docs/draw_architecture.py            # writes the diagram
    python docs/draw_architecture.py --check    # exits with 1 if the diagram is out of date

Each box is a package or module at the top of ``service``, or ``gpq`` or ``trainer`` as a whole. An
arrow that follows from others is left out. Run it from the root of the project; it needs the extra
``dev``, for grimp.
"""

import argparse
import sys
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "```mermaid\n", "```\n"
LEFT_OUT = "__main__"

Arrow = tuple[str, str]  # importer, imported


def main() -> int:
    sys.path.insert(0, str(PAGE.parent.parent))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    new = diagram(arrows())
    if not arguments.check:
        PAGE.write_text(f"{before}{BEGIN}{new}{END}{after}")
    elif old != new:
        print(f"{PAGE.name} is out of date: run python docs/draw_architecture.py")
        return 1
    return 0


def arrows() -> list[Arrow]:
    """Returns the arrows between boxes, without those that follow from others."""
    graph = grimp.build_graph("gpq", "service", "trainer", cache_dir=None)
    found = {
        (_box(importer), _box(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    found = {(a, b) for a, b in found if a != b and LEFT_OUT not in (a, b)}
    return sorted(arrow for arrow in found if not _follows(arrow, found))


def _box(module: str) -> str:
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "service" and rest else package


def _follows(arrow: Arrow, found: set[Arrow]) -> bool:
    """Returns whether a longer way leads from one box to the other."""
    start, end = arrow
    seen: set[str] = set()
    reached = {b for a, b in found if a == start and b != end}
    while reached - seen:
        box = (reached - seen).pop()
        seen.add(box)
        reached |= {b for a, b in found if a == box}
    return end in seen


def diagram(found: list[Arrow]) -> str:
    """Returns the diagram as Mermaid text."""
    lines = [f"  {importer} --> {imported}" for importer, imported in found]
    return "\n".join(["flowchart TD", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
