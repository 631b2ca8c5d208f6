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
#: A mistake that is taken out may uncover one more around it; three deep is the deepest.
_ROUNDS: Final = 8
_PLACE_OF_LEDGER: Final = {("ledger", key) for key in ("url", "server", "database")}


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
    sections = reading.validate(path)
    if sections is None or reading.problems:
        raise ConfigError(sorted(reading.problems, key=lambda each: each.line or 0))
    return _settings(path, environ, reading, sections)


def load_rest(path: Path, environ: Mapping[str, str]) -> Settings | None:
    """Return what is left of a file without its mistakes, for further checks; never to be run.

    ``None`` if too little is left, or a mistake in it decides what the rest means.
    """
    try:
        reading = _Reading(read_document(path), environ)
    except ConfigError:
        return None
    for _ in range(_ROUNDS):
        sections = reading.validate(path)
        wrong, reading.wrong = reading.wrong, set()
        if sections is not None and sections.ledger.server not in {None, *sections.servers}:
            wrong.add(("ledger",))
        if wrong & _PLACE_OF_LEDGER:
            # The default would be judged by what is meant for another one.
            wrong.add(("ledger",))
        if sections is not None and wrong <= {("servers",)}:
            return _settings(path, environ, reading, sections)
        if wrong & {(), ("job_folder",)}:
            return None
        for location in wrong:
            _remove(reading.data, location)
    return None


def _remove(data: dict[str, Any], location: Location) -> None:
    """Take out what is at ``location``, or around it: a list, or what lacks a key it needs."""
    part, rest = location[0], location[1:]
    inner = data.get(str(part))
    if not rest or not isinstance(inner, dict) or rest[0] not in inner:
        data.pop(str(part), None)
        if part == "servers":
            data["servers"] = {}
        return
    _remove(inner, rest)


def _settings(
    path: Path, environ: Mapping[str, str], reading: _Reading, sections: TenantsFile
) -> Settings:
    document = reading.document
    references = dict(_references(sections))
    return Settings(
        path=path,
        folder=path.absolute().parent,
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
        self.document = document
        self._interpolation = Interpolation(environ)
        self._failed: set[Location] = set()
        self.problems: list[Problem] = []
        #: Where a mistake is, reported or not.
        self.wrong: set[Location] = set()
        self.data = self._replace(document.data, ())
        self.secrets = self._interpolation.secrets

    def validate(self, path: Path) -> TenantsFile | None:
        """Check the data against the models and the rules; ``None`` if the models refuse it."""
        sections: TenantsFile | None = None
        try:
            folder = path.absolute().parent
            sections = TenantsFile.model_validate(self.data, context={"folder": folder})
        except ValidationError as error:
            self.add(explain(error, self.document))
        self.add(mistakes(self.data))
        return sections

    def add(self, found: Iterator[Mistake]) -> None:
        """Keep mistakes, but for those that only follow from a reference without a value."""
        for each in found:
            self.wrong.add(each.location)
            if each.location not in self._failed:
                self._keep(each)

    def _keep(self, mistake: Mistake) -> None:
        place = dotted(mistake.location)
        text = f"{place}: {mistake.text}" if place else mistake.text
        self.problems.append(self.document.problem(mistake.location, text))

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
            text = describe(self.document, location, error.expected, error.got, error.advice)
            self._keep(Mistake(location, text))
            self._failed.add(location)
            self.wrong.add(location)
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
