"""Values that are written in one way and revealed in another: ``${NAME}`` and ``file:``.

A secret is written in ``tenants.yaml`` as a reference. What is shown, logged and compared is
the text as it was written; the value comes out of ``Reference.reveal`` alone. A secret that
was written out all the same is shown as ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, unquote

from cronrunner.config.fault import Expected

HIDDEN: Final = "***"

#: Variables whose values are secrets wherever they are used.
SECRET_NAME: Final = re.compile(r"PASSWORD|TOKEN|SECRET|KEY", re.IGNORECASE)

#: `$$`, `${NAME}`, `${NAME:-default}`; a `${` that is none of them is a mistake.
_PIECE: Final = re.compile(
    r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|\$\{"
)
_SCHEME: Final = r"\A[A-Za-z][A-Za-z0-9+.-]*://"
URL: Final = re.compile(_SCHEME)
_USER_INFO: Final = re.compile(_SCHEME + r"[^/?#]*@")
_PASSWORD: Final = re.compile(_SCHEME + r"[^:/?#@]*:(?P<secret>[^/?#]+)@")
#: Where secrets stand in a URL.
_SECRETS: Final = (
    # A literal password with / or @ in it makes no valid URL, and must be hidden all the same.
    re.compile(
        r"\A(?!https?:|sqlite)[a-z][a-z0-9+.-]*://[^:/?#@]*:(?P<secret>.+)@",
        re.IGNORECASE | re.DOTALL,
    ),
    _PASSWORD,
    # A name without a password is how tokens are given over HTTP.
    re.compile(r"\Ahttps?://(?P<secret>[^:/?#@]+):?@", re.IGNORECASE),
    re.compile(
        r"[?&][^=&]*(?:passw|token|secret|api_?key)[^=&]*=(?P<secret>[^&#]+)", re.IGNORECASE
    ),
)
#: Keys whose values are URLs: what is none may be a password that was put there.
_URL_KEYS: Final = frozenset({"url", "ledger", "pushgateway"})


class Reference:
    """A value that may hold a secret. Printing it shows what was written.

    Not a dataclass, and without public fields but those that are safe: what dumps values by
    their fields must not find this one.
    """

    __slots__ = ("_secrets", "_value", "literal", "text")

    def __init__(
        self,
        text: str,
        value: str | None = None,
        *,
        secrets: Iterable[str] = (),
        literal: bool = False,
    ) -> None:
        #: As written in the file, with ``***`` for a secret that was written out.
        self.text = text
        #: True when the file itself holds a secret.
        self.literal = literal
        self._value = text if value is None else value
        self._secrets = frozenset(secrets) - {""}

    def reveal(self) -> str:
        """Return the value, with every reference in it replaced."""
        return self._value

    def reveal_secrets(self) -> frozenset[str]:
        """Return what must never be shown: passwords and tokens, encoded and decoded."""
        return self._secrets

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Reference({self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self.text, self._value) == (other.text, other._value)

    def __hash__(self) -> int:
        return hash((self.text, self._value))


class Interpolated(str):
    """Text in which references were replaced; it remembers how it was written."""

    __slots__ = ("written",)

    written: str

    def __new__(cls, value: str, written: str) -> Self:
        """Make a text that equals ``value``."""
        made = super().__new__(cls, value)
        made.written = written
        return made


def as_written(text: str) -> str:
    """Return what the file says where ``text`` came from."""
    return text.written if isinstance(text, Interpolated) else text


class Interpolation:
    """Replaces references by the values of an environment, and collects secret ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.secrets: set[str] = set()

    def replace(self, text: str) -> str:
        """Return ``text`` with its references replaced; raises ``Expected``.

        A value that lands in the user-info part of a URL is percent-encoded, so that a
        password may hold any character.
        """
        if "$" not in text:
            return text
        user_info = _USER_INFO.match(_blank(text))
        encode_until = user_info.end() if user_info else 0

        def value(piece: re.Match[str]) -> str:
            found = self._value(piece)
            return quote(found, safe="") if piece.end() < encode_until and piece["name"] else found

        replaced = _PIECE.sub(value, text)
        return Interpolated(replaced, text)

    def _value(self, piece: re.Match[str]) -> str:
        name, default = piece["name"], piece["default"]
        if piece[0] == "$$":
            return "$"
        if name is None:
            raise Expected(
                "${NAME} or ${NAME:-default}", advice="write $$ for a dollar sign of its own"
            )
        value = self._environ.get(name)
        if default is not None:
            value = value or default
        if value is None:
            raise Expected(
                f"the environment variable {name}",
                got="none of that name",
                advice=f"set it, or write ${{{name}:-default}}",
            )
        if SECRET_NAME.search(name) and value:
            self.secrets.add(value)
        return value


