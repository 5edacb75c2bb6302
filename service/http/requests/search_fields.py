"""Defines the fields of searches, and how they become options."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from service.access.keys import Caller
from service.decoding.task import Region
from service.errors import InvalidFilter
from service.filters import grammar
from service.filters.selection import Selection
from service.filters.values import keys_of
from service.http.problems import Problem
from service.search.groups import Grouping
from service.search.options import SearchOptions
from service.settings import ID_PATTERN

MAX_RESULTS = 1000  # largest k of a search
DEFAULT_RESULTS = 10
ANY_SCORE = -1.0  # the lowest cosine, which leaves out nothing, also where scores are lower
MAX_BATCH_RESULTS = 100_000  # queries of a batch times k
MOST_EXAMPLES = 16  # positive ones, and as many negative ones
WHOLE = Region(0, 0, 1, 1)
LEAST_SIDE, ROUNDING = 0.001, 1e-6  # of a region, in fractions
MAX_CURSOR = 48 * 2**10  # characters
MAX_PAGED_FILTER = 16 * 2**10  # characters of a filter, which its cursors contain
MAX_FILTER_TEXT = 8 * 2**10  # characters of a filter in a URL
MAX_GROUP, MAX_GROUPED = 100, 10_000  # hits of one group, and of all groups
MOST_FACETS = 8
MAX_SEARCH_FIELDS = 20  # text fields of a form, with facets, but without examples


class RegionBody(BaseModel):
    """A region: a part of an upright image, in fractions of its width and height."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"x": 0, "y": 0, "width": 1, "height": 1}},
    )

    x: Annotated[float, Field(ge=0, lt=1, description="left edge")]
    y: Annotated[float, Field(ge=0, lt=1, description="upper edge")]
    width: Annotated[float, Field(gt=0, le=1, description="of the region")]
    height: Annotated[float, Field(gt=0, le=1, description="of the region")]

    @model_validator(mode="after")
    def _inside(self) -> "RegionBody":
        if self.x + self.width > 1 + ROUNDING or self.y + self.height > 1 + ROUNDING:
            raise ValueError(
                "the region leaves the image: x + width and y + height must be at most 1"
            )
        if min(self.width, self.height) < LEAST_SIDE:
            raise ValueError(f"width and height are at least {LEAST_SIDE}")
        return self


REGION_SCHEMA = {
    **RegionBody.model_json_schema(),
    "description": "part of the query to search for, in fractions of its upright width and height; "
    "in a form, JSON text",
}


