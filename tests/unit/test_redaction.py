"""No secret and no row value in any text."""

import json
import re
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.redaction import (
    REDACTED,
    TRACEBACK_LIMIT,
    Redactor,
    clip,
    format_traceback,
    secret_values,
)

PASSWORD = "p@ss/w0rd \"quoted\" 'single' back\\slash %41 ü"


def type_only(error: BaseException) -> str:
    return type(error).__name__


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "ROOT_PASSWD", "GITHUB_TOKEN", "app_secret", "API_KEY", "MY_CREDENTIALS"],
)
def test_a_variable_named_like_a_secret_is_one(name: str) -> None:
    assert "hunter22" in secret_values({name: "hunter22"}, [])


def test_other_variables_are_none() -> None:
    assert not secret_values({"HOME": "/home/cron", "PATH": "/usr/bin"}, [])


@pytest.mark.parametrize("word", ["", "abc", "true", "False", "none", "4096", "auto", "  yes "])
def test_trivial_words_in_the_environment_are_no_secrets(word: str) -> None:
    assert not secret_values({"USE_KEYRING": word}, [])


@pytest.mark.parametrize("secret", ["a", "true", "4096"])
def test_a_configured_secret_is_one_however_trivial(secret: str) -> None:
    assert secret in secret_values({}, [secret])


def test_an_empty_configured_secret_redacts_nothing() -> None:
    assert Redactor(secret_values({}, ["", "  "])).text("a b") == "a b"


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        urllib.parse.quote(PASSWORD),
        urllib.parse.quote(PASSWORD, safe=""),
        urllib.parse.quote_plus(PASSWORD),
        urllib.parse.quote(PASSWORD, safe=" +"),
        re.sub("%..", lambda match: match[0].lower(), urllib.parse.quote(PASSWORD)),
        repr(PASSWORD),
        json.dumps(PASSWORD),
        json.dumps(PASSWORD, ensure_ascii=False),
    ],
)
def test_a_secret_is_found_in_every_form_in_which_it_is_written(written: str) -> None:
    redactor = Redactor(secret_values({}, [PASSWORD]))
    assert redactor.text(f"<{written}>").strip("<>'\"") == REDACTED


def test_each_line_of_a_private_key_is_a_secret() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASCB\n-----END KEY-----\n"
    redactor = Redactor(secret_values({"TLS_KEY": key}, []))
    assert redactor.text("line 2: MIIEvQIBADANBgkqh") == f"line 2: {REDACTED}"
    assert redactor.text(f"all: {key}") == f"all: {REDACTED}\n"


def test_the_newline_at_the_end_of_a_secret_file_does_not_hide_the_secret() -> None:
    assert Redactor(secret_values({}, ["hunter22\n"])).text("hunter22!") == f"{REDACTED}!"


def test_a_secret_that_begins_another_leaves_no_rest_of_it() -> None:
    redactor = Redactor(secret_values({}, ["hunter", "hunter22"]))
    assert redactor.text("hunter22 hunter") == f"{REDACTED} {REDACTED}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql+pymysql://cron:pw@db:3306/a", "mysql+pymysql://cron:[redacted]@db:3306/a"),
        ("redis://:pw@cache", "redis://:[redacted]@cache"),
        ("http://u:p@ss@h/x and ftp://a:b@c", "http://u:[redacted]@h/x and ftp://a:[redacted]@c"),
        ("http://host:8080/path?mail=a@b", "http://host:8080/path?mail=a@b"),
        ("mysql://cron@db/a", "mysql://cron@db/a"),
    ],
)
def test_the_password_of_any_url_is_replaced(url: str, expected: str) -> None:
    assert Redactor().text(url) == expected


def test_a_text_may_be_redacted_twice() -> None:
    redactor = Redactor(["redacted", "hunter22"])
    once = redactor.text("hunter22 mysql://a:b@c")
    assert redactor.text(once) == once


def test_every_string_of_a_nested_value_is_redacted() -> None:
    redactor = Redactor(["hunter22"])
    value = {"hunter22": ["xhunter22", ("hunter22", b"\xffhunter22", 7, None)]}
    assert redactor.value(value) == {
        REDACTED: [f"x{REDACTED}", (REDACTED, b"\xff" + REDACTED.encode(), 7, None)]
    }


@given(st.lists(st.text(min_size=1), max_size=5), st.text())
def test_no_secret_is_left_in_any_text(secrets: list[str], text: str) -> None:
    redacted = Redactor(secrets).text(text.join(secrets))
    rest = redacted.replace(REDACTED, "\ue000")
    assert not any(secret in rest for secret in secrets if "\ue000" not in secret)


def test_a_megabyte_that_looks_like_urls_takes_no_longer_than_its_length() -> None:
    redactor = Redactor(["hunter22"])
    for text in ("a:/@" * 250_000, "://a:" * 200_000, "://" * 300_000, "://" + ":@" * 500_000):
        started = time.perf_counter()
        redactor.text(text)
        assert time.perf_counter() - started < 1


def test_a_traceback_has_what_describe_says_of_each_exception_and_no_locals() -> None:
    def fail(password: str) -> None:
        try:
            raise KeyError(f"row {password}")
        except KeyError as error:
            error.add_note("note: hunter22")
            raise ExceptionGroup("row", [ValueError("row 1"), TypeError("row 2")]) from error

    with pytest.raises(ExceptionGroup) as raised:
        fail("hunter22")
    written = format_traceback(raised.value, lambda _: "described", Redactor(["hunter22"]))

    for name in ("KeyError", "ExceptionGroup", "ValueError", "TypeError"):
        assert f"{name}: described" in written
    assert "The above exception was the direct cause" in written
    assert f"note: {REDACTED}" in written
    assert "row 1" not in written.replace('ValueError("row 1")', "")
    assert "hunter22" not in written


def test_a_description_is_not_preceded_by_its_type_twice() -> None:
    written = format_traceback(ValueError("x"), lambda _: "ValueError: five", Redactor())
    assert written == "ValueError: five"
    coded = format_traceback(ValueError("x"), lambda _: "ValueError 1146: gone", Redactor())
    assert coded == "ValueError: 1146: gone"
    assert format_traceback(ValueError(), type_only, Redactor()) == "ValueError"


def test_an_exception_that_cannot_be_written_is_named() -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    written = format_traceback(HostileError(), str, Redactor())
    assert written.endswith("HostileError: (HostileError cannot be described)")


def test_a_context_that_was_suppressed_is_not_shown() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None
    except ValueError as error:
        written = format_traceback(error, str, Redactor())
    assert "KeyError:" not in written
    assert written.endswith("ValueError: second")


def test_a_huge_traceback_keeps_its_head_and_its_tail() -> None:
    try:
        raise ValueError
    except ValueError as error:
        written = format_traceback(error, lambda _: "x" * 1_000_000 + "end", Redactor())
    assert written.startswith("Traceback (most recent call last)")
    assert written.endswith("end")
    assert len(written) < TRACEBACK_LIMIT + 100


def test_a_secret_at_the_place_where_a_traceback_is_cut_is_not_left_in_half() -> None:
    secret = "s" * 40
    for start in range(TRACEBACK_LIMIT // 2 - 60, TRACEBACK_LIMIT // 2 + 60, 5):
        text = "x" * start + secret + "y" * TRACEBACK_LIMIT
        written = format_traceback(ValueError(text), str, Redactor([secret]))
        assert "ss" not in written


def test_a_short_text_is_not_clipped() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abcdef", 4) == "ab [... 2 characters ...] ef"
