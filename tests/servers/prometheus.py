"""A Prometheus server, and promtool."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Self

from tests.servers.process import HOST, Process, free_port, program


class Prometheus(Process):
    """A Prometheus server which runs the given configuration (its own YAML; JSON will do)."""

    def __init__(self, configuration: str | Mapping[str, Any]) -> None:
        super().__init__("prometheus")
        self.port = free_port()
        if not isinstance(configuration, str):
            configuration = json.dumps(configuration)
        (self.folder / "prometheus.yml").write_text(configuration)
        self.start()

    @classmethod
    def scraping(cls, *targets: str, job: str = "cronrunner", every: str = "1s") -> Self:
        """Start one that scrapes `host:port` targets."""
        return cls(
            {
                "global": {"scrape_interval": every, "scrape_timeout": every},
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                ],
            }
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start on the same port with the same data; a no-op while it runs."""
        if self.running:
            return
        command = [
            program("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]
        self._run(command, self._answers)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an instant query: labels and value of each series."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def await_query(
        self, expression: str, seconds: float = 20.0
    ) -> list[tuple[dict[str, str], float]]:
        """Repeat a query until it has a result; scraping takes an interval or two."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} has no series; targets: {self.targets()}")
            time.sleep(0.1)
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets; `health` is `up`, `down` or `unknown`, `lastError` says why."""
        active: list[dict[str, Any]] = self._get("/api/v1/targets", state="active")["activeTargets"]
        return active

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except urllib.error.HTTPError as refusal:
            refusal.close()
        except OSError:
            pass
        return False

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data


def promtool(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as in subprocess.run
    """Run promtool; the caller looks at `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        [program("promtool"), *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
