"""References: how values come out of the environment and out of files, and stay hidden."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.config import Reference, Settings, load
from cronrunner.config.references import Interpolation, hide, read_url
from cronrunner.errors import ConfigError

Load = Callable[..., Settings]

PLANTED = "hunter2/@%:#"


@pytest.fixture
def settings(tmp_path: Path) -> Load:
    def settings(
        url: str = "sqlite://", *, extra: str = "", more: str = "", **environ: str
    ) -> Settings:
        path = tmp_path / "tenants.yaml"
        server = f"servers:\n  main:\n    url: {url}\n    discover: {{databases: a}}\n"
        path.write_text(f"{server}    {extra}\n{more}\n", encoding="utf-8")
        return load(path, environ)

    return settings


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("${HOST}", {"HOST": "db"}, "db"),
        ("${HOST}:${PORT}", {"HOST": "db", "PORT": "1"}, "db:1"),
        ("${HOST:-localhost}", {}, "localhost"),
        ("${HOST:-localhost}", {"HOST": ""}, "localhost"),
        ("${HOST:-localhost}", {"HOST": "db"}, "db"),
        ("${HOST:-}", {}, ""),
        ("${HOST}", {"HOST": ""}, ""),
        ("$${HOST}", {"HOST": "db"}, "${HOST}"),
        ("a$$b", {}, "a$b"),
        ("^a$", {}, "^a$"),
        ("$HOST", {"HOST": "db"}, "$HOST"),
        ("${HOST}", {"HOST": "${OTHER}", "OTHER": "x"}, "${OTHER}"),
    ],
)
def test_references_are_replaced_once(written: str, environ: dict[str, str], value: str) -> None:
    assert Interpolation(environ).replace(written) == value


@pytest.mark.parametrize("written", ["${}", "${1A}", "${A", "${A-b}", "${A:-${B}}", "${a b}"])
def test_a_malformed_reference_is_an_error_with_its_line(settings: Load, written: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(more=f"metrics:\n  host: '{written}'", A="x", B="y")
    [problem] = caught.value.problems
    assert problem.line == 7
    assert problem.text == (
        "metrics.host: expected ${NAME} or ${NAME:-default}, "
        f"got {written!r}; write $$ for a dollar sign of its own"
    )


def test_a_missing_variable_is_one_problem_wherever_it_is_used(settings: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        settings("${URL}", more="runner: {grace: '${GRACE}', lease: '${LEASE}'}", LEASE="x")
    assert [(each.line, each.text.partition(",")[0]) for each in caught.value.problems] == [
        (3, "servers.main.url: expected the environment variable URL"),
        (6, "runner.grace: expected the environment variable GRACE"),
        (6, "runner.lease: expected a duration such as 30s"),
    ]


def test_every_kind_of_value_may_come_out_of_the_environment(settings: Load) -> None:
    found = settings(
        extra="max_connections: ${LIMIT}",
        more=(
            "runner: {grace: '${GRACE}', shrink: {percent: '${PERCENT}'}}\n"
            "log: {level: '${LEVEL}'}\n"
            "tenants: {a: {timezone: '${TZ}', labels: {x: '${LEVEL}'}, enabled: '${ON}'}}\n"
            "jobs: {j: {options: {days: '${LIMIT}', names: ['${TZ}']}}}\n"
            "job_folder: ${FOLDER}"
        ),
        LIMIT="16", GRACE="3s", PERCENT="5", LEVEL="debug", TZ="UTC", ON="false", FOLDER="work",
    )  # fmt: skip
    assert found.servers["main"].max_connections == 16
    assert found.runner.grace.total_seconds() == 3
    assert found.runner.shrink.percent == 5
    assert found.log.level == "debug"
    assert found.tenant("a").enabled is False
    assert found.tenant("a").labels == {"x": "debug"}
    assert found.job("j").options == {"days": "16", "names": ["UTC"]}
    assert found.job_folder == found.folder / "work"


def test_what_jobs_get_is_plain_data(settings: Load) -> None:
    options = settings(more="jobs: {j: {options: {x: '${X}'}}}", X="1").job("j").options
    assert type(options["x"]) is str
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == {"x": "1"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_password_of_any_characters_arrives_in_the_url(password: str) -> None:
    text = Interpolation({"PW": password}).replace("mysql://cron:${PW}@db.internal:3306/x?y=1")
    url = urlsplit(read_url(text, Path()).reveal())
    assert unquote(url.password or "") == password
    assert (url.username, url.hostname, url.port) == ("cron", "db.internal", 3306)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${V}", "mysql://u:a@b/c@h"),
        ("mysql://${V}:x@h", "mysql://mysql%3A%2F%2Fu%3Aa%40b%2Fc%40h:x@h"),
        ("mysql://u:pre${V}@h", "mysql://u:premysql%3A%2F%2Fu%3Aa%40b%2Fc%40h@h"),
        ("mysql://h/${V}", "mysql://h/mysql://u:a@b/c@h"),
        ("mysql://h/?x=a@${V}", "mysql://h/?x=a@mysql://u:a@b/c@h"),
        ("mysql://u:${W:-a/@}@h", "mysql://u:a%2F%40@h"),
    ],
)
def test_only_what_stands_in_the_user_info_of_a_url_is_encoded(written: str, value: str) -> None:
    assert Interpolation({"V": "mysql://u:a@b/c@h"}).replace(written) == value


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("mysql://u:secret@h/db", "mysql://u:***@h/db"),
        ("mysql://u:sec/ret@h", "mysql://u:***@h"),
        ("mysql://u:sec@ret@h", "mysql://u:***@h"),
        ("mysql://u:s@ec/ret@h", "mysql://u:***@h"),
        ("mysql://u:s?e#cret@h", "mysql://u:***@h"),
        ("mysql://u:${PW}@h", "mysql://u:${PW}@h"),
        ("mysql://u:${PW:-secret}@h", "mysql://u:${PW:-***}@h"),
        ("mysql://u:${PW:-se@/cret}@h/", "mysql://u:${PW:-***}@h/"),
        ("mysql://u:sec${PW}ret@h", "mysql://u:***${PW}***@h"),
        ("mysql://u:sec$$ret@h", "mysql://u:***@h"),
        ("mysql://h/?password=secret&x=1", "mysql://h/?password=***&x=1"),
        ("http://secret@gateway:9091", "http://***@gateway:9091"),
        ("http://secret:@gateway:9091", "http://***:@gateway:9091"),
        ("https://user:secret@gateway", "https://user:***@gateway"),
        ("https://gateway/push?api_key=secret", "https://gateway/push?api_key=***"),
        ("${DATABASE_PASSWORD:-secret}", "${DATABASE_PASSWORD:-***}"),
        ("mysql://user@h/db", "mysql://user@h/db"),
        ("sqlite:////var/a:b@c.db", "sqlite:////var/a:b@c.db"),
        ("${HOST:-localhost}", "${HOST:-localhost}"),
    ],
)
def test_secrets_that_are_written_out_are_hidden(written: str, shown: str) -> None:
    assert hide(written) == shown


@pytest.mark.parametrize(
    ("url", "extra", "line"),
    [
        ("mysql://u:secret@h", "", 3),
        ("mysql://u:${PW:-secret}@h", "", 3),
        ("mysql://u@h", "password: secret", 5),
        ("mysql://u@h", "password: a${PW:-b}", 5),
    ],
)
def test_a_secret_in_the_file_is_a_warning(settings: Load, url: str, extra: str, line: int) -> None:
    found = settings(url, extra=extra)
    [warning] = found.warnings
    assert warning.line == line
    assert "a secret is written out here; use ${NAME} or file:/path" in warning.text
    assert "secret" not in repr(found.servers)


def test_a_reference_is_no_warning(settings: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("x")
    assert settings("mysql://u:${PW}@h", PW="x").warnings == ()
    assert settings("mysql://u@h", extra="password: file:pw").warnings == ()


def test_a_secret_file_is_read_without_its_last_newline(settings: Load, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" pass word\n\n")
    found = settings("mysql://h", extra="password: file:password")
    password = found.servers["main"].password
    assert password is not None
    assert password.reveal() == " pass word\n"
    assert str(password) == "file:password"
    assert password.reveal() in found.secrets


def test_a_secret_file_may_hold_a_whole_url(settings: Load, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mysql://u:p%40ss@h\r\n")
    found = settings("file:${WHERE}/url", WHERE=str(tmp_path))
    assert found.servers["main"].url.reveal() == "mysql://u:p%40ss@h"
    assert str(found.servers["main"].url) == "file:${WHERE}/url"
    assert found.secrets == {"p%40ss", "p@ss"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "expected a readable secret file, got 'file:pw'; reading it says: No such file"),
        (b"", "expected a secret file with something in it, got 'file:pw'; the file is empty"),
        (b"\n", "expected a secret file with something in it"),
        (b"\xff", "expected a readable secret file, got 'file:pw'; reading it says: not UTF-8"),
    ],
)
def test_a_secret_file_that_gives_nothing_is_an_error_with_its_line(
    settings: Load, tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings("mysql://h", extra="password: file:pw")
    [problem] = caught.value.problems
    assert problem.line == 5
    assert says in problem.text


def test_file_is_only_a_reference_where_secrets_are(settings: Load) -> None:
    assert settings(more="tenants: {a: {labels: {x: 'file:/y'}}}").tenant("a").labels == {
        "x": "file:/y"
    }


def test_all_secrets_are_known(settings: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from-file")
    found = settings(
        "mysql://u:${DB_PASS}@h",
        more=(
            "  other: {url: 'mysql://u@h', password: file:pw, discover: {databases: a}}\n"
            "ledger: mysql://u:${LEDGER_PASSWORD}@h/ledger\n"
            "metrics: {pushgateway: 'http://${GATEWAY}@h:9091'}\n"
            "jobs: {j: {options: {key: '${API_KEY}', days: '${DAYS}', none: '${EMPTY_KEY}'}}}"
        ),
        DB_PASS="a@b", LEDGER_PASSWORD="from-ledger", GATEWAY="a-token", API_KEY="from-option",
        DAYS="30", EMPTY_KEY="",
    )  # fmt: skip
    assert found.secrets == {
        "a@b", "a%40b", "from-file", "from-ledger", "a-token", "from-option",
    }  # fmt: skip


def test_the_password_stands_in_one_place(settings: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        settings("mysql://u:${PW}@h", extra="password: ${PW}", PW="x")
    [problem] = caught.value.problems
    assert (problem.line, problem.text) == (
        5,
        "servers.main.password: expected the password here or in the url, got it in both",
    )


def test_no_secret_is_in_what_settings_print(settings: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(PLANTED)
    found = settings(
        "mysql://u:${DB_PASSWORD}@h",
        more=(
            "  other: {url: 'mysql://u@h', password: file:pw, discover: {databases: a}}\n"
            "  third: {url: 'mysql://u:hunter2@h', discover: {databases: a}}\n"
            "metrics: {pushgateway: 'http://u:${TOKEN}@h'}"
        ),
        DB_PASSWORD=PLANTED, TOKEN=PLANTED,
    )  # fmt: skip
    server = found.servers["main"]
    printed = [
        repr(found), str(found), repr(server), str(server.url), f"{server.url}", found.digest,
        str(server.model_dump()), repr(vars(server)), *map(str, found.warnings),
        repr(found.metrics), repr(server.url),
    ]  # fmt: skip
    assert "hunter2" not in "".join(printed)
    assert server.url.reveal() == "mysql://u:hunter2%2F%40%25%3A%23@h"


@pytest.mark.parametrize(
    "section",
    [
        "servers: {m: {url: 'mysql://u:hunter2@h', discover: {databases: 5}, tls: x}}",
        "servers: {m: 'mysql://u:hunter2@h'}",
        "servers: {m: {url: 'u:hunter2@h'}}",
        "servers: {m: {url: '${DB_PASSWORD}'}}",
        "servers: {m: {url: 'mysql://u:hunter2${MISSING}@h'}}",
        "servers: {m: {url: 'mysql://u:${MISSING}@h?password=hunter2'}}",
        "servers: {m: {url: 'mysql://h', password: [hunter2]}}",
        "servers: {m: {url: 'mysql://h', password: {a: hunter2}}}",
        "servers: {m: {url: 'mysql://h', password: 'hunter2${'}}",
        "servers: {m: {url: 'mysql://h', password: *hunter2}}",
        "servers: {m: {url: 'mysql://h', password: !hunter2 x}}",
        "servers: {m: {url: 'mysql://h', pasword: hunter2}}",
        "servers: {m: {url: 'mysql://h', max_connections: '${DB_PASSWORD}'}}",
        "runner: {grace: '${DB_PASSWORD}', concurrency: '${DB_PASSWORD}', lease: '${TOKEN}'}",
        "log: {format: '${DB_PASSWORD}', level: '${DB_PASSWORD:-hunter2}'}",
        "tenants: {a: {timezone: '${DB_PASSWORD}', enabled: '${DB_PASSWORD}'}}",
        "ledger: 'u:hunter2@h'",
        "servers: {m: {url: 'mysql://h', discover: {list: ['${TOKEN}', '${TOKEN}']}}}",
        "servers: {m: {}}\nledger: {server: '${DB_PASSWORD}', database: x}",
        "servers: {m: {url: 'u:hunter2${TOKEN}@h'}}",
        "servers: {m: {url: '${TOKEN}hunter2'}}",
        "ledger: {url: hunter2}",
        "metrics: {pushgateway: 'mysql://u:hunter2@h', textfile: '${DB_PASSWORD}'}",
        "metrics: {pushgateway: hunter2}",
    ],
)
def test_no_problem_tells_a_secret(tmp_path: Path, section: str) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(f"{section}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {"DB_PASSWORD": PLANTED, "TOKEN": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_reference_compares_by_what_it_says_and_reveals() -> None:
    assert Reference("${A}", "x") == Reference("${A}", "x")
    assert hash(Reference("${A}", "x")) == hash(Reference("${A}", "x"))
    assert Reference("${A}", "x") != Reference("${A}", "y")
    assert Reference("x") != "x"


def test_a_reference_cannot_be_dumped_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(Reference("${A}", "x"))
    with pytest.raises(TypeError):
        vars(Reference("${A}", "x"))
