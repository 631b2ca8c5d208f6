"""POST, and what the answer means for a message."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from jobs.transports.contract import Failed, Refused, Throttled

# ruff: noqa: PLC0415 - these take 0.1 s, which only a delivery is to pay
if TYPE_CHECKING:
    import requests

#: Bytes of an answer that are read.
_ANSWER_LIMIT: Final = 65_536
_DEFAULT_PAUSE: Final = timedelta(seconds=60)


def post(
    http: requests.Session,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
) -> None:
    """Post a JSON document once. Raises ``Refused``, ``Failed`` and ``Throttled``."""
    import requests
    from urllib3.exceptions import HTTPError

    if not url.startswith(("https://", "http://")):
        raise Refused("expected a URL of http or https")
    try:
        # Not redirected: a POST would arrive as a GET.
        with http.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=timeout_seconds,
            allow_redirects=False,
            stream=True,
        ) as answer:
            _judge(answer)
            # It is of no use, but a connection whose answer was read can be used again.
            with suppress(OSError, HTTPError):
                # What has come by now: the message is taken, however slowly they go on.
                answer.raw.read1(_ANSWER_LIMIT)
    except requests.Timeout as error:
        raise Failed(str(error), pauses=True) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise Refused(str(error)) from error
    except requests.RequestException as error:
        raise Failed(str(error)) from error


def _judge(answer: requests.Response) -> None:
    status = answer.status_code
    text = f"HTTP {status}"
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            raise Throttled(_retry_after(answer.headers.get("Retry-After")))
        case HTTPStatus.REQUEST_TIMEOUT:
            raise Failed(text)
        case _ if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Refused(text)
        case _:
            raise Failed(text)


def _retry_after(header: str | None) -> timedelta:
    """Read seconds or a date; urllib3 takes no more than six hours."""
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    if header is None:
        return _DEFAULT_PAUSE
    try:
        return timedelta(seconds=Retry().parse_retry_after(header))
    except (InvalidHeader, ValueError, OverflowError):
        # The last two are what numbers and dates beyond all bounds come to.
        return _DEFAULT_PAUSE
