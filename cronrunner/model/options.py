"""Options of jobs: what a job lets others set, and how it is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a job: its default, whose type is the option's type, and its bounds.

    ``environment`` names a variable that stands behind the configuration: command line,
    tenant, job, environment, default is the order of precedence.
    """

    default: bool | int | float | str | tuple[Any, ...] | Mapping[str, Any]
    help: str = ""
    environment: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    #: The allowed values; for a list, of each of its members; for a mapping, of each of its names.
    choices: tuple[Any, ...] = ()
    #: Raises ``ValueError``, saying what was expected, for a value that is none. What it returns
    #: is not looked at.
    check: Callable[[Any], object] | None = None

    def read(self, raw: object) -> Any:  # noqa: ANN401 - one of the types of ``default``
        """Return ``raw`` as this option's type.

        Text is accepted for every type, since that is what an environment variable and the
        command line give; a list is then separated by commas and an empty one means the
        default, and a mapping is JSON. Members of a list have the type of the default's first
        one. Raises ``ValueError`` saying what was expected.
        """
        value = self._canonical(_read_option(self.default, raw))
        if self.default != () and value == ():
            return self.default
        for member in _members(value):
            self._bound(member)
        if self.check is not None:
            _ask(self.check, value)
        return value

    def _canonical(self, value: Any) -> Any:  # noqa: ANN401 - one of the types of ``default``
        """Write texts as the choices do, whatever their case."""
        known = {choice.lower(): choice for choice in self.choices if isinstance(choice, str)}
        if isinstance(value, tuple):
            return tuple(known.get(str(each).lower(), each) for each in value)
        return known.get(value.lower(), value) if isinstance(value, str) else value

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - one of the types of ``default``
        if self.choices and value not in self.choices:
            expected = "one of " + ", ".join(map(str, self.choices))
        elif self.minimum is not None and value < self.minimum:
            expected = f"at least {self.minimum:g}"
        elif self.maximum is not None and value > self.maximum:
            expected = f"at most {self.maximum:g}"
        else:
            return
        msg = f"expected {expected}, got {value!r}"
        raise ValueError(msg)


def _members(value: Any) -> Iterable[Any]:  # noqa: ANN401 - one of the types of ``default``
    """Return what bounds and choices are about; the names of a mapping."""
    return value if isinstance(value, tuple | Mapping) else (value,)


def _ask(check: Callable[[Any], object], value: Any) -> None:  # noqa: ANN401 - as above
    try:
        check(value)
    except ValueError:
        raise
    except Exception as error:
        # What the author did not think of is an answer as well, and keeps nobody else from one.
        msg = f"its check failed with {type(error).__name__}: {error}"
        raise ValueError(msg) from error


_TRUE: Final = frozenset({"true", "yes", "on", "1"})


_FALSE: Final = frozenset({"false", "no", "off", "0"})


def _read_option(default: object, raw: object) -> Any:  # noqa: ANN401 - as ``default``
    text = raw.strip() if isinstance(raw, str) else None
    found: object
    match default:
        case bool():
            found, expected = _read_bool(raw, text), "true or false"
        case int():
            found, expected = _read_int(raw, text), "a whole number"
        case float():
            found, expected = _read_float(raw), "a number"
        case str():
            found, expected = text, "text"
        case Mapping():
            found, expected = _read_mapping(raw, text), "a mapping of names to values"
        case _:
            found, expected = _read_list(default, raw, text), "a list"
    if found is None:
        msg = f"expected {expected}, got {raw!r}"
        raise ValueError(msg)
    return found


def _read_bool(raw: object, text: str | None) -> bool | None:
    if text is not None and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    return raw if isinstance(raw, bool) else None


def _read_int(raw: object, text: str | None) -> int | None:
    if text is not None:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else None
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None


def _read_float(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    # Not a number and infinity are within no bounds.
    return number if math.isfinite(number) else None


def _read_list(default: Any, raw: object, text: str | None) -> tuple[Any, ...] | None:  # noqa: ANN401 - a tuple
    if text is not None:
        raw = [part.strip() for part in text.split(",") if part.strip()]
    if not isinstance(raw, Sequence):
        return None
    return tuple(_read_option(default[0], member) for member in raw) if default else tuple(raw)


def _read_mapping(raw: object, text: str | None) -> Mapping[str, Any] | None:
    if text is not None:
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            return None
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
        return None
    # What a job does to a list in it is nothing to the job on the next tenant.
    return MappingProxyType(deepcopy(dict(raw)))