class SearchFields(BaseModel):
    """Fields of a search beside the image."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=MAX_RESULTS, description="most results to return")] = (
        DEFAULT_RESULTS
    )
    min_score: Annotated[
        float,
        Field(
            ge=ANY_SCORE,
            le=1,
            allow_inf_nan=False,
            description="lowest score of a result; -1 returns results of any score",
        ),
    ] = ANY_SCORE
    exclude_same: Annotated[
        bool, Field(description="leave out stored images with the query's bytes, itself included")
    ] = False
    model: Annotated[
        str, Field(description="id of the expected model; 409 if another is active")
    ] = ""

    filter: Annotated[
        dict[str, Any] | None,
        Field(
            description="chooses the images to search by their metadata, for example "
            '`{"brand": "acme", "price": {"lt": 20}}`; in a form, JSON text',
            examples=[{}],
        ),
    ] = None

    region: Annotated[RegionBody | None, WithJsonSchema(REGION_SCHEMA)] = None
    pages: Annotated[
        bool,
        Field(description="whether the reply has `next_cursor`, to go on, and `total`"),
    ] = False

    group_by: Annotated[
        str,
        Field(
            description="a field of the metadata: `results` has the best image of each value, with "
            "the value in `group`, and `k` counts groups"
        ),
    ] = ""
    group_size: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_GROUP,
            description="most images of a group; those after the first are in `others`",
        ),
    ] = 1
    facets: Annotated[
        list[str],
        Field(
            max_length=MOST_FACETS,
            description="fields of the metadata whose values are counted over the images of the "
            "filter; in a form, repeat the field",
        ),
    ] = []
    explain: Annotated[
        bool,
        Field(
            description="whether the reply says which of the model's classes the query resembles, "
            "and what each score owes to them"
        ),
    ] = False

    def options(self, caller: Caller) -> SearchOptions:
        """Raises Problem 422, InvalidFilter."""
        selection = selection_of(self.filter, caller)
        if self.pages and selection.filter and len(selection.filter.text) > MAX_PAGED_FILTER:
            limit = f"with pages it has at most {MAX_PAGED_FILTER:,} characters of JSON"
            raise InvalidFilter(f"filter: {limit}; shorten it, or search without pages")
        region = None if self.region is None else Region(**self.region.model_dump())
        region = None if region == WHOLE else region
        return SearchOptions(
            k=self.k,
            min_score=self.min_score if self.min_score > ANY_SCORE else -math.inf,
            exclude_same=self.exclude_same,
            selection=selection,
            pages=self.pages,
            region=region,
            grouping=self._grouping(),
            facets=tuple(dict.fromkeys(grammar.field_name(name, "facets") for name in self.facets)),
            explain=self.explain,
        )

    def _grouping(self) -> Grouping | None:
        if not self.group_by:
            if self.group_size > 1:
                raise Problem(422, "invalid-field", "group_size: name a field with group_by")
            return None
        if self.pages:
            raise Problem(422, "invalid-field", "group_by: groups have no pages; ask for more")
        if self.k * self.group_size > MAX_GROUPED:
            sizes = f"{self.k} groups × {self.group_size} images"
            raise Problem(
                422, "too-many-results", f"group_size: {sizes}; at most {MAX_GROUPED} in all"
            )
        name = grammar.field_name(self.group_by, "group_by")
        return Grouping(keys_of(name, "group_by"), self.group_size)


@dataclass(frozen=True)
class ImageUrl:
    """The address of an image to search for."""

    url: str


@dataclass(frozen=True)
class GivenExample:
    """An example of a request: an upload, the id of a stored image, or an address.

    ``weight``: below 0 for a negative example.
    """

    query: BinaryIO | str | ImageUrl
    weight: float


class ExampleBody(BaseModel):
    """A stored image, or one of another server, as an example."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[
        str | None, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")
    ] = None
    image_url: Annotated[
        str | None,
        Field(description="in place of id: address of an image, if GPQ_FETCH allows it"),
    ] = None
    weight: Annotated[
        float, Field(ge=0.01, le=100, allow_inf_nan=False, description="how much it counts")
    ] = 1.0

    @model_validator(mode="after")
    def _name_one_image(self) -> "ExampleBody":
        if (self.id is None) == (self.image_url is None):
            raise ValueError("give either id or image_url")
        return self

    def given(self, times: float) -> GivenExample:
        """Returns the example, its weight multiplied by ``times``."""
        query = self.id if self.id is not None else ImageUrl(self.image_url or "")
        return GivenExample(query, times * self.weight)


class SearchByExamplesBody(SearchFields):
    """JSON body of a search by several stored images."""

    positive: Annotated[
        list[ExampleBody],
        Field(min_length=1, max_length=MOST_EXAMPLES, description="what hits are like"),
    ]
    negative: Annotated[
        list[ExampleBody],
        Field(max_length=MOST_EXAMPLES, description="what hits are not like"),
    ] = []


class SearchByCursorBody(BaseModel):
    """JSON body of a search that goes on."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str,
        Field(max_length=MAX_CURSOR, description="`next_cursor` of the page before; only with `k`"),
    ]
    k: Annotated[
        int | None,
        Field(ge=1, le=MAX_RESULTS, description="most results to return; as before if left out"),
    ] = None


class SearchByUrlBody(SearchFields):
    """JSON body of a search by an image of another server."""

    image_url: Annotated[
        str, Field(description="address of an image on another server, if GPQ_FETCH allows it")
    ]


class SearchByIdBody(SearchFields):
    """JSON body of a search by a stored image."""

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]


def selection_of(value: Any, caller: Caller) -> Selection:
    chosen = None if value in (None, {}) else grammar.parse(value)
    return Selection(chosen, caller.prefix)
