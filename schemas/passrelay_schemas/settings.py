"""Settings: one TOML file per role, unknown keys refused by name. Each section's module documents its keys.

Environment variables PASSRELAY_<SECTION>__<KEY> win over the file. `docs/configuration.md` is generated from those.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.domain_settings import Domains
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.order import Order
from passrelay_schemas.process_settings import ConsumerTableSettings, KeysSettings, LogSettings, MetricsSettings
from passrelay_schemas.source_settings import SourceSettings, SpoolSettings


class RoleSettings(BaseSettings):
    """What every role has."""

    model_config = SettingsConfigDict(
        env_prefix="PASSRELAY_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    broker: BrokerSettings
    keys: KeysSettings = KeysSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is read."""
        return env_settings, init_settings


class ProducerSettings(RoleSettings):
    """producer.toml."""

    source: SourceSettings
    filter: FilterSettings = FilterSettings()
    spool: SpoolSettings = SpoolSettings()
    metrics: MetricsSettings = MetricsSettings()
    domain: Domains = ()

    @model_validator(mode="after")
    def _order_of_the_source(self) -> Self:
        for domain in self.domain:
            if self.source.stdin is None and domain.order is Order.TIME:
                source = "samba" if self.source.samba is not None else "hook"
                raise ValueError(
                    f"[[domain]] {domain.name}: [source.{source}] has versions, so its domain is never ordered by "
                    "time: remove order here and on the consumers"
                )
        return self

    @model_validator(mode="after")
    def _filter_of_the_source(self) -> Self:
        if self.source.stdin is not None and self.filter.needs_directory:
            raise ValueError(
                "[filter] takes exclude_patterns only with [source.stdin], which knows no groups and no OUs: remove "
                "include_groups, exclude_groups, include_ous and exclude_ous"
            )
        return self


class ConsumerSettings(RoleSettings):
    """consumer.toml."""

    idm: IdmSettings
    domain: Annotated[Domains, Field(min_length=1)]
    consumer: ConsumerTableSettings = ConsumerTableSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _domains(self) -> Self:
        for domain in self.domain:
            if not domain.producers:
                raise ValueError(f"[[domain]] {domain.name}: producers is empty, so nobody may speak for it: list them")
            if not domain.search_base:
                raise ValueError(f"[[domain]] {domain.name}: search_base is needed: cn=users,cn=accounts,<suffix>")
        return self


class OpsSettings(RoleSettings):
    """ops.toml."""

    idm: IdmSettings | None = None
    domain: Domains = ()
    metrics: MetricsSettings = MetricsSettings()


ROLES: dict[str, type[RoleSettings]] = {
    "producer": ProducerSettings,
    "consumer": ConsumerSettings,
    "ops": OpsSettings,
}
"""Every role and its settings."""
