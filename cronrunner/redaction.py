"""What keeps secrets and row values out of every text that leaves the process.

Three layers, since each alone has a hole. Known secrets are replaced wherever they occur, in
the forms in which libraries write them. Passwords in URLs are replaced whether they are known
or not. Exceptions are described by the caller, who knows what drivers put into messages.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

REDACTED: Final = "[redacted]"
#: Characters of a traceback that are kept: its beginning and its end.
TRACEBACK_LIMIT: Final = 16_000

_SECRET_NAME: Final = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|KEY|CREDENTIAL", re.IGNORECASE)
#: What variables with such a name also hold (`USE_KEYRING=true`, `MAX_TOKENS=4096`): to replace
#: these words everywhere would make logs unreadable and hide nothing.
_TRIVIAL: Final = re.compile(
    r"true|false|none|null|auto|default|enabled|disabled|required|\d{1,5}|.{0,3}",
    re.IGNORECASE | re.DOTALL,
)
#: A line of a secret of several lines (a private key) that is a secret by itself.
_SECRET_LINE_LENGTH: Final = 8
# Anchored at `://` and ended by a slash or space, so that the time it takes stays linear.
_URL_PASSWORD: Final = re.compile(r"(://[^\s:/@]*:)[^\s/]*@")


def secret_values(environ: Mapping[str, str], configured: Iterable[str]) -> frozenset[str]:
    """Return all texts to be replaced: secrets, in each form in which they may be written.

    A configured secret counts unless it is empty; the value of an environment variable counts
    when the variable's name looks like a secret's and the value is not a trivial word.
    """
    found = {value for value in configured if value.strip()}
    found |= {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and not _TRIVIAL.fullmatch(value.strip())
    }
    return frozenset(form for value in found for form in _forms(value))


def _forms(secret: str) -> Iterator[str]:
    """Yield ``secret`` as it is, in parts, percent-encoded, and as ``repr`` and JSON escape it."""
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret.strip() else []
    for text in (secret.strip(), *(line for line in lines if len(line) >= _SECRET_LINE_LENGTH)):
        yield text
        for encoded in (
            quote(text, safe=""),
            quote(text),
            quote(text, safe=" +"),
            quote_plus(text),
        ):
            yield encoded
            yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
        for escaped in (repr(text), json.dumps(text), json.dumps(text, ensure_ascii=False)):
            yield escaped[1:-1]


class Redactor:
    """Replaces secrets in texts. Frozen, cheap, and safe to share among threads."""

    __slots__ = ("_known", "_pattern")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare to replace ``secrets``, which are texts as ``secret_values`` returns them."""
        # The longest first: a secret that begins another must not leave the other's rest. What was
        # replaced already comes before them all, so that a text may come here twice.
        self._known = sorted(filter(None, secrets), key=lambda secret: (-len(secret), secret))
        self._pattern = re.compile("|".join(map(re.escape, (REDACTED, *self._known))))

    def text(self, text: str) -> str:
        """Return ``text`` with every secret and every password in a URL replaced."""
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
        # Most texts hold none, and to look for one after the other is quicker than the pattern.
        for secret in self._known:
            if secret in text:
                return self._pattern.sub(REDACTED, text)
        return text

    def value(self, value: Any) -> Any:  # noqa: ANN401 - anything in, the same shape out
        """Return ``value`` with ``text`` applied to each string in it, mapping keys included."""
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.text(value.decode("utf-8", "surrogateescape")).encode(
                    "utf-8", "surrogateescape"
                )
            case Mapping():
                return {self.value(key): self.value(member) for key, member in value.items()}
            case list():
                return [self.value(member) for member in value]
            case tuple():
                return tuple(self.value(member) for member in value)
            case _:
                return value


def clip(text: str, limit: int) -> str:
    """Return ``text`` in about ``limit`` characters: its head, a note of what is gone, its tail."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def format_traceback(
    error: BaseException, describe: Callable[[BaseException], str], redactor: Redactor
) -> str:
    """Write the traceback of ``error`` and all that led to it: no locals, no secrets.

    The text of each exception, of causes, contexts and members of groups as well, is what
    ``describe`` says of it. Notes are kept. At most about ``TRACEBACK_LIMIT`` characters.
    """
    written = traceback.TracebackException.from_exception(error)
    for part, exception in _chain(written, error):
        # There is no public way to give an exception another text in a standard traceback.
        part._str = description(exception, describe)  # type: ignore[attr-defined] # noqa: SLF001
    return clip(redactor.text("".join(written.format()).rstrip("\n")), TRACEBACK_LIMIT)


def description(error: BaseException, describe: Callable[[BaseException], str]) -> str:
    """Return what ``describe`` says of ``error``, without the type's name in front of it.

    Never raises, whatever the exception's own ``str`` does.
    """
    name = type(error).__name__
    try:
        text = describe(error)
    except Exception:  # noqa: BLE001 - a job may raise what cannot even be written
        return f"({name} cannot be described)"
    message = text.removeprefix(name)
    return message.lstrip(": ") if message.startswith((":", " ")) or not message else text


def _chain(
    written: traceback.TracebackException, error: BaseException
) -> Iterator[tuple[traceback.TracebackException, BaseException]]:
    """Pair each part of a traceback with its exception."""
    pairs: list[tuple[traceback.TracebackException | None, BaseException | None]]
    pairs = [(written, error)]
    while pairs:
        part, exception = pairs.pop()
        if part is None or exception is None:
            continue
        yield part, exception
        pairs += [(part.__cause__, exception.__cause__), (part.__context__, exception.__context__)]
        if isinstance(exception, BaseExceptionGroup):
            pairs += zip(part.exceptions or (), exception.exceptions, strict=False)
