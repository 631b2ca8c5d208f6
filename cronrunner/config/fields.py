"""The types of single values in ``tenants.yaml``, and how each is read."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from cronrunner.config.fault import Expected, did_you_mean
from cronrunner.config.references import URL, Reference, read_password, read_url
from cronrunner.errors import DurationError
from cronrunner.model import parse_duration

_ZONES: Final = "an IANA time zone such as Europe/Berlin"
_INTERPOLATED: Final = r"\$\{"
_TEXT: Final = {"type": "string", "minLength": 1}


def _folder(info: ValidationInfo) -> Path:
    """Return the folder of the file, to which relative paths are relative."""
    return Path((info.context or {}).get("folder", ""))


def _need_text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise Expected(expected, advice="put it in quotes" if _is_scalar(value) else "")
    return value


def _is_scalar(value: object) -> bool:
    return isinstance(value, int | float | bool)


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value))
    except (DurationError, OverflowError) as error:
        raise Expected("a duration such as 30s, 5m or 1h30m") from error


def _read_zone(value: object) -> str:
    return _known_zone(str(_need_text(value, _ZONES)))


def _read_job_zone(value: object) -> str:
    """Read a zone, or the word for each tenant's own."""
    return "tenant" if value == "tenant" else _read_zone(value)


@lru_cache(maxsize=1024)
def _known_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        raise Expected(_ZONES, advice=did_you_mean(name, available_timezones())) from error


def _read_path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return _folder(info) / value
    name = _need_text(value, "a path")
    if not name or "\0" in name:
        raise Expected("a path")
    return _folder(info) / name


def _read_textfile(value: Path) -> Path:
    if value.suffix != ".prom":
        raise Expected("a path that ends in .prom", advice="the node exporter reads no others")
    return value


def _read_password(value: object, info: ValidationInfo) -> Reference:
    if isinstance(value, Reference):
        return value
    return read_password(_need_text(value, "text, ${NAME} or file:/path"), _folder(info))


def _read_url(value: object, info: ValidationInfo) -> Reference:
    if isinstance(value, Reference):
        return value
    reference = read_url(_need_text(value, "a URL"), _folder(info))
    if not URL.match(reference.reveal()):
        raise Expected("a URL such as mysql+pymysql://user@host:3306 or sqlite:///var/file.db")
    return reference


def _read_web_url(value: object, info: ValidationInfo) -> Reference:
    if isinstance(value, Reference):
        return value
    reference = read_url(_need_text(value, "a URL"), _folder(info))
    if not reference.reveal().startswith(("http://", "https://")):
        raise Expected("a URL such as http://pushgateway:9091")
    return reference


def _no_boolean(value: object) -> object:
    # To Python, and so to pydantic, True is the number 1.
    if isinstance(value, bool):
        raise Expected("a whole number")
    return value


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return value
    raise Expected("a glob or a list of globs")


def some(value: object) -> object:
    """Refuse an empty list. Other than pydantic's own, it does not follow from a bad member."""
    if value == []:
        raise Expected("at least one", got="an empty list")
    return value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1)]

Globs = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
"""One glob or a list of globs."""

Texts = Annotated[
    tuple[Text, ...],
    BeforeValidator(some),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}),
]
"""The same, and at least one."""

FromZero = Annotated[int, Field(ge=0), BeforeValidator(_no_boolean)]

FromOne = Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)]
FromTwo = Annotated[int, Field(ge=2), BeforeValidator(_no_boolean)]

Processes = Annotated[int, Field(ge=1, le=64), BeforeValidator(_no_boolean)]

Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_no_boolean)]

Duration = Annotated[
    timedelta,
    PlainValidator(_read_duration),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^(\d+(\.\d+)?(ms|s|m|h|d))+$|{_INTERPOLATED}",
            "examples": ["30s", "5m", "1h30m"],
        }
    ),
]

Zone = Annotated[
    str,
    PlainValidator(_read_zone),
    WithJsonSchema({"type": "string", "examples": ["Europe/Berlin"]}),
]

JobZone = Annotated[
    str,
    PlainValidator(_read_job_zone),
    WithJsonSchema({"type": "string", "examples": ["Europe/Berlin", "tenant"]}),
]

FolderPath = Annotated[
    Path, PlainValidator(_read_path), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A path; relative ones are relative to the folder of the file."""

TextfilePath = Annotated[
    Path,
    PlainValidator(lambda value, info: _read_textfile(_read_path(value, info))),
    WithJsonSchema({"type": "string", "pattern": rf"\.prom$|{_INTERPOLATED}"}),
]

Password = Annotated[
    Reference,
    PlainValidator(_read_password),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "examples": ["${DB_PASSWORD}", "file:/run/secrets/db"]}
    ),
]

Url = Annotated[
    Reference,
    PlainValidator(_read_url),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^[A-Za-z][A-Za-z0-9+.-]*://|^file:|{_INTERPOLATED}"}
    ),
]

WebUrl = Annotated[
    Reference,
    PlainValidator(_read_web_url),
    WithJsonSchema({"type": "string", "pattern": rf"^https?://|^file:|{_INTERPOLATED}"}),
]

Labels = dict[str, Text]

Options = Annotated[dict[str, Any], BeforeValidator(_plain)]
"""What jobs get: plain data, whatever it was interpolated from."""
