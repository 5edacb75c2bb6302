"""The images that a search may find."""

from dataclasses import dataclass

from service.filters.grammar import Filter


@dataclass(frozen=True)
class Selection:
    """Images whose metadata a filter chooses, and whose ids begin with a prefix.

    ``filter``: None for any metadata. ``prefix``: "" for any id.
    """

    filter: Filter | None = None
    prefix: str = ""

    @property
    def is_everything(self) -> bool:
        return self.filter is None and not self.prefix

    def has(self, id: str, metadata: str | None) -> bool:
        """Returns whether an image belongs to it; ``metadata``: JSON text, or None."""
        if not id.startswith(self.prefix):
            return False
        return self.filter is None or self.filter.matches(metadata)


EVERYTHING = Selection()
