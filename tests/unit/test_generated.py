"""Generated files are what their sources say now; the examples are complete and accepted."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from passrelay_ops import reference
from passrelay_schemas import json_schemas
from passrelay_schemas.record import Record
from passrelay_schemas.settings import ROLES
from passrelay_schemas.settings_file import load
from tests.unit.builders import Party

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = json_schemas.documents()


def test_the_configuration_page_is_current() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == reference.page(), "run: python -m passrelay_ops.reference docs/configuration.md"


def test_the_committed_json_schemas_are_current() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "schemas/json").iterdir()}
    assert written == SCHEMAS, "run: python -m passrelay_schemas.json_schemas schemas/json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_forbids_unknown_fields(name: str) -> None:
    assert json.loads(SCHEMAS[name])["additionalProperties"] is False


def test_a_real_envelope_has_exactly_the_fields_of_its_schema() -> None:
    schema = json.loads(SCHEMAS["envelope.schema.json"])
    assert set(json.loads(Party().envelope())) == set(schema["properties"]) == set(schema["required"])


def test_the_record_schema_names_fields_as_they_travel() -> None:
    assert "schema" in json.loads(SCHEMAS["record.schema.json"])["properties"]
    assert "schema_" in Record.model_fields


@pytest.mark.parametrize("role", ROLES)
def test_the_example_of_each_role_is_accepted(role: str) -> None:
    assert isinstance(load(ROLES[role], ROOT / f"ops/examples/{role}.toml"), ROLES[role])


@pytest.mark.parametrize("role", ROLES)
def test_the_example_of_each_role_shows_every_section(role: str) -> None:
    shown = set(tomllib.loads((ROOT / f"ops/examples/{role}.toml").read_text()))
    assert shown == set(ROLES[role].model_fields)


@pytest.mark.parametrize("role", ROLES)
def test_the_page_explains_every_key(role: str) -> None:
    page = reference.page()

    def walk(model: type[BaseModel], section: str) -> None:
        for key, field in model.model_fields.items():
            inner: Any = reference._model(field.annotation)
            if inner is not None:
                walk(inner, f"{section}.{key}".strip("."))
            else:
                assert f"| `{key}` |" in page
                assert field.description, f"[{section}] {key} has no docstring"

    walk(ROLES[role], "")


def test_the_page_gives_the_name_in_the_environment() -> None:
    page = reference.page()
    assert "`PASSRELAY_SOURCE__SAMBA__POLL_MS`" in page
    assert "`PASSRELAY_DOMAIN`" in page


def test_the_page_knows_the_limits_of_an_optional_key() -> None:
    assert "| `prefetch` | whole number, at least 1, at most 2,000 | unset |" in reference.page()
