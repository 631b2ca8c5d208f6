"""Statements in text with values in them, executed as SQLAlchemy executes its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Executable, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.visitors import InternalTraversal

from cronrunner.databases.columns import UtcDateTime
from cronrunner.errors import UnknownParameterError
from cronrunner.sqltext import Parameter, Pieces


class Clause(Executable, ClauseElement):
    """A statement whose parameters were found by ``sqltext``.

    SQLAlchemy's ``text()`` takes ``' :x'`` in quotes for a parameter, and its way to escape one
    changes what it stands in.
    """

    # By what SQLAlchemy finds a statement that it has compiled before, for this tenant or another;
    # test_execute notices when it no longer does. Whether a value is a list is not part of its own
    # key for a parameter.
    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - as SQLAlchemy declares it
        ("pieces", InternalTraversal.dp_plain_obj),
        ("lists", InternalTraversal.dp_plain_obj),
        ("bound", InternalTraversal.dp_string_clauseelement_dict),
    ]

    def __init__(self, pieces: Pieces, values: Mapping[str, Any]) -> None:
        """Raises ``UnknownParameterError`` for a parameter without a value."""
        names = {each.name for each in pieces if isinstance(each, Parameter)}
        if unknown := sorted(names - values.keys()):
            known = ", ".join(sorted(values))
            msg = f"unknown parameter :{', :'.join(unknown)}; known are {known}"
            raise UnknownParameterError(msg)
        self.pieces = pieces
        self.lists = frozenset(name for name in names if isinstance(values[name], list | tuple))
        self.bound = {name: _bound(name, values[name]) for name in names}


def _bound(name: str, value: object) -> BindParameter[Any]:
    if isinstance(value, list | tuple):
        return bindparam(name, value, expanding=True)
    if isinstance(value, datetime) and value.tzinfo is not None:
        # As such columns hold it: SQLite compares text.
        return bindparam(name, value, type_=UtcDateTime())
    return bindparam(name, value)


@compiles(Clause)
def _compile(clause: Clause, compiler: SQLCompiler, **given: Any) -> str:  # noqa: ANN401 - as SQLAlchemy has it
    return "".join(
        compiler.process(clause.bound[each.name], **given)
        if isinstance(each, Parameter)
        # Doubles what would be a place for a value to the driver.
        else compiler.post_process_text(each)  # type: ignore[no-untyped-call]
        for each in clause.pieces
    )
