"""The sections of ``tenants.yaml``, each key with its type, default and meaning.

The JSON Schema for editors and the table in ``docs/configuration.md`` are held against these
models. Rules over more than one key are in ``cronrunner.config.rules``.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cronrunner.config.fields import (
    Duration,
    FolderPath,
    FromOne,
    FromTwo,
    FromZero,
    Globs,
    JobZone,
    Labels,
    Options,
    Password,
    Port,
    Processes,
    Text,
    TextfilePath,
    Texts,
    Url,
    WebUrl,
    Zone,
    some,
)
from cronrunner.config.references import Reference

DEFAULT_LEDGER = "sqlite:///var/ledger.db"


class Section(BaseModel):
    """A mapping with known keys. A key without a value is as if it were not there."""

    # Input is hidden in pydantic's own texts: it may be a secret.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        if data is None:
            return {}
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or k not in cls.model_fields}


class ListedTenant(Section):
    """One tenant of a static list: its name, or a mapping."""

    name: Text = Field(description="The tenant's name.")
    database: Text | None = Field(
        None, description="Its database, or the path of its file. Default: the name."
    )
    labels: Labels = Field({}, description="Labels that jobs and commands select by.")
    timezone: Zone | None = Field(None, description="Its time zone.")


def _read_listed(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Listed = Annotated[
    tuple[Annotated[ListedTenant, BeforeValidator(_read_listed)], ...], BeforeValidator(some)
]


class Discover(Section):
    """How tenants are found on a server: exactly one of the four ways."""

    databases: Texts | None = Field(
        None, description="Globs of database names; each that matches is a tenant."
    )
    directory: FolderPath | None = Field(
        None, description="A folder of SQLite files; each file is a tenant."
    )
    query: Text | None = Field(
        None,
        description="A SELECT of the columns name, database and, if wanted, labels and timezone.",
    )
    list: Listed | None = Field(None, description="The tenants themselves: names, or mappings.")
    exclude: Globs = Field((), description="Globs of database or file names that are no tenants.")
    pattern: Text = Field("*.db", description="Glob of the file names in the directory.")
    prefix: str = Field(
        "", description="Put before each tenant's name, so that two servers may have one name."
    )


class ServerSettings(Section):
    """A database endpoint which hosts tenants."""

    url: Url = Field(
        description="Where it is, such as mysql+pymysql://user@host:3306 or sqlite://."
    )
    username: Text | None = Field(None, description="The user, when the URL does not say it.")
    password: Password | None = Field(
        None, description="The password: ${NAME} or file:/path. Not together with one in the URL."
    )
    discover: Discover = Field(description="How its tenants are found.")
    max_connections: FromOne | None = Field(
        None,
        description="Hard limit of one run's connections here, control connections counted.",
    )
    connections: Literal["fresh", "reset"] = Field(
        "fresh",
        description="fresh: each visit connects; reset: a visit takes a session that another "
        "visit has had, made as good as new.",
    )
    tls: Literal["auto", "required", "verify", "disabled"] = Field(
        "auto",
        description="auto: TLS if the server offers it; required: TLS or nothing; "
        "verify: and its certificate is checked; disabled: never.",
    )
    tls_ca: FolderPath | None = Field(
        None, description="File of the certificate authorities that verify checks against."
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=10), description="Limit for connecting, the handshake included."
    )
    labels: Labels = Field({}, description="Labels of all its tenants.")
    timezone: Zone | None = Field(
        None, description="Time zone of its tenants that have none of their own."
    )


class LedgerSettings(Section):
    """Where outcomes are recorded: a URL, or a database on one of the servers."""

    url: Url | None = Field(None, description="URL of the ledger's database.")
    server: Text | None = Field(None, description="Name of the server on which the ledger lives.")
    database: Text | None = Field(None, description="The ledger's database on that server.")
    tls: Literal["auto", "required", "verify", "disabled"] = Field(
        "auto", description="For a ledger given by its URL: as at a server."
    )
    tls_ca: FolderPath | None = Field(
        None, description="For a ledger given by its URL: as at a server."
    )
    reserved_connections: FromTwo = Field(
        3,
        description="Connections kept for the ledger, which visits never take: "
        "one writes, one reads, one is for jobs of fleet scope.",
    )

    keep: Duration = Field(
        timedelta(days=90),
        description="How long history is kept; what is older is removed after a run. "
        "Statistics and metrics stay as they are.",
    )
    spool: FolderPath = Field(
        Path("var/spool"),
        description="Folder for outcomes that the ledger cannot take, until the next command.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_short(cls, data: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        if isinstance(data, str):
            return {"url": data}
        if isinstance(data, dict) and not {"url", "server", "database"} & data.keys():
            return {**data, "url": DEFAULT_LEDGER}
        return data


class ShrinkSettings(Section):
    """How many tenants a source may lose before a run says so and ends with 4."""

    percent: float = Field(20, ge=0, le=100, description="More than this share must be missing.")
    tenants: FromOne = Field(3, description="And at least this many tenants.")


class QuarantineSettings(Section):
    """When a job that fails on one tenant, and not on others, is left out there."""

    after: FromZero = Field(
        5, description="Runs in a row in which it failed there and succeeded elsewhere; 0: never."
    )
    probe: Duration = Field(
        timedelta(days=1), description="How often it is tried all the same; a success ends it."
    )


class RunnerSettings(Section):
    """How many visits at once, how long, and when a run counts as dead."""

    concurrency: FromOne | None = Field(
        None, description="Visits at the same time. Default: chosen from the servers' limits."
    )
    processes: Processes = Field(
        1, description="Processes over which the visits are spread: about one for each core."
    )
    one_cpu: bool = Field(
        True,
        description="Keep the threads on one CPU, and on one that is free.",
    )
    isolation: Literal["thread", "process"] = Field(
        "thread", description="Where jobs run that do not say it themselves."
    )
    grace: Duration = Field(
        timedelta(seconds=20), description="How long running work may go on after SIGTERM."
    )
    deadline: Duration | None = Field(
        None, description="A run drains by itself after this long, and leaves the rest to the next."
    )
    heartbeat: Duration = Field(
        timedelta(seconds=5), description="How often a run says that it lives."
    )
    lease: Duration = Field(
        timedelta(seconds=20),
        description="After this long without a heartbeat a run's claims are free. "
        "At least twice the heartbeat.",
    )
    shrink: ShrinkSettings = Field(
        ShrinkSettings(), description="When a source has lost too many tenants."
    )
    quarantine: QuarantineSettings = Field(
        QuarantineSettings(), description="When a job is left out on a tenant where it only fails."
    )


class JobSettings(Section):
    """What overrides a job's declaration. What is not here is as the code says."""

    enabled: bool | None = Field(None, description="Whether the job runs.")
    schedule: Text | None = Field(None, description="A cron expression of five fields.")
    every: Duration | None = Field(None, description="Instead of a schedule: run every so often.")
    timezone: JobZone | None = Field(
        None, description="The zone of the schedule; `tenant` for each tenant's own."
    )
    catch_up: Duration | None = Field(
        None, description="How late a slot may be and is still done by `cronrunner due`."
    )
    timeout: Duration | None = Field(None, description="Limit of one attempt.")
    overlap: Literal["skip", "wait", "allow"] | None = Field(
        None, description="What is done while an earlier slot is at work on the tenant."
    )
    retries: FromZero | None = Field(None, description="How often a transient failure is repeated.")
    isolation: Literal["thread", "process"] | None = Field(
        None,
        description="process: in a process that can be killed, and may crash; "
        "thread: in the run's own.",
    )
    options: Options = Field({}, description="Values of the options that the job declares.")


