"""Names in a configuration that plug-ins may extend: samplers and stop rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kdsearch import plugins
from kdsearch.errors import did_you_mean

PLUGIN_TAG = "plugin"
"""Tag of the union member that stands for settings of plug-ins."""


@dataclass(frozen=True)
class PluginName:
    """Annotation of a string: a name of `own`, or a key of the mapping `attribute` of a plug-in.

    The names of plug-ins are read at validation, not at import. `kind` is the noun for the error.
    """

    kind: str
    own: tuple[str, ...]
    attribute: str

    def plugins(self) -> dict[str, Any]:
        """The entries of plug-ins by name. Raises `UserError` for a name used twice."""
        merged = plugins.merged(self.attribute, dict.fromkeys(self.own))
        return {name: value for name, value in merged.items() if name not in self.own}

    def names(self) -> list[str]:
        """Every valid name: `own`, then those of plug-ins."""
        return [*self.own, *self.plugins()]

    def check(self, name: str) -> str:
        """`name`, if it is valid. Raises `ValueError` with the nearest valid name."""
        if name not in self.own and name not in (known := self.names()):
            raise ValueError(f"there is no {self.kind} '{name}'.{did_you_mean(name, known)}")
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": self.names()}
