"""What the bodies of all replies have in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    """A reply body. ``example``: shown in OpenAPI."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema, model: schema.update(
            {"example": model.example} if model.example else {}
        )
    )
    example: ClassVar[dict[str, Any]] = {}
