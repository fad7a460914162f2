"""Valid input made invalid, knowing its structure: bytes, JSON documents, texts of words, and lists of attributes.

Everything is drawn from one `random.Random`, so that a seed gives the same input again, and hypothesis or libFuzzer can
stand in the generator's place.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    127,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**40,
)
TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "-",
    "0",
    "None",
    "*)(uid=*",
    "a,b+c=\\d",
    "\\",
    '"',
    "\u200b",
    "\u202e",
    "\u0130",
    "\ufeff",
    "\ud800",
    "\U0001f600",
    "e\u0301",
    "x" * 257,
    "x" * 5000,
    "9" * 5000,
    "(" * 300,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "99991231235959Z",
    "00010101000000Z",
    "2026-11-24T22:42:60Z",
    "{SSHA}AAAA",
    "{CLEAR}x",
    "S-1-5-21-4294967296-1-1-500",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "_",
    "krbtgt",
    "host$",
)


class Raw(str):
    """JSON text that stands for itself."""

    __slots__ = ()


RAW = (
    Raw("NaN"),
    Raw("-Infinity"),
    Raw("1e999"),
    Raw("1E400000"),
    Raw("9" * 4301),
    Raw("-" + "9" * 20),
    Raw("0.1"),
    Raw("1.0"),
    Raw("01"),
    Raw("[" * 3000 + "]" * 3000),
    Raw('{"a":' * 2000 + "1" + "}" * 2000),
    Raw("[" * 100000),
    Raw("'x'"),
    Raw(""),
    Raw('"\\ud800"'),
    Raw('"\\u0000"'),
    Raw("\x00"),
)


class Pairs(list[tuple[str, Any]]):
    """A JSON object that may have a name twice."""


# -- bytes ------------------------------------------------------------------------------------------------------------


def mutate_bytes(rng: Random, raw: bytes) -> bytes:
    """One to four changes of bytes."""
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 1, 2, 4, 8, 33, 200)))
        match rng.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
            case 5:
                del changed[at:]
            case 6:
                number = rng.choice(NUMBERS) & (2**64 - 1)
                width = rng.choice((1, 2, 4, 8))
                changed[at : at + width] = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
            case _:
                changed[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")[:400]
    return bytes(changed)


# -- JSON -------------------------------------------------------------------------------------------------------------


def load(raw: bytes) -> Any:
    """A document as a tree of Pairs, lists and values."""
    return json.loads(raw, object_pairs_hook=Pairs)


def dump(tree: Any) -> str:
    """The tree as JSON, or nearly."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{dump(value)}" for name, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(dump(item) for item in tree) + "]"
    return json.dumps(tree)


def mutate_tree(rng: Random, tree: Any) -> Any:
    """A copy of the tree with one node changed."""
    if isinstance(tree, Pairs) and tree and rng.random() < 0.85:
        return _mutate_object(rng, tree)
    if isinstance(tree, list) and not isinstance(tree, Pairs) and tree and rng.random() < 0.7:
        at = rng.randrange(len(tree))
        changed = list(tree)
        match rng.randrange(4):
            case 0:
                del changed[at]
            case 1:
                changed += [changed[at]] * rng.choice((1, 2, 100))
            case _:
                changed[at] = mutate_tree(rng, changed[at])
        return changed
    return _odd_value(rng, tree)


def _mutate_object(rng: Random, tree: Pairs) -> Pairs:
    at = rng.randrange(len(tree))
    name, value = tree[at]
    other = rng.randrange(len(tree))
    changed = Pairs(tree)
    match rng.randrange(10):
        case 0:
            del changed[at]
        case 1:
            changed.insert(rng.randrange(len(changed) + 1), (name, rng.choice((value, mutate_tree(rng, value)))))
        case 2:
            changed[at] = (mutate_text(rng, name), value)
        case 3:
            changed[at], changed[other] = (name, tree[other][1]), (tree[other][0], value)
        case 4:
            changed.append((rng.choice(TEXTS), _odd_value(rng, value)))
        case _:
            changed[at] = (name, mutate_tree(rng, value))
    return changed


