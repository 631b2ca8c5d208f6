"""Large fleets: bounds that a mistake of the wrong order breaks, far from what it takes."""

import time
from dataclasses import replace
from pathlib import Path

from cronrunner.config import load
from cronrunner.model import TenantFilter
from cronrunner.planning import Selection, filter_veto, make_plan, select_tenants
from tests.unit.test_planning import job, tenant

SERVER = "servers:\n  main: {url: 'sqlite://', discover: {directory: var}}\n"


def test_a_hundred_thousand_tenants_with_thirty_jobs_are_planned_in_seconds() -> None:
    tenants = [tenant(f"agency_{n}", f"s{n % 20}") for n in range(100_000)]
    known = [job(f"j{n}", tenants=TenantFilter(names=("*",))) for n in range(30)]
    known[0] = replace(known[0], tenants=TenantFilter(names=("agency_1*",)))
    began = time.process_time()
    plan = make_plan(known, tenants, veto=filter_veto)

    # A second on an idle core.
    assert time.process_time() - began < 10
    assert len(plan.visits) == 100_000
    assert plan.executions + len(plan.left_out) == 3_000_000


def test_ten_thousand_of_a_hundred_thousand_tenants_are_selected_by_name() -> None:
    tenants = [tenant(f"agency_{n}") for n in range(100_000)]
    asked = [f"agency_{n}" for n in range(0, 100_000, 10)]
    began = time.process_time()
    chosen = select_tenants(
        tenants, Selection(tenants=(*asked, "*99999"), exclude_tenants=tuple(asked[:5000]))
    )

    # A tenth of a second on an idle core; one by one it would be an hour.
    assert time.process_time() - began < 5
    assert len(chosen) == 5001


def test_ten_thousand_tenants_are_read(tmp_path: Path) -> None:
    tenants = "".join(f"  agency_{i:05}: {{labels: {{n: 'x{i}'}}}}\n" for i in range(10_000))
    file = tmp_path / "tenants.yaml"
    file.write_text(f"{SERVER}tenants:\n  agency_*: {{timezone: Europe/Paris}}\n{tenants}")
    last = load(file, {}).tenant("agency_09999")

    assert (last.timezone, last.labels) == ("Europe/Paris", {"n": "x9999"})
