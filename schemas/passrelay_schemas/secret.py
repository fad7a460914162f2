"""The type that holds clear text: no way of printing, copying or serialising it shows the value."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Secret:
    """A text that must never leave the process in clear; `reveal()` is the only way to the value.

    Python cannot wipe a str: the value lives until it is collected. SECURITY.md says what that means.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The clear text, for the one call that seals or writes it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        left = self._value.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(left, other._value.encode("utf-8", "surrogatepass"))

    __hash__ = None  # type: ignore[assignment] # a hash table would keep something derived from the value

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: "Secret(***)"),
        )
