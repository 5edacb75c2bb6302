"""Tests of rules that the source code keeps and that no other tool checks."""

import ast
from collections.abc import Iterator

import pytest

from harness import ROOT

HTTP_MODULES = ("starlette", "fastapi", "fastapi_offline", "service.http", "http")
MAY_USE_HTTP = {"service/app.py", "service/cli/serve.py"}
STATUSES = range(400, 600)
OTHER_NUMBERS = {"SWEEP_BATCH"}  # constants in the range of status codes that mean something else
DOCUMENTED = ("gpq", "service", "trainer", "bench", "harness", "migrations", "tests")


def modules(*packages: str) -> dict[str, ast.Module]:
    """Parses all modules of some packages; returns them by their path below the repository."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted name of everything that a module imports, at any level."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def http_imports(tree: ast.AST) -> list[str]:
    return [
        name
        for name in imports(tree)
        if any(f"{name}.".startswith(f"{module}.") for module in HTTP_MODULES)
    ]


def statuses(node: ast.AST) -> Iterator[int]:
    """Yields the literals that could be HTTP status codes of errors."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if any(isinstance(target, ast.Name) and target.id in OTHER_NUMBERS for target in targets):
        return
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value in STATUSES:
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from statuses(child)


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def outside_http() -> dict[str, ast.Module]:
    found = modules("gpq", "service", "trainer")
    # service/fetch is a client of other servers.
    speak = ("service/http/", "service/fetch/")
    return {path: tree for path, tree in found.items() if not path.startswith(speak)}


def test_only_service_http_and_the_application_import_http_modules() -> None:
    users = {path: used for path, tree in outside_http().items() if (used := http_imports(tree))}
    assert users.keys() == MAY_USE_HTTP, users


def test_only_service_http_knows_status_codes() -> None:
    service = {path: tree for path, tree in outside_http().items() if path.startswith("service/")}
    assert len(service) > 50
    assert {path: found for path, tree in service.items() if (found := [*statuses(tree)])} == {}


def test_rows_of_any_type_stay_in_the_database_package() -> None:
    users = {
        path
        for path, tree in modules("gpq", "service").items()
        if any(
            isinstance(node, ast.Subscript) and ast.unparse(node).endswith("Row[Any]")
            for node in ast.walk(tree)
        )
    }
    assert {path for path in users if not path.startswith("service/database/")} == set()


@pytest.mark.parametrize("package", DOCUMENTED)
def test_no_docstring_begins_with_of(package: str) -> None:
    found = [
        f"{path}: {text.partition(chr(10))[0]}"
        for path, tree in modules(package).items()
        for text in docstrings(tree)
        if text.startswith("Of ")
    ]
    assert found == []


def test_the_checks_find_what_they_forbid() -> None:
    bad = "Of bytes in use."
    source = f'''
import starlette.requests
from service import http
from http import HTTPStatus
from httpx import Client
SWEEP_BATCH = 500
SWEEP_BATCH: int = 501
raise Problem(404, code="x") if status == 503 else retry(timeout=429)

def bytes() -> int:
    """{bad}"""
'''
    tree = ast.parse(source)
    assert http_imports(tree) == ["starlette.requests", "service.http", "http.HTTPStatus"]
    assert sorted(statuses(tree)) == [404, 429, 503]
    assert [text for text in docstrings(tree) if text.startswith("Of ")] == [bad]
