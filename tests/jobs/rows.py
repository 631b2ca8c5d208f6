"""Rows of the tenant's tables, complete and unremarkable: a test says only what matters to it."""

from datetime import date, datetime
from itertools import count
from typing import Any

from tests.jobs.tenant import S, ago

_numbers = count(1)


def user(**values: Any) -> dict[str, Any]:
    number = next(_numbers)
    return {
        "email": f"user{number}@example.org",
        "name": "Zoë 李 🎁",
        "role": "member",
        "status": "active",
        "notify_email": True,
        "digest": False,
        "created_at": ago(days=400),
        **values,
    }


def admin(**values: Any) -> dict[str, Any]:
    return user(role="admin", **values)


def action(**values: Any) -> dict[str, Any]:
    return {
        "kind": "action",
        "title": "Renew the certificate of 李 🎁",
        "status": "created",
        "due_date": date(2026, 2, 28),
        "opened_at": ago(days=20),
        "updated_at": ago(days=20),
        **values,
    }


def case(**values: Any) -> dict[str, Any]:
    return action(**{"kind": "case", "status": "open", **values})


def event(created_at: datetime, action: str = "login") -> dict[str, Any]:
    return {"action": action, "entity": "user:1", "created_at": created_at}


def notice(created_at: datetime, user_id: int = 1, **values: Any) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "kind": "news",
        "title": "News",
        "body": "…",
        "state": "new",
        "created_at": created_at,
        **values,
    }


def message(**values: Any) -> dict[str, Any]:
    return {
        "dedupe_key": f"test:{next(_numbers)}",
        "channel": "email",
        "recipient": "someone@example.org",
        "subject": "Hello",
        "body": "…",
        "source_job": "test",
        "status": "pending",
        "attempts": 0,
        "not_before": S,
        "created_at": ago(days=3),
        **values,
    }


def exchange(**values: Any) -> dict[str, Any]:
    return {
        "name": "Office",
        "timezone": "Europe/Berlin",
        "exchange_at": ago(days=2),
        "state": "completed",
        **values,
    }


def integration(**values: Any) -> dict[str, Any]:
    return {
        "kind": "webhook",
        "provider": "tracker",
        "enabled": True,
        "state": "ok",
        "failures": 0,
        "created_at": ago(days=90),
        **values,
    }


def mailbox(**values: Any) -> dict[str, Any]:
    return integration(kind="mailbox", address="inbox@example.org", **values)


def backup(**values: Any) -> dict[str, Any]:
    return {
        "component": "database",
        "location": "database.sql.gz",
        "size_bytes": 1000,
        "status": "finished",
        "finished_at": ago(days=1),
        **values,
    }


def job_item(**values: Any) -> dict[str, Any]:
    return {
        "job": "exchanges.purge",
        "item": str(next(_numbers)),
        "state": "error",
        "slot": ago(days=1),
        "attempts": 1,
        **values,
    }


def rate_limit(expires_at: datetime) -> dict[str, Any]:
    return {
        "bucket": f"ip:{next(_numbers)}",
        "window_start": ago(days=2),
        "hits": 3,
        "expires_at": expires_at,
    }


def asset(kind: str, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "name": "Zoë 李 🎁", "auto_renew": False, **values}


def participant(exchange_id: int, **values: Any) -> dict[str, Any]:
    number = next(_numbers)
    return {
        "exchange_id": exchange_id,
        "name": "Zoë 李 🎁",
        "email": f"guest{number}@example.org",
        "reminder_enabled": True,
        **values,
    }


def control(**values: Any) -> dict[str, Any]:
    number = next(_numbers)
    return {
        "framework_code": "ISO",
        "control_code": f"A.{number}",
        "title": f"Access is reviewed {number}",
        "retired": False,
        **values,
    }


def token(**values: Any) -> dict[str, Any]:
    return {
        "token_hash": f"{next(_numbers):064x}",
        "purpose": "login",
        "created_at": ago(days=2),
        "expires_at": ago(days=-1),
        **values,
    }


def evidence(control_id: int, result: str = "pass", **values: Any) -> dict[str, Any]:
    return {"control_id": control_id, "result": result, "collected_at": ago(days=1), **values}


def snapshot(statuses: dict[str, str], **values: Any) -> dict[str, Any]:
    return {"slot": ago(days=7), "statuses": statuses, "changes": [], "counts": {}, **values}


def comparison(**values: Any) -> dict[str, Any]:
    return {
        "name": "Directory and payroll",
        "left_dataset": "directory",
        "right_dataset": "payroll",
        "frequency": "daily",
        "run_day": None,
        "run_hour": 0,
        "ignore_fields": [],
        "enabled": True,
        **values,
    }


def user_session(user_id: int, expires_at: datetime) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "session_key": f"{next(_numbers):064x}",
        "created_at": ago(days=30),
        "expires_at": expires_at,
    }


def report(created_at: datetime, **values: Any) -> dict[str, Any]:
    return {
        "kind": "usage",
        "period_key": str(next(_numbers)),
        "slot": created_at,
        "summary": {"rows": 3},
        "body": "Zoë 李 🎁",
        "created_at": created_at,
        **values,
    }


def archived(archived_at: datetime, **values: Any) -> dict[str, Any]:
    return {
        "source_table": "audit_log",
        "source_id": next(_numbers),
        "record_at": ago(days=3000),
        "data": {},
        "archived_at": archived_at,
        **values,
    }


def access(dataset: str, row_key: str, attrs: Any = None, **values: Any) -> dict[str, Any]:
    attrs = {} if attrs is None else attrs
    return {"dataset": dataset, "row_key": row_key, "attrs": attrs, **values}
