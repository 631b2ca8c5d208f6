"""A YAML file as plain data which knows the line of everything in it.

YAML 1.2: ``22:30`` and ``no`` are text. Nodes are composed by ruamel.yaml and turned into
data here, because that alone keeps the line of each key and value, refuses duplicate keys
with both lines, and is fast enough for ten thousand tenants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from cronrunner.errors import ConfigError, Problem

Location = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
#: Scalars that are more than text. A date stays text: nothing here is a date.
_TYPED: Final = frozenset(f"{_TAG}{kind}" for kind in ("int", "float", "bool", "null"))
_TEXT: Final = frozenset(f"{_TAG}{kind}" for kind in ("str", "timestamp", "value", "merge"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says, as written, and where it says it."""

    #: The file's name as the user gave it.
    file: str
    data: dict[str, Any]
    lines: dict[Location, int]

    def nearest(self, location: Location) -> Location:
        """Return ``location``, or the innermost place around it that the file has."""
        while location and location not in self.lines:
            location = location[:-1]
        return location

    def problem(self, location: Location, text: str) -> Problem:
        """Describe a mistake at ``location``, or nearest to it."""
        line = self.lines.get(self.nearest(location), 1)
        return Problem(text=text, file=self.file, line=line)

    def written(self, location: Location) -> object:
        """Return what the file says at ``location``, or ``None``."""
        value: Any = self.data
        for part in location:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def read_document(path: Path) -> Document:
    """Read a YAML file; raises ``ConfigError`` with the one problem that stops its parser."""
    return _Reading(str(path)).read(_text(path))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"expected a readable file: {error.strerror}"
        raise ConfigError([Problem(text=text, file=str(path))]) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        byte = content[error.start]
        text = f"column {_column(before)}: expected UTF-8 text, got the byte 0x{byte:02x}"
        line = before.count("\n") + 1
        raise ConfigError([Problem(text=text, file=str(path), line=line)]) from error


def _column(before: str) -> int:
    return len(before) - (before.rfind("\n") + 1) + 1


class _Reading:
    """One file being turned from nodes into data."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._yaml = YAML(typ="safe", pure=True)
        self._lines: dict[Location, int] = {}
        self._open: set[int] = set()

    def read(self, text: str) -> Document:
        root = self._compose(text)
        if root is None or (isinstance(root, ScalarNode) and root.tag == f"{_TAG}null"):
            self._stop(1, "expected settings, got an empty file; `cronrunner init` writes a first")
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "text"
            self._stop(_line(root), f"expected keys such as servers: at the top, got {kind}")
        data = self._value(root, ())
        return Document(file=self._file, data=data, lines=self._lines)

    def _compose(self, text: str) -> Node | None:
        try:
            node: Node | None = self._yaml.compose(text)
        except ReaderError as error:
            before = text[: error.position]
            shown = f"column {_column(before)}: a control character is not allowed here"
            self._stop(before.count("\n") + 1, shown, error)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self._stop(line, f"column {column}: {_explain(error)}", error)
        except (YAMLError, RecursionError, ValueError) as error:
            self._stop(1, "expected YAML that can be read; it is nested too deeply", error)
        return node

    def _stop(self, line: int, text: str, cause: BaseException | None = None) -> NoReturn:
        raise ConfigError([Problem(text=text, file=self._file, line=line)]) from cause

    def _value(self, node: Node, location: Location) -> Any:  # noqa: ANN401 - what YAML holds
        self._lines.setdefault(location, _line(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._refuse(node, "an alias stands inside of what it repeats")
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._value(each, (*location, i)) for i, each in enumerate(node.value)]
            return self._mapping(node, location)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Node, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for name, key, value in self._pairs(node):
            inner = (*location, name)
            # A value that is not there, or more than a scalar, is looked for at its key.
            scalar = isinstance(value, ScalarNode) and value.value
            self._lines[inner] = _line(value if scalar else key)
            mapping[name] = self._value(value, inner)
        return mapping

    def _pairs(self, node: Node) -> Iterator[tuple[str, Node, Node]]:
        """Give the pairs of a mapping, merged ones (``<<: *base``) behind its own."""
        own: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, SequenceNode) else [value]
                continue
            name = self._key(key)
            if name in own:
                self._refuse(
                    key, f"the key {name!r} is here twice; first on line {_line(own[name])}"
                )
            own[name] = key
            yield name, key, value
        for base in merged:
            if not isinstance(base, MappingNode) or base is node:
                self._refuse(base, "expected a mapping to merge")
            for name, key, value in self._pairs(base):
                if name not in own:
                    own[name] = key
                    yield name, key, value

    def _key(self, key: Node) -> str:
        if not isinstance(key, ScalarNode):
            self._refuse(key, "expected a name as key, got a list or mapping")
        return str(key.value)

    def _scalar(self, node: ScalarNode) -> Any:  # noqa: ANN401 - what YAML holds
        tag = str(node.tag)
        if tag in _TYPED:
            try:
                return self._yaml.constructor.construct_object(node)
            except (ValueError, OverflowError):
                return str(node.value)
        if tag not in _TEXT:
            self._refuse(node, "expected no tag; put text that begins with ! in quotes")
        return str(node.value)

    def _refuse(self, node: Node, text: str) -> NoReturn:
        self._stop(_line(node), f"column {node.start_mark.column + 1}: {text}")


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line


def _explain(error: MarkedYAMLError) -> str:
    """Say what stopped the parser, without text of the file: it may be half of a password."""
    problem = str(error.problem or error.context or "this is not YAML")
    if "undefined alias" in problem:
        return "expected an alias that was defined before; put text that begins with * in quotes"
    if "\\t" in problem:
        return "expected spaces, got a tab; YAML is indented by spaces"
    return problem
