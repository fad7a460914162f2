"""A real Prometheus of the lab: scrapes passrelay's pages every second, with the shipped rules in quicker time."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.network import Reservations
from tests.lab.process import Process, wait_for

RULES = Path(__file__).resolve().parents[2] / "ops/prometheus/passrelay.rules.yml"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def quicker(rules: str, factor: int) -> str:
    """The rules with every time divided by one factor: `for`, range, offset, and how old an event in a spool may be.

    At least a second.
    """

    def divided(match: re.Match[str]) -> str:
        seconds = max(1, int(match[2]) * _SECONDS[match[3]] // factor)
        return f"{match[1]}{seconds}s"

    windows = re.sub(r"(for: |\[|offset )(\d+)([smh])\b", divided, rules)
    return re.sub(r"(_oldest_seconds > )(\d+)", lambda match: f"{match[1]}{int(match[2]) // factor}", windows)


class Prometheus:
    """One server on loopback; `jobs` maps a job's name to its pages' ADDRESS:PORT."""

    def __init__(self, folder: Path, reservations: Reservations, jobs: Mapping[str, str], *, factor: int) -> None:
        folder.mkdir(parents=True)
        (folder / "rules.yml").write_text(quicker(RULES.read_text(), factor))
        scrapes = [{"job_name": name, "static_configs": [{"targets": [address]}]} for name, address in jobs.items()]
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": scrapes,
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
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

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]
        assert isinstance(found, list)
        return found

    def wait_until_firing(self, *alerts: str) -> None:
        """Until exactly these alerts fire."""
        wait_for(
            lambda: self.firing() == set(alerts),
            what=f"exactly {', '.join(alerts) or 'no alert'} fires",
            timeout_seconds=120,
            interval_seconds=0.5,
            alive=self._process,
        )

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            data = json.load(answer)["data"]
        assert isinstance(data, dict)
        return data
