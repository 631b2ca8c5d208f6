"""HTTP for jobs: ``requests``, bounded by the job's time, with errors that give nothing away.

What differs from a plain session: every request has timeouts, and none waits beyond the job's own.
What may be repeated without harm (GET, HEAD, OPTIONS, PUT, DELETE) is repeated twice, by urllib3's
``Retry``, when the connection is refused or breaks or a gateway answers 502, 503 or 504; 429 and
its Retry-After are the job's to decide. A redirect to another scheme is an error. URLs hold
tokens more often than not: errors name scheme, host and port alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError

from cronrunner.errors import DeadlineError, DryRunError
from cronrunner.silence import answering_within

#: Seconds for a connection, and for a server to say something.
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
_REPEATS: Final = 2
#: Bytes of a body that are read at a time, if so many have come.
_CHUNK: Final = 65_536
#: urllib3 takes no timeout of 0.
_LEAST_SECONDS: Final = 0.05
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_IDEMPOTENT: Final = _SAFE | {"PUT", "DELETE"}

Remaining = Callable[[], timedelta]


class HttpSession(requests.Session):
    """A session of ``requests`` for one attempt of a job."""

    def __init__(self, remaining: Remaining, *, dry_run: bool = False) -> None:
        super().__init__()
        self._remaining = remaining
        self._dry_run = dry_run
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(max_retries=_Retry.within(remaining)))

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        """Send a request; ``timeout`` may be shorter than the session's, or longer.

        Raises the errors of ``requests``, with the server's name and no more of the URL,
        ``ValueError`` for a body of more than ``most_bytes`` when unpacked, ``DeadlineError`` if
        the job's timeout is over, and in a dry run ``DryRunError`` for what may change something.
        """
        if self._dry_run and method.upper() not in _SAFE:
            msg = f"dry run: {method.upper()} may change what no rollback undoes"
            raise DryRunError(msg)
        kwargs["timeout"] = self._timeout(kwargs.get("timeout"))
        try:
            return self._ask(method, url, *args, **kwargs)
        except requests.RequestException as error:
            text = f"{method.upper()} {_place(url)}: {_reason(error)}"
            # Without the cause: its text has the whole URL.
            raise _kind_of(error)(text) from None

    def _ask(
        self,
        *args: Any,  # noqa: ANN401 - as requests has it
        stream: bool = False,
        most_bytes: float = math.inf,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> requests.Response:
        response = super().request(*args, **{**kwargs, "stream": True})
        if not stream:
            response.raw = io.BytesIO(self._body(response, most_bytes))
        return response

    def _body(self, response: requests.Response, most_bytes: float) -> bytes:
        """Read a body as it comes: a server that gives a byte a second would outlast the job."""
        parts: list[bytes] = []
        size = 0
        with response:
            try:
                while part := response.raw.read1(_CHUNK, decode_content=True):
                    if not self._remaining():
                        raise DeadlineError
                    size += len(part)
                    if size > most_bytes:
                        msg = f"expected at most {most_bytes} bytes"
                        raise ValueError(msg)
                    parts.append(part)
            except HTTPError as error:
                msg = f"the answer broke off: {type(error).__name__}"
                raise requests.ConnectionError(msg) from error
        return b"".join(parts)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a redirect leads, unless it leaves the scheme."""
        target = super().get_redirect_target(resp)
        if target is not None:
            scheme = urlsplit(urljoin(resp.url, target)).scheme
            if scheme != urlsplit(resp.url).scheme:
                msg = f"redirected to another scheme, {scheme[:20]}"
                raise requests.exceptions.InvalidSchema(msg)
        return target

    def _timeout(self, asked: Any) -> Timeout:  # noqa: ANN401 - None, a number or a pair
        if not self._remaining():
            raise DeadlineError
        connect, read = asked if isinstance(asked, tuple) else (asked, asked)
        return _Timeout(
            self._remaining,
            connect=CONNECT_SECONDS if connect is None else connect,
            read=READ_SECONDS if read is None else read,
        )


