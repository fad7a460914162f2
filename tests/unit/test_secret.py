"""No way of printing, copying or serialising a Secret shows its value."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from rich.console import Console

from passrelay_schemas.logs import Action, Log, configure
from passrelay_schemas.secret import Secret
from tests.lab.folder import CANARY
from tests.unit.builders import PASSWORD, event


@dataclasses.dataclass(frozen=True)
class Holder:
    secret: Secret


class Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    secret: Secret
    number: int


SECRET = Secret(PASSWORD)


def _rich(value: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(value, Holder(SECRET))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


PRINTERS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "format": format,
    "format with a spec": lambda secret: format(secret, ">50s"),
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret!a} {secret:^40}",
    "str.format": "{0} {0!r} {0:10}".format,
    "%s": lambda secret: "%s %r %a" % (secret, secret, secret),  # noqa: UP031
    "containers": lambda secret: str([secret, {"password": secret}, (secret,)]),
    "dataclass": lambda secret: repr(Holder(secret)),
    "model": lambda secret: repr(Model(secret=secret, number=1)) + str(Model(secret=secret, number=1)),
    "event": lambda secret: repr(event(secret.reveal())) + str(event(secret.reveal())),
    "pprint": lambda secret: pprint.pformat({"x": [secret]}),
    "rich": _rich,
    "json with default": lambda secret: json.dumps({"x": secret}, default=str),
    "model_dump": lambda secret: repr(Model(secret=secret, number=1).model_dump()),
    "model_dump round trip": lambda secret: repr(Model(secret=secret, number=1).model_dump(round_trip=True)),
    "model_dump json mode": lambda secret: repr(Model(secret=secret, number=1).model_dump(mode="json")),
    "model_dump_json": lambda secret: Model(secret=secret, number=1).model_dump_json(),
    "event dump": lambda secret: event(secret.reveal()).model_dump_json() + repr(event(secret.reveal()).model_dump()),
    "adapter": lambda secret: repr(TypeAdapter(list[Secret]).dump_json([secret])),
    "dict of a model": lambda secret: repr(dict(Model(secret=secret, number=1))),
    "type error": lambda secret: _message(lambda: secret + "x"),  # type: ignore[operator]
    "attribute error": lambda secret: _message(lambda: secret.value),  # type: ignore[attr-defined]
    "key error": lambda secret: repr(KeyError([secret])),
}


def _message(action: Callable[[], Any]) -> str:
    with pytest.raises((TypeError, AttributeError)) as caught:
        action()
    return "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())


@pytest.mark.parametrize("way", PRINTERS)
def test_no_way_of_printing_shows_the_value(way: str) -> None:
    shown = PRINTERS[way](SECRET)
    assert CANARY not in shown
    assert "geheim" not in shown


@pytest.mark.parametrize(
    "way",
    [
        pickle.dumps,
        lambda secret: pickle.dumps(secret, 0),
        lambda secret: pickle.dumps({"x": [secret]}),
        copy.copy,
        copy.deepcopy,
        lambda secret: copy.deepcopy({"x": secret}),
        lambda secret: dataclasses.asdict(Holder(secret)),
        lambda secret: pickle.dumps(event(secret.reveal())),
        lambda secret: event(secret.reveal()).model_copy(deep=True),
        lambda secret: secret.__getstate__(),
        vars,
        json.dumps,
        hash,
        set,
    ],
)
def test_copying_pickling_and_hashing_are_refused_without_the_value(way: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        way(SECRET)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_only_reveal_gives_the_value() -> None:
    assert SECRET.reveal() == PASSWORD
    with pytest.raises(AttributeError):
        SECRET.anything = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", ["x", None, {"deep": [PASSWORD]}, PASSWORD])
def test_a_validation_error_beside_a_secret_does_not_quote_it(number: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"secret": PASSWORD, "number": number})
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


@pytest.mark.parametrize(
    "value", [[PASSWORD], {"x": PASSWORD}, PASSWORD.encode(), bytearray(PASSWORD.encode()), 5, None]
)
def test_a_secret_of_the_wrong_type_is_refused_without_quoting_it(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"secret": value, "number": 1})
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_a_log_line_with_a_secret_in_any_field_does_not_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        configure("debug")
        log = Log("test")
        log.info(Action.CAPTURED, secret=SECRET, deep={"x": [SECRET]}, holder=Holder(SECRET))
        log.error(Action.INTERNAL_ERROR, change=event())
        lines = capsys.readouterr()
    finally:
        structlog.reset_defaults()
    assert CANARY not in lines.err + lines.out
    assert "Secret(***)" in lines.err


def test_equality_compares_values_of_secrets_only() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("\ud800") == Secret("\ud800")
