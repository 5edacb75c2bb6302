from types import SimpleNamespace
from typing import Any

from service.catalogue.images import Catalogue
from service.database.records import CodeCounts


def test_codes_of_the_active_model_are_counted_again_only_after_a_change() -> None:
    counted: list[str] = []

    def code_counts(model: str) -> CodeCounts:
        counted.append(model)
        return CodeCounts(1, len(counted), 1)

    unused: Any = None
    store: Any = SimpleNamespace(images=SimpleNamespace(code_counts=code_counts))
    follower: Any = SimpleNamespace(model="a")
    catalogue = Catalogue(store, follower, unused, unused, unused)
    assert [catalogue.code_counts(head).unique for head in (1, 1, 2)] == [1, 1, 2]
    follower.model = "b"
    assert [catalogue.code_counts(2).unique for _ in range(2)] == [3, 3]
    assert counted == ["a", "a", "b"]
