"""What `load` makes of a file, and how it reports what is wrong with one."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from cronrunner.config import Settings, find_config, load
from cronrunner.errors import ConfigError

SERVER = "servers: {main: {url: 'sqlite://', discover: {directory: tenants}}}\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "tenants.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def read(path: Path, **environ: str) -> Settings:
    return load(path, environ)


def complaints(path: Path, **environ: str) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return [(problem.line, problem.text) for problem in caught.value.problems]


def test_a_small_file_gives_settings_with_defaults(write: Write) -> None:
    settings = read(write(SERVER))

    assert settings.ledger.url is not None
    assert settings.ledger.url.reveal() == "sqlite:///var/ledger.db"
    assert settings.job_folder == settings.folder / "jobs"
    assert settings.runner.concurrency is None
    assert settings.runner.grace == timedelta(seconds=20)
    assert settings.runner.lease == timedelta(seconds=20)
    assert settings.runner.heartbeat == timedelta(seconds=5)
    assert (settings.runner.shrink.percent, settings.runner.shrink.tenants) == (20, 3)
    assert settings.servers["main"].tls == "auto"
    assert settings.servers["main"].connect_timeout == timedelta(seconds=10)
    assert settings.log.format == "auto"
    assert settings.metrics.series_limit == 50_000
    assert settings.warnings == ()


def test_relative_paths_are_relative_to_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(SERVER + "metrics: {textfile: out/cron.prom}\njob_folder: /srv/jobs\n")
    monkeypatch.chdir(path.parent)
    settings = read(Path(path.name))

    assert settings.folder == path.parent
    assert settings.metrics.textfile == path.parent / "out/cron.prom"
    assert settings.servers["main"].discover.directory == path.parent / "tenants"
    assert settings.job_folder == Path("/srv/jobs")


def test_ten_mistakes_are_ten_problems_with_their_lines(write: Write) -> None:
    path = write("""\
        ledger:
          server: mian
          database: cronrunner
        servers:
          main:
            url: mysql+pymysql://cron:${DB_PASWORD}@db.internal:3306
            max_connections: 0
            discover: {databases: "agency_*", query: "SELECT name, database FROM t"}
            tls: requird
        runner:
          concurency: 16
          grace: soon
        tenants:
          agency_acme: {timezone: Europe/Berln}
        jobs:
          compliance.overdue_actions:
            enabled: maybe
            retries: -1
    """)

    found = complaints(path)
    assert [line for line, _ in found] == [2, 6, 7, 8, 9, 11, 12, 14, 17, 18]
    assert "\n".join(text for _, text in found) == dedent("""\
        ledger.server: expected the name of a server, got 'mian'; did you mean 'main'?
        servers.main.url: expected the environment variable DB_PASWORD, got none of that name; set it, or write ${DB_PASWORD:-default}
        servers.main.max_connections: expected 1 or more, got 0
        servers.main.discover: expected exactly one of databases, directory, query, list, got databases and query
        servers.main.tls: expected one of auto, required, verify, disabled, got 'requird'; did you mean 'required'?
        runner.concurency: expected a known key, got 'concurency'; did you mean 'concurrency'?
        runner.grace: expected a duration such as 30s, 5m or 1h30m, got 'soon'
        tenants.agency_acme.timezone: expected an IANA time zone such as Europe/Berlin, got 'Europe/Berln'; did you mean 'Europe/Berlin'?
        jobs.compliance.overdue_actions.enabled: expected true or false, got 'maybe'
        jobs.compliance.overdue_actions.retries: expected 0 or more, got -1""")


def test_problems_read_as_file_line_and_text(write: Write) -> None:
    path = write(SERVER + "job_foldr: x\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}:2: job_foldr: expected a known key, got 'job_foldr'; did you mean 'job_folder'?"
    )


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "expected settings, got an empty file"),
        ("# nothing but a comment\n", 1, "expected settings, got an empty file"),
        ("- a\n- b\n", 1, "expected keys such as servers: at the top, got a list"),
        ("\njust text\n", 2, "expected keys such as servers: at the top, got text"),
        ("servers:\n  a: 1\n  b: 2\n  a: 3\n", 4, "column 3: the key 'a' is here twice; first on line 2"),
        ("servers:\n\tmain: 1\n", 2, "column 1: expected spaces, got a tab"),
        ("servers: {a: [}\n", 1, "column 15: "),
        ("servers: *nobody\n", 1, "column 10: expected an alias that was defined before"),
        ("servers: &a [*a]\n", 1, "column 10: an alias stands inside of what it repeats"),
        ("servers: !secret x\n", 1, "column 10: expected no tag"),
        ("servers:\n  ? [a]\n  : 1\n", 2, "column 5: expected a name as key"),
        ("servers:\n  a: \x07\n", 2, "column 6: a control character is not allowed here"),
        ("servers: 1\n---\njobs: 1\n", 2, "column 1: "),
        ("[" * 5000, 1, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_stops_the_parser_is_reported_alone(
    write: Write, text: str, line: int, says: str
) -> None:
    [(at, said)] = complaints(write(text))
    assert at == line
    assert says in said


def test_a_file_in_another_encoding_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_bytes("servers:\n  münchen: {}\n".encode("latin-1"))
    assert complaints(path) == [(2, "column 4: expected UTF-8 text, got the byte 0xfc")]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SERVER.encode())
    assert list(read(path).servers) == ["main"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("runner: [1]", "runner: expected a mapping, got a list"),
        ("runner: {concurrency: '16x'}", "expected a whole number, got '16x'"),
        ("runner: {concurrency: 1.5}", "expected a whole number, got 1.5"),
        ("runner: {concurrency: true}", "expected a whole number, got true"),
        ("runner: {grace: 20}", "expected a duration such as 30s, 5m or 1h30m, got 20"),
        ("runner: {grace: 0s}", "expected a duration such as 30s, 5m or 1h30m, got '0s'"),
        ("runner: {grace: 99999999999d}", "expected a duration such as 30s, 5m or 1h30m"),
        ("runner: {grace: 1 h}", "expected a duration such as 30s, 5m or 1h30m, got '1 h'"),
        ("runner: {lease: 6s}", "expected a lease of at least twice the heartbeat of 5s, got 6s"),
        ("ledger: {keep: 1h}", "expected to keep at least 1d of history, got 1h"),
        ("ledger: {reserved_connections: 1}", "expected 2 or more, got 1"),
        ("runner: {heartbeat: 11s}", "twice the heartbeat of 11s, got 20s"),
        ("runner: {shrink: {percent: 200}}", "expected 100 or less, got 200"),
        ("runner: {shrink: {percent: many}}", "expected a number, got 'many'"),
        ("tenants: {a: {labels: {v: 1.10}}}", "expected text, got 1.1; put it in quotes"),
        ("tenants: {a: {labels: {v: yes, w: true}}}", "w: expected text, got true; put it in"),
        ("tenants: {a: {timezone: 5}}", "expected an IANA time zone such as Europe/Berlin, got 5"),
        ("tenants: {a: {timezone: europe/berlin}}", "did you mean 'Europe/Berlin'?"),
        ("tenants: {a: {timezone: ../etc/passwd}}", "expected an IANA time zone"),
        ("tenants: {a: {timezone: Europe}}", "expected an IANA time zone"),
        ("jobs: {a: {schedule: ''}}", "expected text that is not empty, got ''"),
        ("jobs: {a: {options: 3}}", "expected a mapping, got 3"),
        ("metrics: {textfile: metrics.txt}", "expected a path that ends in .prom"),
        ("metrics: {port: 65536}", "expected 65535 or less, got 65536"),
        ("metrics: {pushgateway: 'mysql://x'}", "expected a URL such as http://pushgateway:9091"),
        ("metrics: {pushgateway: 9091}", "expected a URL, got '***'; put it in quotes"),
        ("log: {format: xml}", "expected one of auto, json, console, got 'xml'"),
        ("log: {level: warn}", "got 'warn'; did you mean 'warning'?"),
        ("job_folder: ''", "expected a path, got ''"),
        ("ledger: ledger.db", "expected a URL such as"),
        ("ledger: {server: main}", "expected server and database together, got server alone"),
        (
            "ledger: {server: main, database: l, tls: verify}",
            "expected tls at the server on which the ledger lives, got it here",
        ),
        ("ledger: {url: 'sqlite:///x', server: main, database: d}", "expected url, or server and"),
        ("ledger: {server: other, database: d}", "got 'other'; known are main"),
        ("nonsense: 1", "expected one of the keys servers, ledger, runner,"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_problem_on_its_line(write: Write, section: str, says: str) -> None:
    [(line, said)] = complaints(write(f"{SERVER}\n{section}\n"))
    assert line == 3
    assert says in said


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("{discover: {databases: a}}", "expected the key 'url', got none of that name"),
        ("{url: , discover: {databases: a}}", "url: expected a value, got nothing"),
        ("{ulr: 'mysql://h', discover: {databases: a}}", "did you mean 'url'?"),
        ("{url: 'mysql://h'}", "expected the key 'discover', got none of that name"),
        ("{url: 'mysql://h', discover: {}}", "list, got none of them"),
        ("{url: 'mysql://h', discover: {databases: }}", "list, got none of them"),
        ("{url: 'mysql://h', discover: {databses: a}}", "did you mean 'databases'?"),
        ("{url: 'mysql://h', discover: agency_*}", "expected a mapping, got 'agency_*'"),
        ("{url: 'mysql://h', discover: {databases: 5}}", "expected a glob or a list of globs, got 5"),
        ("{url: 'mysql://h', discover: {databases: [5]}}", "expected text, got 5; put it in quotes"),
        ("{url: 'mysql://h', discover: {databases: []}}", "expected at least one, got an empty list"),
        ("{url: 'mysql://h', discover: {list: []}}", "expected at least one, got an empty list"),
        ("{url: 'mysql://h', discover: {list: [a, b, a]}}", "each tenant once, got 'a' again"),
        ("{url: 'mysql://h', discover: {list: [7]}}", "expected a mapping, got 7"),
        ("{url: 'mysql://h', discover: {list: [{nme: a}]}}", "did you mean 'name'?"),
        ("{url: 'mysql://h', discover: {query: Q, exclude: x}}", "got it beside query"),
        ("{url: 'mysql://h', discover: {databases: a, pattern: x}}", "got it beside databases"),
        ("{url: 'mysql://h', discover: {databases: a}, max_connections: 0}", "expected 1 or more"),
        ("{url: 'mysql://h', discover: {databases: a}, user: x}", "did you mean 'username'?"),
        ("{url: db.internal, discover: {databases: a}}", "expected a URL such as mysql+pymysql"),
        ("mysql://db.internal", "expected a mapping, got 'mysql://db.internal'"),
        ("[]", "expected a mapping, got a list"),
    ],
)  # fmt: skip
def test_a_wrong_server_is_one_problem(write: Write, server: str, says: str) -> None:
    [(line, said)] = complaints(write(f"servers:\n  main: {server}\n"))
    assert line == 2
    assert says in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("servers:\n", "servers: expected a value, got nothing"),
        ("servers: {}\n", "servers: expected at least one server, got none"),
        ("jobs: {}\n", "expected the key 'servers', got none of that name"),
        ("servres: {}\n", "did you mean 'servers'?"),
        ("servers: {'a b': {url: 'mysql://h', discover: {databases: a}}}\n", "letters, digits"),
    ],
)
def test_a_file_needs_a_server_with_a_plain_name(write: Write, text: str, says: str) -> None:
    [(line, said)] = complaints(write(text))
    assert line == 1
    assert says in said


def test_the_line_is_that_of_the_value_where_it_stands_below_its_key(write: Write) -> None:
    path = write("""\
        servers:
          main:
            url: sqlite://
            connect_timeout:
              never
            discover:
              list:
                - first
                - name: second
                  timezone: Mars/Base
    """)
    assert [line for line, _ in complaints(path)] == [5, 10]


def test_times_and_no_stay_text_as_yaml_1_2_says(write: Write) -> None:
    settings = read(
        write(SERVER + "tenants: {a: {labels: {from: 22:30, country: no, on: 2026-01-01}}}\n")
    )
    assert settings.tenant("a").labels == {"from": "22:30", "country": "no", "on": "2026-01-01"}


def test_no_and_off_switch_off(write: Write) -> None:
    settings = read(
        write(SERVER + "jobs: {a: {enabled: no}, b: {enabled: off}, c: {enabled: true}}\n")
    )
    assert [settings.job(name).enabled for name in "abc"] == [False, False, True]


def test_names_that_look_like_numbers_stay_as_they_are_written(write: Write) -> None:
    settings = read(write(SERVER + "tenants: {007: {labels: {a: b}}, null: {enabled: false}}\n"))
    assert list(settings.tenants) == ["007", "null"]


def test_a_key_without_a_value_is_as_if_it_were_not_there(write: Write) -> None:
    settings = read(write(SERVER + "runner:\n  grace:\ntenants:\n  a:\njobs:\nledger:\n"))
    assert settings.runner.grace == timedelta(seconds=20)
    assert settings.tenant("a") == settings.tenant("unknown")


def test_servers_may_share_what_they_have_in_common(write: Write) -> None:
    settings = read(
        write("""\
        servers:
          one: &one {url: "mysql://one", max_connections: 4, discover: {databases: "a_*"}}
          two: {<<: *one, url: "mysql://two"}
    """)
    )
    assert settings.servers["two"].url.reveal() == "mysql://two"
    assert settings.servers["two"].max_connections == 4


def test_the_ways_to_discover_are_read(write: Write) -> None:
    settings = read(
        write("""\
        servers:
          globs: {url: "mysql://h", discover: {databases: [a_*, b_*], exclude: a_old, prefix: x.}}
          query: {url: "mysql://h", discover: {query: "SELECT name, database FROM tenants"}}
          files: {url: "sqlite://", discover: {directory: var, pattern: "*.sqlite", exclude: [z*]}}
          list:
            url: "sqlite://"
            timezone: Europe/Vienna
            discover:
              list: [acme, {name: brix, database: brix.db, labels: {plan: gold}, timezone: UTC}]
    """)
    )
    globs = settings.servers["globs"].discover
    assert (globs.databases, globs.exclude, globs.prefix) == (("a_*", "b_*"), ("a_old",), "x.")
    assert settings.servers["query"].discover.query == "SELECT name, database FROM tenants"
    files = settings.servers["files"].discover
    assert (files.pattern, files.exclude) == ("*.sqlite", ("z*",))
    acme, brix = settings.servers["list"].discover.list or ()
    assert (acme.name, acme.database, acme.timezone) == ("acme", None, None)
    assert (brix.database, brix.labels, brix.timezone) == ("brix.db", {"plan": "gold"}, "UTC")


def test_the_ledger_may_live_on_a_server(write: Write) -> None:
    settings = read(write(SERVER + "ledger: {server: main, database: cronrunner}\n"))
    assert settings.ledger.url is None
    assert (settings.ledger.server, settings.ledger.database) == ("main", "cronrunner")


def test_the_ledger_of_a_file_may_reserve_connections(write: Write) -> None:
    settings = read(write(SERVER + "ledger: {reserved_connections: 4}\n"))
    assert str(settings.ledger.url) == "sqlite:///var/ledger.db"
    assert settings.ledger.reserved_connections == 4


def test_lines_are_known_for_whoever_checks_more(write: Write) -> None:
    settings = read(write(SERVER + "jobs:\n  a.b:\n    schedule: 0 0 * * *\n    options: {x: 1}\n"))
    assert settings.line_of("jobs", "a.b") == 3
    assert settings.line_of("jobs", "a.b", "schedule") == 4
    assert settings.line_of("jobs", "a.b", "options", "x") == 5
    assert settings.line_of("jobs", "a.b", "timeout") is None


def test_the_digest_is_that_of_what_is_written(write: Write) -> None:
    url = "servers: {m: {url: 'mysql://u:%s@h', discover: {databases: a}}}\n"
    plain = read(write(url % "${DB}"), DB="one").digest

    assert read(write(f"# a comment\n{url}" % "${DB}"), DB="two").digest == plain
    assert read(write(url % "${OTHER}"), OTHER="one").digest != plain
    assert read(write(url % "hunter2")).digest == read(write(url % "swordfish")).digest


def test_the_digest_knows_the_order_of_globs(write: Write) -> None:
    first, second = "a*: {enabled: true}", "*a: {enabled: false}"
    forth = read(write(SERVER + f"tenants: {{{first}, '{second[:2]}'{second[2:]}}}")).digest
    back = read(write(SERVER + f"tenants: {{'{second[:2]}'{second[2:]}, {first}}}")).digest
    assert forth != back


def test_any_text_that_yaml_can_write_has_a_digest(write: Write) -> None:
    assert read(write(SERVER + 'jobs: {a: {options: {x: "\\ud800", y: .nan, z: null}}}\n')).digest


def test_settings_cannot_be_changed(write: Write) -> None:
    settings = read(write(SERVER))
    with pytest.raises(AttributeError):
        settings.job_folder = Path()  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        settings.log.level = "debug"  # type: ignore[misc]


def test_the_file_is_found_by_option_then_variable_then_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tenants.yaml", "a.yaml", "b.yaml"):
        (tmp_path / name).touch()
    assert find_config("a.yaml", {"CRONRUNNER_CONFIG": "b.yaml"}) == Path("a.yaml")
    assert find_config(None, {"CRONRUNNER_CONFIG": "b.yaml"}) == Path("b.yaml")
    assert find_config(None, {"CRONRUNNER_CONFIG": ""}) == Path("tenants.yaml")


@pytest.mark.parametrize(
    ("explicit", "environ", "says"),
    [
        ("x.yaml", {}, "x.yaml: expected a configuration file, found none; correct --config"),
        (None, {"CRONRUNNER_CONFIG": "y.yaml"}, "found none; correct CRONRUNNER_CONFIG"),
        (None, {}, "write a first one with `cronrunner init`"),
        (".", {}, "expected a file, got a folder; did you mean 'tenants.yaml'?"),
    ],
)
def test_a_file_that_is_not_there_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    explicit: str | None,
    environ: dict[str, str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_config(explicit, environ)
    assert says in str(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a readable file: No such file"):
        load(tmp_path / "gone.yaml", {})