def read_password(raw: str, folder: Path) -> Reference:
    """Read the value of a ``password`` key; raises ``Expected``."""
    written = as_written(raw)
    if written.startswith("file:"):
        return _from_file(raw, folder)
    text = hide_password(written)
    return Reference(text, str(raw), secrets={str(raw)}, literal=text != written)


def read_url(raw: str, folder: Path) -> Reference:
    """Read a URL that may hold a password or a token; raises ``Expected``."""
    written = as_written(raw)
    if written.startswith("file:"):
        found = _from_file(raw, folder)
        return Reference(found.text, found.reveal(), secrets=_secrets(found.reveal()))
    text = hide(written)
    return Reference(text, str(raw), secrets=_secrets(raw), literal=text != written)


def _from_file(raw: str, folder: Path) -> Reference:
    path = folder / raw.removeprefix("file:")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Expected("a readable secret file", advice=f"reading it says: {why}") from error
    value = content.removesuffix("\n").removesuffix("\r")
    if not value:
        raise Expected("a secret file with something in it", advice="the file is empty")
    return Reference(as_written(raw), value, secrets={value})


def hide(text: str) -> str:
    """Return ``text`` with ``***`` for each secret that is written out in it."""
    for pattern in _SECRETS:
        for found in reversed([*pattern.finditer(_blank(text))]):
            start, end = found.span("secret")
            text = text[:start] + hide_password(text[start:end]) + text[end:]
    return _PIECE.sub(_hide_secret_default, text)


def printable(key: str, written: str) -> str:
    """Return the text in the file at a key such as ``password``, without secrets."""
    if written.startswith("file:"):
        return written
    if key == "password" or (key in _URL_KEYS and "://" not in written):
        return hide_password(written)
    return hide(written)


def password_in(url: object) -> bool:
    """Tell whether a URL, its references replaced, brings a password."""
    return isinstance(url, str) and _PASSWORD.match(url) is not None


def _secrets(url: str) -> frozenset[str]:
    found = {match["secret"] for pattern in _SECRETS for match in pattern.finditer(url)}
    return frozenset(found | {unquote(each) for each in found})


def _blank(text: str) -> str:
    """Replace references by letters of the same length: what is in them is no URL syntax."""
    return _PIECE.sub(lambda piece: "x" * len(piece[0]), text)


def hide_password(secret: str) -> str:
    """Hide all of a secret but the references in it; their defaults are hidden as well."""
    shown, position = "", 0
    for piece in _PIECE.finditer(secret):
        if not piece["name"]:
            continue
        shown += HIDDEN * (piece.start() > position) + _hide_default(piece)
        position = piece.end()
    return shown + HIDDEN * (position < len(secret))


def _hide_secret_default(piece: re.Match[str]) -> str:
    named_so = piece["name"] and SECRET_NAME.search(piece["name"])
    return _hide_default(piece) if named_so else piece[0]


def _hide_default(piece: re.Match[str]) -> str:
    return f"${{{piece['name']}:-{HIDDEN}}}" if piece["default"] else piece[0]
