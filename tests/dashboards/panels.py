"""Panels: one function for each kind that the dashboards use, with what all of them have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef("prometheus", "${datasource}")
PER_MINUTE = "suffix:/min"
EVENTS = "short"
SECONDS = "s"
UNKNOWN = "not known"
"""Stands in purple where the services or the watcher that would know are not seen."""

Steps = Sequence[tuple[str, float | None]]
"""Colours, each from a value on; the first from None."""
Words = dict[str, tuple[str, str]]
"""A value, and the word and colour that stand for it."""

GOOD: Steps = [("green", None)]
NEUTRAL: Steps = [("text", None)]
NONE_IS_GOOD: Steps = [("green", None), ("red", 1)]
NONE_IS_BETTER: Steps = [("green", None), ("orange", 1)]
UP: Words = {"0": ("down", "red"), "1": ("up", "green")}


@dataclass(frozen=True)
class Query:
    """PromQL and how its series are called; `{{label}}` is replaced."""

    promql: str
    legend: str = ""


@dataclass(frozen=True)
class About:
    """What every panel says of itself."""

    title: str
    meaning: str
    queries: Sequence[Query]
    unit: str = EVENTS
    steps: Steps = dataclasses.field(default_factory=lambda: list(GOOD))
    words: Words = dataclasses.field(default_factory=dict)
    decimals: int | None = None
    runbooks: Sequence[str] = ()
    """Names of pages in docs/runbooks."""
    pages: Sequence[str] = ()
    """Names of other pages in docs."""
    leads_to: str = ""
    """The uid of the dashboard to look at next."""
    none: str = ""
    """What stands there when there are no series."""
    width: int = 24
    height: int = 8


@dataclass(frozen=True)
class Column:
    """A label, or `Value` of the one query, or `Value #A` of several; under another head."""

    field: str
    head: str
    unit: str = ""
    steps: Steps = ()
    words: Words = dataclasses.field(default_factory=dict)
    names_runbook: bool = False


class _Panel(Protocol):
    """What the builders of the SDK have in common without saying so."""

    def build(self) -> models.Panel: ...
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: models.DataSourceRef) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def decimals(self, decimals: float) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def mappings(self, mappings: list[models.ValueMapping]) -> Self: ...
    def links(self, links: list[Builder[models.DashboardLink]]) -> Self: ...
    def data_links(self, links: list[Builder[models.DashboardLink]]) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...


def number(about: About) -> models.Panel:
    """One number as it is now, in the colour of its threshold.

    It asks for this moment only: the last value of a range would stand there for hours after its source went silent.
    """
    about = dataclasses.replace(about, none=about.none or UNKNOWN)
    panel = stat.Panel()
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_mode(common.BigValueColorMode.BACKGROUND).color_scheme(_by_threshold())
    panel.graph_mode(common.BigValueGraphMode.NONE)
    # Where no series are, Grafana would take the colour of the lowest threshold, which is green for many.
    missing = models.ValueMappingResult(text=about.none, color="purple" if about.none == UNKNOWN else "text")
    nothing = models.SpecialValueMap(models.DashboardSpecialValueMapOptions(models.SpecialValueMatch.NULL, missing))
    return _built(panel, about, instant=True, nothing=nothing)


def lines(about: About, *, stacked: bool = False, bars: bool = False) -> models.Panel:
    """Series over time, with a dashed line at each threshold; bars suit what happens now and then."""
    panel = timeseries.Panel()
    panel.draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
    panel.line_width(1).fill_opacity(60 if bars else 40 if stacked else 10).axis_soft_min(0)
    panel.show_points(common.VisibilityMode.NEVER)
    if stacked or bars:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    dashed = common.GraphThresholdsStyleMode.DASHED if len(about.steps) > 1 else common.GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(dashed))
    panel.color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
    legend = common_builders.VizLegendOptions().show_legend(show_legend=True).placement(common.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(common.LegendDisplayMode.LIST).calcs(["lastNotNull"]))
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    panel.tooltip(tooltip.sort(common.SortOrder.DESCENDING))
    return _built(panel, about)


def states(about: About) -> models.Panel:
    """One bar for each series, in the colour of its state."""
    panel = statetimeline.Panel()
    panel.merge_values(merge_values=True).show_value(common.VisibilityMode.AUTO).row_height(0.8).color_scheme(
        _by_threshold()
    )
    panel.legend(
        common_builders.VizLegendOptions()
        .show_legend(show_legend=False)
        .display_mode(common.LegendDisplayMode.LIST)
        .calcs([])
    )
    return _built(panel, about)


def rows(about: About, columns: Sequence[Column], *, sort_by: str = "", rising: bool = False) -> models.Panel:
    """A table of the newest values with these columns, one row for each set of labels.

    `sort_by` is a head; the greatest value stands on top unless `rising`.
    """
    panel = table.Panel()
    if len(about.queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {column.field: position for position, column in enumerate(columns)},
        "renameByName": {column.field: column.head for column in columns},
    }
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    if sort_by:
        panel.sort_by([common_builders.TableSortByFieldState().display_name(sort_by).desc(not rising)])
    for column in columns:
        if properties := list(_properties(column)):
            panel.override_by_name(column.head, properties)
    return _built(panel, about, instant=True)


def _properties(column: Column) -> Iterator[models.DynamicConfigValue]:
    if column.names_runbook:
        page = (
            builders.DashboardLink("Runbook")
            .url("${docs:raw}/runbooks/${__value.raw}.md")
            .target_blank(target_blank=True)
        )
        yield models.DynamicConfigValue("links", [page.build()])
    if column.unit:
        yield models.DynamicConfigValue("unit", column.unit)
    if column.words:
        yield models.DynamicConfigValue("mappings", [_mapping(column.words)])
    if column.words or column.steps:
        yield models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
        yield models.DynamicConfigValue("thresholds", _thresholds(column.steps or NEUTRAL).build())


def _built(
    panel: _Panel, about: About, *, instant: bool = False, nothing: models.SpecialValueMap | None = None
) -> models.Panel:
    panel.title(about.title).description(about.meaning).datasource(SOURCE).span(about.width).height(about.height)
    panel.unit(about.unit).thresholds(_thresholds(about.steps)).no_value(about.none or "no data")
    if about.decimals is not None:
        panel.decimals(about.decimals)
    mappings: list[models.ValueMapping] = [_mapping(about.words)] if about.words else []
    if nothing:
        mappings.append(nothing)
    if mappings:
        panel.mappings(mappings)
    for position, query in enumerate(about.queries):
        target = _target(query, chr(ord("A") + position), instant=instant)
        panel.with_target(
            target.format(PromQueryFormat.TABLE if isinstance(panel, table.Panel) else PromQueryFormat.TIME_SERIES)
        )
    pages = [
        *(_link(f"Runbook: {name}", f"${{docs:raw}}/runbooks/{name}.md", new_tab=True) for name in about.runbooks),
        *(_link(f"Read: {name}", f"${{docs:raw}}/{name}.md", new_tab=True) for name in about.pages),
    ]
    if about.leads_to:
        further = _link("Look closer", f"/d/{about.leads_to}?${{__url_time_range}}&${{datasource:queryparam}}")
        panel.links([further, *pages]).data_links([further])
    elif pages:
        panel.links(list(pages))
    return panel.build()


def _target(query: Query, name: str, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.promql).ref_id(name).datasource(SOURCE)
    if instant:
        return target.instant()
    return target.range().legend_format(query.legend)


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for color, value in steps])
    )


def _by_threshold() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _mapping(words: Words) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
    )


def _link(title: str, url: str, *, new_tab: bool = False) -> builders.DashboardLink:
    return builders.DashboardLink(title).url(url).target_blank(new_tab)
