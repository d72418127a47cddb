"""Define the base class of the configuration's sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

Port = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Section(BaseModel):
    """One section: frozen, refuses unknown keys and infinite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: object, info: ValidationInfo) -> object:
        """Refuse booleans for other types: YAML reads yes, no, on and off as booleans."""
        asked_for = cls.model_fields[info.field_name or ""].annotation is bool
        if isinstance(value, bool) and not asked_for:
            msg = "is a boolean (YAML reads yes, no, on and off so); quote it if text is meant"
            raise ValueError(msg)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _plain_text(cls, value: object) -> object:
        """Refuse text that no file name, address or topic can contain."""
        if isinstance(value, str):
            if "\0" in value:
                msg = "holds a NUL character; remove it"
                raise ValueError(msg)
            try:
                value.encode()
            except UnicodeEncodeError:
                msg = "holds half of a surrogate pair, which is no character; remove it"
                raise ValueError(msg) from None
        return value
