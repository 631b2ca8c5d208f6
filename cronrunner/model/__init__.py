"""The words of cronrunner: frozen values, and the life of an execution.

Standard library only, no input or output. The words themselves are explained in
``docs/glossary.md``; this package is where code gets them from.
"""

from __future__ import annotations

from cronrunner.model.durations import as_utc, format_duration, parse_duration
from cronrunner.model.life import (
    TRANSITIONS,
    WELL,
    ExitCode,
    Outcome,
    Reason,
    Repeat,
    State,
    check_transition,
    closes_claim,
)
from cronrunner.model.options import Option
from cronrunner.model.records import (
    DURATION_BUCKETS,
    CauseCount,
    Claims,
    LedgerSnapshot,
    Report,
    Run,
    RunSummary,
    Shrink,
    Source,
    Statistics,
)
from cronrunner.model.work import (
    EMPTY,
    FLEET,
    FLEET_TENANT,
    Isolation,
    Job,
    Key,
    LeftOut,
    Plan,
    Request,
    Result,
    RetryPolicy,
    Scope,
    SetAside,
    Slot,
    Tenant,
    TenantFilter,
    Transaction,
    Visit,
    VisitRequest,
)

__all__ = [
    "DURATION_BUCKETS",
    "EMPTY",
    "FLEET",
    "FLEET_TENANT",
    "TRANSITIONS",
    "WELL",
    "CauseCount",
    "Claims",
    "ExitCode",
    "Isolation",
    "Job",
    "Key",
    "LedgerSnapshot",
    "LeftOut",
    "Option",
    "Outcome",
    "Plan",
    "Reason",
    "Repeat",
    "Report",
    "Request",
    "Result",
    "RetryPolicy",
    "Run",
    "RunSummary",
    "Scope",
    "SetAside",
    "Shrink",
    "Slot",
    "Source",
    "State",
    "Statistics",
    "Tenant",
    "TenantFilter",
    "Transaction",
    "Visit",
    "VisitRequest",
    "as_utc",
    "check_transition",
    "closes_claim",
    "format_duration",
    "parse_duration",
]
