"""The HTTP session of a job: bounded, careful about repeating, and discreet."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
import requests

from cronrunner.errors import DeadlineError, DryRunError
from cronrunner.http_client import HttpSession
from tests.servers import Answer, HttpServer, SilentServer, free_port

Make = Callable[..., HttpSession]


@pytest.fixture
def session() -> Iterator[Make]:
    made: list[HttpSession] = []

    def session(seconds: float = 60.0, **given: bool) -> HttpSession:
        ends = time.monotonic() + seconds
        made.append(
            HttpSession(lambda: timedelta(seconds=max(ends - time.monotonic(), 0)), **given)
        )
        return made[-1]

    yield session
    for each in made:
        each.close()


def test_it_is_a_session_of_requests(session: Make, http_server: HttpServer) -> None:
    http_server.answer("/rates", Answer(body=b'{"base": "EUR"}'))
    http = session()

    assert isinstance(http, requests.Session)
    assert http.get(http_server.url("/rates")).json() == {"base": "EUR"}
    assert http.post(http_server.url("/in"), json={"n": 1}).ok
    assert http_server.asked[-1].document == {"n": 1}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_may_be_repeated_is_repeated(
    session: Make, http_server: HttpServer, method: str
) -> None:
    http_server.answer("/", Answer(503), Answer(502), Answer(200))

    assert session().request(method, http_server.url()).status_code == 200
    assert len(http_server.asked) == 3


def test_the_last_answer_is_given_when_repeating_was_in_vain(
    session: Make, http_server: HttpServer
) -> None:
    http_server.answer("/", Answer(503))

    assert session().get(http_server.url()).status_code == 503
    assert len(http_server.asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_post_is_never_repeated(session: Make, http_server: HttpServer, status: int) -> None:
    http_server.answer("/", Answer(status, headers={"Retry-After": "60"}))
    answer = session().post(http_server.url())

    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "60")
    assert len(http_server.asked) == 1


def test_a_request_to_wait_is_the_jobs_to_heed(session: Make, http_server: HttpServer) -> None:
    http_server.answer("/", Answer(429, headers={"Retry-After": "60"}))

    assert session().get(http_server.url()).status_code == 429
    assert len(http_server.asked) == 1


def test_a_silent_server_is_waited_for_once_and_no_longer_than_the_job_lasts(
    session: Make, silent_server: SilentServer
) -> None:
    began = time.monotonic()
    with pytest.raises(requests.Timeout, match="no answer in time"):
        session(seconds=0.5).get(f"http://127.0.0.1:{silent_server.port}/token")
    assert time.monotonic() - began < 2.0

    began = time.monotonic()
    with pytest.raises(requests.Timeout):
        session().get(f"http://127.0.0.1:{silent_server.port}/", timeout=0.2)
    assert time.monotonic() - began < 1.5


def test_a_post_to_a_silent_server_is_a_timeout_as_well(
    session: Make, silent_server: SilentServer
) -> None:
    with pytest.raises(requests.Timeout):
        session().post(f"http://127.0.0.1:{silent_server.port}/", timeout=(1, 0.2))


def test_when_the_time_is_over_nothing_is_sent(session: Make, http_server: HttpServer) -> None:
    with pytest.raises(DeadlineError):
        session(seconds=0).get(http_server.url())

    assert http_server.asked == []


def test_a_redirect_is_followed_but_not_to_another_scheme(
    session: Make, http_server: HttpServer
) -> None:
    http_server.answer("/here", Answer(302, headers={"Location": "/there"}))
    http_server.answer("/away", Answer(302, headers={"Location": "https://127.0.0.1:1/"}))
    http_server.answer("/file", Answer(302, headers={"Location": "file:///etc/passwd"}))

    assert session().get(http_server.url("/here")).url.endswith("/there")
    for path, scheme in (("/away", "https"), ("/file", "file")):
        with pytest.raises(requests.RequestException, match=f"to another scheme, {scheme}"):
            session().get(http_server.url(path))


def test_errors_name_the_server_and_nothing_else_of_the_url(
    session: Make, http_server: HttpServer
) -> None:
    http_server.answer("/hook/planted", Answer(404))
    refused = f"http://user:planted@127.0.0.1:{free_port()}/planted?token=planted"
    with pytest.raises(requests.ConnectionError) as gone:
        session().post(refused)
    with pytest.raises(requests.HTTPError) as missing:
        session().get(http_server.url("/hook/planted")).raise_for_status()
    with pytest.raises(requests.RequestException) as odd:
        session().get("gopher://127.0.0.1/planted")

    assert str(gone.value).endswith(": Connection refused")
    assert str(missing.value).endswith(": 404 Not Found")
    assert missing.value.response is not None
    for error in (gone, missing, odd):
        assert "/planted" not in str(error.value)
        assert "planted@" not in str(error.value)
        assert error.value.__suppress_context__


def test_an_answer_that_is_no_http_is_an_error_of_requests(
    session: Make, http_server: HttpServer
) -> None:
    http_server.answer("/", Answer(raw=b"garbage\r\n\r\n"))
    with pytest.raises(requests.ConnectionError):
        session().post(http_server.url())


def test_a_server_that_cannot_be_found_is_an_error_of_requests(session: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(requests.ConnectionError, match="Connection refused"):
            session().get(f"http://127.0.0.1:{unused.getsockname()[1]}/")


def test_a_dry_run_asks_and_changes_nothing(session: Make, http_server: HttpServer) -> None:
    http = session(dry_run=True)

    assert http.get(http_server.url()).ok
    with pytest.raises(DryRunError, match="POST may change what no rollback undoes"):
        http.post(http_server.url())
    assert [each.method for each in http_server.asked] == ["GET"]


def test_a_body_that_comes_byte_by_byte_does_not_outlast_the_job(session: Make) -> None:
    closing = threading.Event()

    def drip() -> None:
        talking, _ = listening.accept()
        with talking, suppress(OSError):
            talking.recv(1000)
            talking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not closing.wait(0.05):
                talking.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            session(0.5).get(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        closing.set()
        thread.join()
    assert time.monotonic() - began < 2


def test_a_body_is_bounded_as_it_is_unpacked(session: Make, http_server: HttpServer) -> None:
    packed = Answer(body=gzip.compress(bytes(100_000)), headers={"Content-Encoding": "gzip"})
    http_server.answer("/", packed)

    assert len(session().request("GET", http_server.url(), most_bytes=100_000).content) == 100_000
    with pytest.raises(ValueError, match=r"^expected at most 99999 bytes$"):
        session().request("GET", http_server.url(), most_bytes=99_999)


def test_a_connection_is_used_again(session: Make, http_server: HttpServer) -> None:
    http = session()
    for _ in range(3):
        assert http.get(http_server.url("/")).ok
    assert http_server.connections == 1
