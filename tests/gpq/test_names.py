"""A class of gpq has a name that no other class of the project has."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def class_names(package: str) -> list[str]:
    names: list[str] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        names += [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return names


def test_no_class_name_of_gpq_has_two_meanings() -> None:
    names = Counter(class_names("gpq"))
    assert "NativeScanner" in names
    assert {name for name, count in names.items() if count > 1} == set()
    for package in ("service", "trainer"):
        others = class_names(package)
        assert others
        assert names.keys() & set(others) == set()
