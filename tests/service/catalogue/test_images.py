from types import SimpleNamespace
from typing import Any

from service.catalogue.images import Catalogue


def test_counts_are_of_the_active_model_and_made_anew_only_where_something_changed() -> None:
    asked: list[str] = []

    def counts(model: str) -> tuple[int, int, int]:
        asked.append(model)
        return 1, len(asked), 1

    nothing: Any = None
    store: Any = SimpleNamespace(reader=SimpleNamespace(counts=counts))
    feed: Any = SimpleNamespace(model="a")
    catalogue = Catalogue(store, feed, nothing, nothing, nothing)
    assert [catalogue.counts(head)[1] for head in (1, 1, 2)] == [1, 1, 2]
    feed.model = "b"
    assert [catalogue.counts(2)[1] for _ in range(2)] == [3, 3]
    assert asked == ["a", "a", "b"]
