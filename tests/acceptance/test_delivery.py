"""Metrics of a run: served meanwhile, written and pushed at the end, and never in its way."""

import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.acceptance.fleet import finish
from tests.acceptance.small import WAITING, began, go, small, until, written
from tests.servers import HOST, SilentServer, free_port


def values(text: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in read_text(text)
        for sample in family.samples
        if sample.name == name
    }


def test_metrics_are_served_while_a_run_lasts(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING, tenants=2)
    port = free_port()
    with fleet.started("run", f"--metrics-port={port}") as process:
        until(lambda: len(began(fleet)) == 2)
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        go(fleet)
        assert finish(process).code == 0

    assert values(text, "cronrunner_tenants_discovered") == {("files",): 2}


def test_a_port_that_is_taken_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, silent_server: SilentServer
) -> None:
    fleet = small(tmp_path)
    finished = fleet.run("run", "--json", f"--metrics-port={silent_server.port}")

    assert finished.code == 0
    assert finished.document["outcomes"] == {"succeeded": 3}
    assert "/metrics is not served on" in finished.stderr


def test_a_textfile_says_what_the_ledger_says(tmp_path: Path) -> None:
    fleet = small(tmp_path, metrics={"textfile": "out.prom"})
    fleet.run()
    text = (tmp_path / "out.prom").read_text(encoding="utf-8")

    assert values(text, "cronrunner_job_executions_total")["jobs.work", "succeeded"] == 3
    per_tenant = values(text, "cronrunner_tenant_job_last_success_timestamp_seconds")
    assert {tenant for _, tenant in per_tenant} == {"t0", "t1", "t2"}
    assert values(text, "cronrunner_run_last_success_timestamp_seconds")


def test_a_textfile_that_cannot_be_written_changes_no_outcome(tmp_path: Path) -> None:
    fleet = small(tmp_path, metrics={"textfile": "/dev/null/out.prom"})
    finished = fleet.run("--json")

    assert (finished.code, finished.document["outcomes"]) == (0, {"succeeded": 3})
    assert "textfile" in finished.stderr


def test_a_pushgateway_that_hangs_costs_its_timeout_and_no_outcome(
    tmp_path: Path, silent_server: SilentServer
) -> None:
    fleet = small(tmp_path)
    began_at = time.monotonic()
    assert fleet.run().code == 0
    without = time.monotonic() - began_at
    config = fleet.config.read_text(encoding="utf-8").rstrip().removesuffix("}")
    url = f"http://{HOST}:{silent_server.port}"
    fleet.configure(config + f', "metrics": {{"pushgateway": "{url}", "timeout": "1s"}}}}')
    began_at = time.monotonic()
    finished = fleet.run("--json")

    assert (finished.code, finished.document["outcomes"]) == (0, {"succeeded": 3})
    assert "not delivered within 1s" in finished.stderr
    # The timeout, what the push imports, and a busy machine.
    assert time.monotonic() - began_at < without + 1 + 5
    assert set(written(fleet).values()) == {2}
