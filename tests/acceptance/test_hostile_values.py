"""Whatever a job raises or returns is the outcome of that job alone, and the ledger holds it."""

from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet

#: What each tenant's job does: the name is the tenant's.
HOSTILE = {
    "skip_with_an_exception": "raise Skip(ValueError('inner'))",
    "cancel_with_a_number": "raise Cancel(7)",
    "retry_with_a_number": "raise Retry(after=30)",
    "no_text": "raise NoText",
    "surrogate": "raise RuntimeError(os.fsdecode(b'caf\\xe9'))",
    "surrogate_skip": "raise Skip(os.fsdecode(b'caf\\xe9'))",
    "nul": "raise RuntimeError('a\\0b')",
    "long_error": "raise RuntimeError('x' * 1_000_000)",
    "long_skip": "raise Skip('x' * 70_000)",
    "huge_counter": "return {'n': 10**5000}",
    "many_counters": "return {f'counter_{n}': n for n in range(10_000)}",
    "not_counters": "return object()",
    "group": "raise ExceptionGroup('several', [ValueError('a'), KeyError('b')])",
    "recursion": "def again(): again()\n        again()",
    "generator_exit": "raise GeneratorExit",
    "keyboard": "raise KeyboardInterrupt",
    "invalidated": "ctx.connection.invalidate()",
}
WELL = [f"well_{number}" for number in range(8)]
SKIPPED = {"skip_with_an_exception", "surrogate_skip", "long_skip"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder: Path = tmp_path_factory.mktemp("hostile")
    tenants = folder / "var" / "tenants"
    tenants.mkdir(parents=True)
    for name in (*HOSTILE, *WELL):
        (tenants / f"{name}.db").touch()
    lines = "".join(
        f"    if ctx.tenant.name == {name!r}:\n        {action}\n"
        for name, action in HOSTILE.items()
    )
    job = (
        "import os\nfrom cronrunner import Retry\n\n\n"
        "class NoText(Exception):\n    def __str__(self):\n        raise TypeError('no')\n\n\n"
        f"@job\ndef hostile(ctx):\n{lines}\n\n@job\ndef next_one(ctx):\n    return {{'n': 1}}\n"
    )
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"directory": "var/tenants"}}}}
    return Fleet(folder, config, {"values": job}).run("run", "--json")


def test_every_execution_has_an_outcome(finished: Finished) -> None:
    assert finished.code == 1
    assert len(finished.outcomes) == 2 * len((*HOSTILE, *WELL))


@pytest.mark.parametrize("tenant", HOSTILE)
def test_it_is_the_outcome_of_that_job_alone(finished: Finished, tenant: str) -> None:
    outcome = finished.outcomes["values.hostile", tenant]

    if tenant in SKIPPED:
        assert outcome == "skipped"
    elif tenant == "cancel_with_a_number":
        assert outcome == "cancelled"
    elif tenant != "invalidated":
        assert outcome == "failed"
    assert finished.outcomes["values.next_one", tenant] == "succeeded"


@pytest.mark.parametrize("tenant", WELL)
def test_the_others_are_well(finished: Finished, tenant: str) -> None:
    assert finished.outcomes["values.hostile", tenant] == "succeeded"


def test_a_broken_job_file_does_not_tell_a_secret(tmp_path: Path) -> None:
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"list": ["a"]}}}}
    source = "import os\nraise RuntimeError('with ' + os.environ['API_TOKEN'])\n"
    fleet = Fleet(tmp_path, config, {"leaking.py": source})
    secret = {"API_TOKEN": "s3cr3t-t0k3n"}
    runs = [
        fleet.run(*command, env=secret) for command in (("run", "--json"), ("plan",), ("jobs",))
    ]
    runs.append(fleet.run("show", "last", env=secret))

    assert all("s3cr3t" not in each.stdout + each.stderr for each in runs)
    assert "with [redacted]" in runs[0].document["errors"][0]
    assert b"s3cr3t" not in fleet.ledger_file.read_bytes()


def test_a_thread_that_a_job_leaves_behind_does_not_keep_the_process(tmp_path: Path) -> None:
    (tmp_path / "var" / "tenants").mkdir(parents=True)
    (tmp_path / "var" / "tenants" / "a.db").touch()
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"directory": "var/tenants"}}}}
    job = """
    import time
    from concurrent.futures import ThreadPoolExecutor

    POOL = ThreadPoolExecutor()

    @job
    def leave(ctx):
        POOL.submit(time.sleep, 60)
    """
    finished = Fleet(tmp_path, config, {"leaving": job}).run("run", "--json", seconds=20)

    assert finished.code == 0
    assert finished.document["outcomes"] == {"succeeded": 1}


def test_a_dead_server_costs_each_tenant_little(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(400)]
    config = {
        "servers": {
            "dead": {
                "url": "mysql+pymysql://nobody@127.0.0.1:1",
                "discover": {"list": names},
                "connect_timeout": "1s",
            }
        }
    }
    fleet = Fleet(tmp_path, config, {"any": "@job\ndef any_job(ctx):\n    ctx.connection\n"})
    finished = fleet.run("run", "--json", seconds=60)

    outcomes = finished.document["outcomes"]
    assert outcomes["failed"] + outcomes["skipped"] == 400
    # Three that were refused, two probes, and what was under way beside the third.
    assert 5 <= outcomes["failed"] <= 20
    assert finished.code == 1
    assert finished.document["duration_seconds"] < 10