class TenantSettings(Section):
    """What is particular about a tenant, or about all that a glob matches."""

    enabled: bool | None = Field(None, description="Whether it is visited at all.")
    timezone: Zone | None = Field(None, description="Its time zone.")
    labels: Labels = Field({}, description="Labels that jobs and commands select by.")
    debug_delay: Duration | None = Field(
        None, description="Wait this long before each of its jobs: to try out slow tenants."
    )
    jobs: dict[str, JobSettings] = Field(
        {}, description="Overrides for single jobs, by name or glob, on this tenant."
    )


class MetricsSettings(Section):
    """Where metrics go besides `cronrunner serve`."""

    pushgateway: WebUrl | None = Field(
        None, description="URL of a Pushgateway that gets the metrics at the end of a run."
    )
    pushgateway_job: Text = Field("cronrunner", description="The group they are pushed to.")
    textfile: TextfilePath | None = Field(
        None, description="File for the node exporter, written at the end of a run; ends in .prom."
    )
    port: Port | None = Field(
        None, description="Port of /metrics while a run lasts; 0 takes a free one."
    )
    host: Text = Field("127.0.0.1", description="Address on which that port listens.")
    series_limit: FromOne = Field(
        50_000, description="A family with more series than this is left out."
    )
    timeout: Duration = Field(
        timedelta(seconds=10), description="Limit for pushing at the end of a run."
    )


class LogSettings(Section):
    """How the log looks, which goes to stderr."""

    format: Literal["auto", "json", "console"] = Field(
        "auto", description="json: ECS field names; console: for people; auto: by the terminal."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are written."
    )


class TenantsFile(Section):
    """The configuration of cronrunner: tenants.yaml."""

    servers: dict[str, ServerSettings] = Field(
        description="The database servers by name: letters, digits, _, - and dots."
    )
    ledger: LedgerSettings = Field(
        LedgerSettings(url=Reference(DEFAULT_LEDGER)),
        description=f"Where outcomes are recorded: a URL or a mapping. Default: {DEFAULT_LEDGER}.",
    )
    runner: RunnerSettings = Field(RunnerSettings(), description="How a run works.")
    tenants: dict[str, TenantSettings] = Field(
        {}, description="Overrides by tenant name or glob; a name beats globs, later globs earlier."
    )
    jobs: dict[str, JobSettings] = Field({}, description="Overrides by job name or glob.")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Where metrics go.")
    log: LogSettings = Field(LogSettings(), description="How the log looks.")
    job_folder: FolderPath = Field(Path("jobs"), description="The folder of job files.")
