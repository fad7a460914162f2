"""A real Prometheus of the lab: scrapes passrelay's pages every second, with the shipped rules in quicker time."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.network import Reservations
from tests.lab.process import LabError, Process, wait_for

RULES = Path(__file__).resolve().parents[2] / "ops/prometheus/passrelay.rules.yml"
FACTOR = 240
"""A quarter of an hour becomes 3.75 seconds, which several scrapes still see."""
_MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def quicker(rules: str, factor: int = FACTOR) -> str:
    """The rules with every wait divided by one factor: `for`, range, offset, and how old an event or a write may be.

    What is no wait stays as it is shipped, because a test can cause it: a clock that is off by a minute, a certificate
    with thirteen days left, a disk with 200 MB of room.
    """

    def divided(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) * _MILLISECONDS[match[3]] // factor}ms"

    windows = re.sub(r"(for: |\[|offset )(\d+)([smhd])\b", divided, rules)
    seconds = r"(_oldest_seconds > |> time\(\) - )(\d+)"
    return re.sub(seconds, lambda match: f"{match[1]}{int(match[2]) / factor:g}", windows)


class Prometheus:
    """One server on loopback; `jobs` maps a job's name to ADDRESS:PORT of its page, or to several."""

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        jobs: Mapping[str, str | Sequence[str]],
        *,
        factor: int = FACTOR,
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "rules.yml").write_text(quicker(RULES.read_text(), factor))
        scrapes = [
            {"job_name": name, "static_configs": [{"targets": [pages] if isinstance(pages, str) else list(pages)}]}
            for name, pages in jobs.items()
        ]
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
            "rule_files": ["rules.yml"],
            "scrape_configs": scrapes,
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
        self._pages = len(jobs)
        self.address = f"127.0.0.1:{reservations.port()}"
        self._process = Process(
            "prometheus",
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            log=folder / "prometheus.log",
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process.start()
        self._process.wait_until(self._ready, what="prometheus answers")

    def stop(self) -> None:
        """TERM."""
        self._process.stop()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and wait until it has seen every page."""
        self.start()
        try:
            wait_for(self._sees_all, what="every page is scraped", interval_seconds=0.2, alive=self._process)
            yield
        finally:
            self.stop()

    @contextmanager
    def quiet(self, *always: str) -> Iterator[None]:
        """Around what makes alerts fire: before it and at its good end exactly `always` do, so repair cleared it."""
        self.wait_until_firing(*always)
        yield
        self.wait_until_firing(*always)

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]
        assert isinstance(found, list)
        return found

    def wait_until_firing(self, *alerts: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Until exactly these alerts fire; `meanwhile` is called before each look, twice a second."""
        seen: set[str] = set()

        def exactly() -> bool:
            nonlocal seen
            meanwhile()
            seen = self.firing()
            return seen == set(alerts)

        what = f"exactly {', '.join(alerts) or 'no alert'} fires"
        try:
            wait_for(exactly, what=what, timeout_seconds=120, interval_seconds=0.5, alive=self._process)
        except LabError as error:
            raise LabError(f"{error}\nfiring at last: {', '.join(sorted(seen)) or 'nothing'}") from None

    def _sees_all(self) -> bool:
        return len(self.query("up == 1")) == self._pages

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=60) as answer:
            data = json.load(answer)["data"]
        assert isinstance(data, dict)
        return data
