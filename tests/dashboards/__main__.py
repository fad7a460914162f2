"""Write ops/grafana/dashboards."""

from __future__ import annotations

from tests.dashboards.generated import FOLDER, files

for name, text in files().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
