"""Write ops/grafana/dashboards."""

from __future__ import annotations

from pathlib import Path

from tests.dashboards import dead_letters, directory, overview, pipeline, producers
from tests.dashboards.board import Board

FOLDER = Path(__file__).resolve().parents[2] / "ops/grafana/dashboards"


def boards() -> list[Board]:
    """Every dashboard, the one to begin with first."""
    return [overview.board(), pipeline.board(), producers.board(), directory.board(), dead_letters.board()]


def files() -> dict[str, str]:
    """What has to be in the folder, by file name."""
    return {f"{board.uid}.json": board.text() for board in boards()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
