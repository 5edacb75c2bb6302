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


def form(example: dict[str, Any], required: str, **fields: dict[str, Any]) -> dict[str, Any]:
    """Describes a multipart form."""
    schema = {"type": "object", "required": [required], "properties": fields}
    return {"multipart/form-data": {"schema": schema, "example": example}}