def _odd_value(rng: Random, value: Any) -> Any:
    if isinstance(value, str) and rng.random() < 0.6:
        return mutate_text(rng, value)
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2**32, float(value), str(value)))
    match rng.randrange(6):
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice(RAW)
        case 2:
            return rng.choice((None, True, False, [], Pairs(), 0.5, [value], Pairs([("a", value)])))
        case _:
            return rng.choice(TEXTS)


def mutate_json(rng: Random, raw: bytes) -> bytes:
    """A JSON document with one to three nodes changed, and at times torn."""
    tree = load(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = mutate_tree(rng, tree)
    changed = dump(tree).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, changed) if rng.random() < 0.1 else changed


def mutate_nested(*names: str) -> Callable[[Random, bytes], bytes]:
    """For a document with other documents in it, as base64url under these names."""

    def mutate(rng: Random, raw: bytes) -> bytes:
        if rng.random() < 0.4:
            return mutate_json(rng, raw)
        tree = load(raw)
        wanted = rng.choice(names)
        for at, (name, value) in enumerate(tree):
            if name == wanted and isinstance(value, str):
                inner = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
                spoil = mutate_json if inner.startswith(b"{") and rng.random() < 0.75 else mutate_bytes
                changed = spoil(rng, inner)
                tree[at] = (name, base64.urlsafe_b64encode(changed).rstrip(b"=").decode())
        return dump(tree).encode("utf-8", "surrogatepass")

    return mutate


# -- texts ------------------------------------------------------------------------------------------------------------


def mutate_text(rng: Random, text: str) -> str:
    """A text with one of its words or characters changed."""
    at = rng.randrange(len(text) + 1)
    words = re.split(r"(\W)", text)
    word = rng.randrange(len(words))
    match rng.randrange(9):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + rng.choice(TEXTS) + text[at:]
        case 2:
            return text[:at] + text[at + 1 :]
        case 3:
            return text.swapcase() if rng.random() < 0.5 else text + text
        case 4:
            return (
                text[:at]
                + chr(rng.choice((0, 9, 32, 127, 0xA0, 0x660, 0x3000, 0xFF10, rng.randrange(0xD800))))
                + text[at + 1 :]
            )
        case 5:
            words[word] = rng.choice((*TEXTS, *(str(number) for number in NUMBERS)))
        case 6:
            other = rng.randrange(len(words))
            words[word], words[other] = words[other], words[word]
        case 7:
            del words[word]
        case _:
            words.insert(word, words[rng.randrange(len(words))])
    return "".join(words)


def mutate_words(rng: Random, raw: bytes) -> bytes:
    """UTF-8 text with one to three changes, and at times torn."""
    text = raw.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = mutate_text(rng, text)
    changed = text.encode("utf-8", "surrogatepass") if _encodable(text) else text.encode("utf-8", "replace")
    return mutate_bytes(rng, changed) if rng.random() < 0.15 else changed


def _encodable(text: str) -> bool:
    return not any(0xDC80 <= ord(sign) <= 0xDCFF for sign in text)


def mutate_lines(rng: Random, raw: bytes) -> bytes:
    """Lines swapped, doubled, dropped or changed themselves."""
    lines = raw.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = mutate_words(rng, lines[at])
    return b"\n".join(lines)


def mutate_letter(rng: Random, raw: bytes) -> bytes:
    """A stream's message (samples.framed): its properties or its body."""
    size = int.from_bytes(raw[:2], "big")
    properties, body = raw[2 : 2 + size], raw[2 + size :]
    if rng.random() < 0.3:
        properties = mutate_bytes(rng, properties)
    else:
        body = mutate_json(rng, body)
    return len(properties).to_bytes(2, "big") + properties + body
