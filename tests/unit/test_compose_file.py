"""What docker-compose.yml and the image promise in docs/compose.md, docs/dashboards.md and docs/security.md."""

from __future__ import annotations

from pathlib import Path

from tests.dashboards.board import DOCUMENTS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def test_the_runbooks_lie_where_the_dashboards_links_point() -> None:
    assert f"- ./docs:/usr/share/grafana{DOCUMENTS}:ro" in COMPOSE


def test_a_number_of_consumers_lasts() -> None:
    assert "scale: ${PASSRELAY_CONSUMERS:-1}" in COMPOSE
    assert "`PASSRELAY_CONSUMERS`" in (ROOT / "docs/compose.md").read_text()


def test_memory_is_treated_in_the_image_as_under_systemd() -> None:
    image = (ROOT / "Dockerfile").read_text()
    for unit in ("passrelay-consumer.service", "passrelay-producer.service"):
        lines = (ROOT / "ops/systemd" / unit).read_text().splitlines()
        wanted = [line for line in lines if line.startswith(("Environment=PYTHONMALLOC", "Environment=GLIBC"))]
        assert len(wanted) == 2
        for line in wanted:
            assert line.removeprefix("Environment=") in image
