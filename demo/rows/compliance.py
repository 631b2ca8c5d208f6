"""Controls, the evidence for them, and in which state they were before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final, NamedTuple

from demo.scene import SECOND, Row, Scene


class _Control(NamedTuple):
    """A control: how it was a week ago, and its newest evidence."""

    was: str | None
    #: Pairs of a result and the days from today to the end of its validity; the last one counts.
    newest: tuple[tuple[str, int | None], ...] = ()
    retired: bool = False


_CONTROLS: Final = (
    _Control("compliant"),  # nothing any more: medium
    _Control("non_compliant", (("pass", None),)),  # an improvement
    _Control("compliant", (("pass", 0),)),  # valid for the last day
    _Control("compliant", (("pass", -1),)),  # valid until yesterday: high
    _Control("compliant", (("pass", 30), ("fail", None))),  # critical
    _Control("non_compliant", (("fail", None), ("warning", None))),  # another improvement
    _Control("warning", (("warning", None),)),  # as it was
    _Control(None, (("pass", 30),)),  # added
    _Control("compliant", (("fail", None),), retired=True),  # removed
)
#: One that was deleted.
_GONE: Final = len(_CONTROLS) + 1


def framework_controls(_: Scene) -> Iterator[Row]:
    """Yield a control for each way in which one can change; the last is retired."""
    for number, control in enumerate(_CONTROLS, start=1):
        yield {
            "framework_code": "ISO27001",
            "control_code": f"A.{number}",
            "title": f"Control {number}",
            "retired": control.retired,
        }


def control_evidence(scene: Scene) -> Iterator[Row]:
    """Yield the newest evidence of each control, at the slot, and what was there before and after.

    What is newest was collected in one second: the higher id counts.
    """
    source = scene.random("control_evidence")
    for number, control in enumerate(_CONTROLS, start=1):
        for _ in range(4 * scene.scale if control.newest else 0):
            yield {
                "control_id": number,
                "result": source.choice(("pass", "warning", "fail")),
                "collected_at": scene.within(source, days=120),
                "valid_until": scene.today + timedelta(days=source.choice((-1, 0, 30))),
            }
        for result, days in control.newest:
            yield {
                "control_id": number,
                "result": result,
                "collected_at": scene.at,
                "valid_until": None if days is None else scene.today + timedelta(days=days),
            }
        yield {"control_id": number, "result": "fail", "collected_at": scene.at + SECOND}


def compliance_snapshots(scene: Scene) -> Iterator[Row]:
    """Yield snapshots at the edges of the windows over which changes are added up."""
    statuses = {str(n): each.was for n, each in enumerate(_CONTROLS, start=1) if each.was}
    statuses[str(_GONE)] = "warning"
    for days in (90, 30, 7):
        for moment in (scene.ago(days=days), scene.ago(days=days) + SECOND):
            yield {
                "slot": moment,
                "statuses": statuses,
                "changes": [
                    _change(2, "compliant", "non_compliant", "regression", "critical"),
                    _change(3, "warning", "compliant", "improvement", None),
                ],
                "counts": {status: [*statuses.values()].count(status) for status in _STATUSES},
            }


_STATUSES: Final = ("compliant", "warning", "non_compliant", "not_assessed")


def _change(control: int, old: str, new: str, kind: str, severity: str | None) -> Row:
    return {"control_id": control, "old": old, "new": new, "kind": kind, "severity": severity}
