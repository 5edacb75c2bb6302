"""What a search asks for."""

from dataclasses import dataclass

from service.decoding.task import Region
from service.filters.columns import Facet
from service.filters.masks import KeptMask
from service.filters.selection import EVERYTHING, Selection
from service.search.groups import Grouping


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    ``min_score``: the lowest score of a hit, -inf for any. ``exclude_same``: leaves out images with
    the query's bytes. ``selection``: the images to search. ``pages``: whether the answer says how
    to go on, and how many images there are. ``region``: the part of the queries that is searched
    for. ``grouping``: how hits form groups, of which there are ``k`` at most. ``facets``: fields
    whose values are counted over the selection. ``explain``: whether the answer says which class
    the query resembles. ``kept``: the mask of the selection, which the searcher finds.
    """

    k: int
    min_score: float
    exclude_same: bool
    selection: Selection = EVERYTHING
    pages: bool = False
    region: Region | None = None
    grouping: Grouping | None = None
    facets: tuple[str, ...] = ()
    explain: bool = False
    kept: KeptMask | None = None

    @property
    def counted(self) -> list[Facet]:
        """The facets, of the images that the caller may see."""
        return [Facet(name, self.selection.prefix) for name in self.facets]

    @property
    def hits_alone(self) -> bool:
        """Whether the answer is a list of hits and nothing else."""
        return not (self.pages or self.grouping or self.facets or self.explain)
