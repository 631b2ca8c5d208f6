"""From a file and an environment to settings, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from cronrunner.config.document import Document, Location, read_document
from cronrunner.config.fault import Expected
from cronrunner.config.references import Interpolation, Reference, printable
from cronrunner.config.report import describe, dotted, explain
from cronrunner.config.rules import Mistake, mistakes
from cronrunner.config.sections import TenantsFile
from cronrunner.config.settings import Settings
from cronrunner.errors import ConfigError, Problem

DEFAULT_NAME: Final = "tenants.yaml"
VARIABLE: Final = "CRONRUNNER_CONFIG"


def find_config(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the path of the configuration: ``--config``, the variable, or the folder's own.

    Raises ``ConfigError`` when there is no file.
    """
    path = Path(explicit or environ.get(VARIABLE) or DEFAULT_NAME)
    if path.is_dir():
        text = f"expected a file, got a folder; did you mean {str(path / DEFAULT_NAME)!r}?"
        raise ConfigError([Problem(text=text, file=str(path))])
    if not path.exists():
        raise ConfigError([Problem(text=_not_found(explicit, environ), file=str(path))])
    return path


def _not_found(explicit: str | None, environ: Mapping[str, str]) -> str:
    if explicit:
        return "expected a configuration file, found none; correct --config"
    if environ.get(VARIABLE):
        return f"expected a configuration file, found none; correct {VARIABLE}"
    return (
        "expected a configuration file, found none; name it with --config or "
        f"{VARIABLE}, or write a first one with `cronrunner init`"
    )


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read ``path``; raises ``ConfigError`` with all of its mistakes, ordered by line."""
    document = read_document(path)
    reading = _Reading(document, environ)
    folder = path.absolute().parent
    try:
        sections: TenantsFile | None = TenantsFile.model_validate(
            reading.data, context={"folder": folder}
        )
    except ValidationError as error:
        sections = None
        reading.add(explain(error, document))
    reading.add(mistakes(reading.data))
    if sections is None or reading.problems:
        raise ConfigError(sorted(reading.problems, key=lambda each: each.line or 0))
    references = dict(_references(sections))
    return Settings(
        path=path,
        folder=folder,
        **{name: getattr(sections, name) for name in TenantsFile.model_fields},
        warnings=tuple(_warnings(references, document)),
        digest=_digest(document.data),
        secrets=_secrets(references.values()) | reading.secrets,
        environ=environ,
        lines=document.lines,
    )


class _Reading:
    """The data of a document with its references replaced, and the mistakes so far."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._interpolation = Interpolation(environ)
        self._failed: set[Location] = set()
        self.problems: list[Problem] = []
        self.data = self._replace(document.data, ())
        self.secrets = self._interpolation.secrets

    def add(self, found: Iterator[Mistake]) -> None:
        """Keep mistakes, but for those that only follow from a reference without a value."""
        for each in found:
            if each.location not in self._failed:
                self._keep(each)

    def _keep(self, mistake: Mistake) -> None:
        place = dotted(mistake.location)
        text = f"{place}: {mistake.text}" if place else mistake.text
        self.problems.append(self._document.problem(mistake.location, text))

    def _replace(self, value: Any, location: Location) -> Any:  # noqa: ANN401 - what YAML holds
        if isinstance(value, dict):
            return {key: self._replace(each, (*location, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._replace(each, (*location, i)) for i, each in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return self._interpolation.replace(value)
        except Expected as error:
            text = describe(self._document, location, error.expected, error.got, error.advice)
            self._keep(Mistake(location, text))
            self._failed.add(location)
            return value


def _references(sections: TenantsFile) -> Iterator[tuple[Location, Reference]]:
    for name, server in sections.servers.items():
        yield ("servers", name, "url"), server.url
        if server.password:
            yield ("servers", name, "password"), server.password
    if sections.ledger.url:
        yield ("ledger", "url"), sections.ledger.url
    if sections.metrics.pushgateway:
        yield ("metrics", "pushgateway"), sections.metrics.pushgateway


def _secrets(references: Iterable[Reference]) -> frozenset[str]:
    return frozenset(secret for each in references for secret in each.reveal_secrets())


def _warnings(references: Mapping[Location, Reference], document: Document) -> Iterator[Problem]:
    for location, reference in references.items():
        if reference.literal:
            text = f"{dotted(location)}: a secret is written out here; use ${{NAME}} or file:/path"
            yield document.problem(location, text)


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(_without_secrets(data))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_secrets(value: Any, key: str = "") -> Any:  # noqa: ANN401 - what YAML holds
    if isinstance(value, dict):
        return {name: _without_secrets(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return printable(key, value) if isinstance(value, str) else value
