"""The JSON Schema of ``tenants.yaml``, for editors, and the keys that are known where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cronrunner.config.document import Location
from cronrunner.config.rules import WAYS
from cronrunner.config.sections import TenantsFile
from cronrunner.model import format_duration

Schema = dict[str, Any]

#: A number, choice or boolean may come out of the environment as well.
_INTERPOLATED: Final = {"type": "string", "pattern": r"\$\{"}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, for a file that people write."""

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return {"anyOf": [super().int_schema(schema), _INTERPOLATED]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), _INTERPOLATED]}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return {"anyOf": [super().bool_schema(schema), _INTERPOLATED]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return {"anyOf": [super().literal_schema(schema), _INTERPOLATED]}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's
        return False

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401 - of any field
        if isinstance(dft, BaseModel):
            return None
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Path) else super().encode_default(dft)


@cache
def _schema() -> Schema:
    schema = TenantsFile.model_json_schema(schema_generator=_Generator)
    for section in (schema, *schema["$defs"].values()):
        for field in section.get("properties", {}).values():
            # What is left out needs no default in an editor, nor do whole sections.
            if field.get("default") in (None, {}):
                field.pop("default", None)
    schema["$defs"]["Discover"]["oneOf"] = [{"required": [way]} for way in WAYS]
    listed = schema["$defs"]["Discover"]["properties"]["list"]
    listed["minItems"] = 1
    listed["items"] = {"anyOf": [{"type": "string", "minLength": 1}, listed["items"]]}
    ledger = schema["properties"]["ledger"]
    ledger["anyOf"] = [{"type": "string"}, {"$ref": ledger.pop("$ref")}]
    schema["properties"]["servers"]["minProperties"] = 1
    schema["properties"]["servers"]["propertyNames"] = {"pattern": "^[A-Za-z0-9_.-]+$"}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of ``tenants.yaml``, as it is committed."""
    return json.dumps(_schema(), indent=2, ensure_ascii=False) + "\n"


def keys_at(location: Location) -> tuple[str, ...]:
    """Return the keys that are known at ``location``, none where any key may stand."""
    node: Schema = _schema()
    for part in location:
        node = _inside(_mapping_in(node), part)
    return tuple(_mapping_in(node).get("properties", ()))


def _inside(node: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        inner = node.get("items", {})
    else:
        inner = node.get("properties", {}).get(part) or node.get("additionalProperties", {})
    return inner if isinstance(inner, dict) else {}


def _mapping_in(node: Schema) -> Schema:
    """Follow references, and of alternatives take the mapping."""
    for choice in node.get("anyOf", ()):
        if "$ref" in choice:
            node = choice
    if "$ref" in node:
        found: Mapping[str, Schema] = _schema()["$defs"]
        return found[node["$ref"].rpartition("/")[2]]
    return node
