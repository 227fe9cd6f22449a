"""The JSON schema of search-space files, for editors: the models' own schemas, widened by ranges and branches."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kdsearch.config.space.file import SpaceDocument
from kdsearch.config.terms.registry import term_configs

Schema = dict[str, Any]

# Properties that may differ between trials; everything below them may, too.
_VARIABLE = {
    ("SpaceDocument", "student"), ("SpaceDocument", "distill"), ("SpaceDocument", "train"), ("DataConfig", "augment"),
    ("TwoBranchTeacher", "fuse"),
}  # fmt: skip


def json_schema() -> Schema:
    """Schema of draft 2020-12: a leaf is a value or a range, a mapping may be a `one_of`. Imports the plug-ins."""
    definitions = _Definitions(_plain_definitions())
    root = definitions.reference("SpaceDocument", variable=False, partial=False)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kdsearch search space",
        **root,
        "$defs": definitions.written,
    }


def _plain_definitions() -> dict[str, Schema]:
    """Pydantic's schema of every model, completed with the distillation terms and the profiles."""
    terms = term_configs()
    models: list[type[BaseModel]] = [SpaceDocument, *terms.values()]
    references, schema = models_json_schema([(model, "validation") for model in models], ref_template="{model}")
    definitions: dict[str, Schema] = schema["$defs"]
    switchable = {
        name: {"anyOf": [references[config, "validation"], {"type": "null"}]} for name, config in terms.items()
    }
    definitions["Terms"] = {"type": "object", "properties": switchable, "additionalProperties": False}
    properties = definitions["SpaceDocument"]["properties"]
    properties["distill"] = {"$ref": "Terms"}
    properties["profiles"] = {"type": "object", "additionalProperties": {"$ref": "SpaceDocument"}}
    return definitions


class _Definitions:
    """Writes the schema of each model in every form that is referenced.

    In the `variable` form ranges may replace values; in the `partial` form, that of profiles, no key is required.
    """

    def __init__(self, plain: dict[str, Schema]) -> None:
        self.plain = plain
        self.written: dict[str, Schema] = {}

    def reference(self, model: str, variable: bool, partial: bool) -> Schema:
        """A reference to one form of a model; the first reference writes the form."""
        name = model + ".range" * variable + ".partial" * partial
        if name not in self.written:
            self.written[name] = {}  # profiles are spaces themselves: reserve the name before the parts are written
            self.written[name] = self._model(model, variable, partial)
        return {"$ref": f"#/$defs/{name}"}

    def _model(self, model: str, variable: bool, partial: bool) -> Schema:
        schema = {key: value for key, value in self.plain[model].items() if not (partial and key == "required")}
        properties = {
            key: self._property(value, variable or (model, key) in _VARIABLE, partial or key == "profiles")
            for key, value in schema.get("properties", {}).items()
            if not (partial and key == "profiles")
        }
        return {**schema, "properties": properties}

    def _property(self, schema: Schema, variable: bool, partial: bool) -> Schema:
        value: Schema = self._form(schema, variable, partial)
        if not variable:
            return value
        about: Schema = {key: value.pop(key) for key in ("title", "description", "default") if key in value}
        kinds = _ranges_of(value) if not _is_section(value) else [_one_of(value)]
        return {**about, "anyOf": [value, *kinds]}

    def _form(self, schema: Any, variable: bool, partial: bool) -> Any:
        """The schema with each reference to a model replaced by a reference to the given form of it."""
        if isinstance(schema, list):
            return [self._form(item, variable, partial) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return {**schema, **self.reference(schema["$ref"], variable, partial)}
        return {
            "anyOf" if key == "oneOf" else key: self._form(value, variable, partial)
            for key, value in schema.items()
            if key != "discriminator"
        }


def _is_section(schema: Schema) -> bool:
    return "$ref" in schema or any("$ref" in member for member in schema.get("anyOf", []))


def _one_of(value: Schema) -> Schema:
    branches = {"type": "array", "minItems": 1, "items": {"anyOf": [value, {"type": "null"}]}}
    return _mapping("one_of", branches, {"type": ["integer", "string"]})


def _ranges_of(value: Schema) -> list[Schema]:
    types = {value.get("type"), *(member.get("type") for member in value.get("anyOf", []))}
    ranges = [_mapping("choice", {"type": "array", "minItems": 1, "items": value}, value)]
    if types & {"integer", "number"}:
        ranges += [_numeric("int", "integer"), _numeric("int_log", "integer")]
    if "number" in types:
        ranges += [_numeric("uniform", "number"), _numeric("log", "number")]
    return ranges


def _numeric(kind: str, number: str) -> Schema:
    bound: Schema = {"type": number, "exclusiveMinimum": 0} if kind.endswith("log") else {"type": number}
    return _mapping(kind, {"type": "array", "minItems": 2, "maxItems": 2, "items": bound}, bound)


def _mapping(kind: str, value: Schema, default: Schema) -> Schema:
    properties = {kind: value, "default": default}
    return {"type": "object", "properties": properties, "required": [kind], "additionalProperties": False}
