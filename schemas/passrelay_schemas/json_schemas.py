"""JSON Schemas (2020-12) of what travels, for whoever speaks to passrelay from another language.

`python -m passrelay_schemas.json_schemas schemas/json` writes them; they are committed, and a test compares. Limits on
whole documents (limits.py) and rules between fields (event.py) stand outside what a schema can say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from passrelay_schemas.envelope import ProtectedHeader, SignedHeader, _Outer
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.news import News
from passrelay_schemas.news import _Outer as _SignedNews
from passrelay_schemas.record import Record

_MODELS: dict[str, tuple[type[BaseModel], str, str]] = {
    "password-changed": (PasswordChanged, "PasswordChanged", "The event inside `sealed`, before it is padded."),
    "envelope": (_Outer, "Envelope", "What the broker sees; every part is base64url without padding."),
    "protected-header": (ProtectedHeader, "ProtectedHeader", "`protected` of the envelope, decoded: HPKE's info."),
    "signed-header": (SignedHeader, "SignedHeader", "`signed` of the envelope, decoded."),
    "key": (KeyDocument, "KeyDocument", "The public half of a key: <key_id>.pub.json."),
    "record": (Record, "Record", "One outcome in the journal or dead stream, or an operator's act."),
    "signed-news": (_SignedNews, "SignedNews", "What a producer sends once a minute; base64url without padding."),
    "news": (News, "News", "`news` of signed-news, decoded."),
}


def documents() -> dict[str, str]:
    """File name to content of every schema."""
    result = {}
    for name, (model, title, description) in _MODELS.items():
        schema = model.model_json_schema(by_alias=True, mode="validation")
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "title": title,
            "description": description,
        }
        result[f"{name}.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return result


def main(directory: Path) -> None:
    """Write every schema into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in documents().items():
        (directory / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
