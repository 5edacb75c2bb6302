"""Describes, for OpenAPI, the request bodies that ``bodies`` reads."""

from typing import Any

# In both notations, because pages that render forms support one or the other.
FILE = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """Describes a required body. ``content``: schema and example by media type."""
    return {"requestBody": {"required": True, "content": content}}


def form(example: dict[str, Any], required: str | None, **fields: dict[str, Any]) -> dict[str, Any]:
    """Describes a multipart form. ``required``: the field that it must have, if there is one."""
    schema = {"type": "object", "properties": fields}
    if required is not None:
        schema["required"] = [required]
    return {"multipart/form-data": {"schema": schema, "example": example}}