class _Timeout(Timeout):
    """Timeouts that end with the job's time at each try: urllib3 takes a clone for each."""

    def __init__(self, remaining: Remaining, *, connect: float, read: float) -> None:
        left = max(remaining().total_seconds(), _LEAST_SECONDS)
        super().__init__(total=left, connect=connect, read=read)
        self._asked = (connect, read)
        self._remaining = remaining

    def clone(self) -> Timeout:
        """Return what holds from now on."""
        connect, read = self._asked
        return _Timeout(self._remaining, connect=connect, read=read)


class _Response(requests.Response):
    """A response whose error does not quote the URL."""

    def raise_for_status(self) -> None:
        """Raise ``requests.HTTPError`` for 4xx and 5xx."""
        try:
            super().raise_for_status()
        except requests.HTTPError:
            text = f"{_place(self.url)}: {self.status_code} {str(self.reason)[:100]}"
            raise requests.HTTPError(text, response=self) from None


class _Plain(HTTPConnection):
    """A connection whose answer begins within its timeout, and not only goes on."""

    def getresponse(self) -> Any:  # noqa: ANN401 - of urllib3
        """Read status and headers."""
        with answering_within(self.sock):
            return super().getresponse()


class _Tls(_Plain, HTTPSConnection):
    """The same over TLS."""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _Tls


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:  # noqa: ANN401 - of urllib3
        response = super().build_response(req, resp)
        response.__class__ = _Response
        return response


class _Retry(Retry):
    """Repeats what may be repeated, and only while the job has time for it."""

    remaining: Remaining

    @classmethod
    def within(cls, remaining: Remaining) -> Self:
        retry = cls(
            total=_REPEATS,
            allowed_methods=_IDEMPOTENT,
            status_forcelist=(502, 503, 504),
            backoff_factor=0.5,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        retry.remaining = remaining
        return retry

    def new(self, **changes: Any) -> Self:  # noqa: ANN401 - as urllib3 has it
        """Make the retry that comes after this one."""
        following = super().new(**changes)
        following.remaining = self.remaining
        return following

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,  # noqa: ANN401
        error: Exception | None = None,
        _pool: Any = None,  # noqa: ANN401
        _stacktrace: Any = None,  # noqa: ANN401
    ) -> Self:
        """Count a failure; raises ``MaxRetryError`` when there is nothing more to try.

        urllib3 by itself repeats any method whose connection was refused.
        """
        if isinstance(error, ReadTimeoutError):
            # A server that is silent now would be so for the same time once more.
            raise error
        may_repeat = str(method).upper() in _IDEMPOTENT and self._has_time()
        if error is not None and not may_repeat:
            raise MaxRetryError(_pool, url or "", error) from error
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:  # noqa: FBT001, FBT002 - as urllib3 has it
        """Tell whether an answer is worth another try."""
        return self._has_time() and super().is_retry(method, status_code, has_retry_after)

    def _has_time(self) -> bool:
        return self.remaining().total_seconds() > self.get_backoff_time() + _LEAST_SECONDS


def _place(url: Any) -> str:  # noqa: ANN401 - whatever the job asked for
    try:
        parts = urlsplit(str(url))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a URL that cannot be read"
    # The host without a user and a password.
    return f"{parts.scheme}://{parts.hostname}{port}"


def _kind_of(error: requests.RequestException) -> type[requests.RequestException]:
    """Return the class by which a job may catch the error."""
    public = (each for each in type(error).__mro__ if each.__module__ == "requests.exceptions")
    return next(public, requests.RequestException)


def _reason(error: BaseException) -> str:
    """Say what went wrong without the texts of libraries, which quote URLs and hosts."""
    if isinstance(error, requests.exceptions.InvalidSchema) and error.args:
        text = str(error.args[0])
        return text if text.startswith("redirected") else "a scheme other than http and https"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    seen = set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ReadTimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__
    return type(error).__name__
