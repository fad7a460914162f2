"""The Grafana dashboards as code; nothing of this is in the wheel.

`python -m tests.dashboards` writes ops/grafana/dashboards; `python -m tests.dashboards.pictures` draws docs/pictures.
"""
