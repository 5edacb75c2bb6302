"""Routes below /fields: filter fields, whose values have an index."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.errors import NoSuchField
from service.filters.grammar import MAX_DECLARED, field_name
from service.http.dependencies import ReadyRuntime, database_route
from service.http.replies.administration import FieldsReply
from service.http.replies.images import FieldReply

router = APIRouter()

Name = Annotated[
    str,
    Path(
        max_length=2 * MAX_DECLARED,
        description="name of a field, as in a filter",
        examples=["price"],
    ),
]


@router.get("/fields", summary="List the filter fields", response_model=FieldsReply)
@database_route
def page(runtime: ReadyRuntime) -> FieldsReply:
    """Lists the fields, and whether filters use them already."""
    return FieldsReply(fields=[FieldReply.of(field) for field in runtime.store.fields.all()])


@router.put("/fields/{name}", summary="Declare a filter field", response_model=FieldsReply)
@database_route
def add(name: Name, runtime: ReadyRuntime) -> FieldsReply:
    """Makes new filters on a field of the metadata quick. Its values are collected in the
    background, from the images that are stored already too."""
    runtime.store.fields.add(field_name(name, "name"))
    return FieldsReply(fields=[FieldReply.of(field) for field in runtime.store.fields.all()])


@router.delete("/fields/{name}", summary="Remove a filter field", status_code=204)
@database_route
def remove(name: Name, runtime: ReadyRuntime) -> None:
    """Filters on the field go on, but a new one has to read the metadata of all images."""
    if not runtime.store.fields.remove(field_name(name, "name")):
        raise NoSuchField(name)
