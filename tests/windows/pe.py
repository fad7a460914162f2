"""Just enough of a PE32+ file to check what Windows' loader will do with it (Microsoft: "PE Format")."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

HIGH_ENTROPY_VA, DYNAMIC_BASE, NX_COMPAT = 0x20, 0x40, 0x100
RELOCATIONS_STRIPPED, EXECUTABLE, LARGE_ADDRESS_AWARE, DLL = 0x1, 0x2, 0x20, 0x2000
WRITE, EXECUTE = 0x80000000, 0x20000000


@dataclass
class Image:
    """What the headers and directories say."""

    machine: int
    timestamp: int
    characteristics: int
    dll_characteristics: int
    sections: dict[str, int] = field(default_factory=dict)
    """Name and characteristics."""
    imports: dict[str, list[str]] = field(default_factory=dict)
    exports: list[str] = field(default_factory=list)
    exception_entries: int = 0
    relocation_bytes: int = 0


def read_image(path: Path) -> Image:
    """The image of a 64-bit DLL."""
    raw = path.read_bytes()
    start = struct.unpack_from("<I", raw, 0x3C)[0]
    assert raw[start : start + 4] == b"PE\0\0"
    machine, count, timestamp, _, _, optional_bytes, characteristics = struct.unpack_from("<HHIIIHH", raw, start + 4)
    optional = start + 24
    assert struct.unpack_from("<H", raw, optional)[0] == 0x20B
    image = Image(machine, timestamp, characteristics, struct.unpack_from("<H", raw, optional + 70)[0])
    directories = [struct.unpack_from("<II", raw, optional + 112 + 8 * i) for i in range(16)]
    spans: list[tuple[int, int, int]] = []
    for i in range(count):
        at = optional + optional_bytes + 40 * i
        name = raw[at : at + 8].rstrip(b"\0").decode()
        _, address, size, offset = struct.unpack_from("<IIII", raw, at + 8)
        image.sections[name] = struct.unpack_from("<I", raw, at + 36)[0]
        spans.append((address, size, offset))

    def offset_of(address: int) -> int:
        return next(offset + address - start for start, size, offset in spans if start <= address < start + size)

    def text(address: int) -> str:
        at = offset_of(address)
        return raw[at : raw.index(b"\0", at)].decode()

    at = offset_of(directories[1][0])
    while any(entry := struct.unpack_from("<IIIII", raw, at)):
        thunk = offset_of(entry[0])
        names = image.imports.setdefault(text(entry[3]).lower(), [])
        while value := struct.unpack_from("<Q", raw, thunk)[0]:
            names.append(text(value + 2))
            thunk += 8
        at += 20
    at = offset_of(directories[0][0])
    names_count, names_at = struct.unpack_from("<I", raw, at + 24)[0], struct.unpack_from("<I", raw, at + 32)[0]
    for i in range(names_count):
        image.exports.append(text(struct.unpack_from("<I", raw, offset_of(names_at) + 4 * i)[0]))
    image.exception_entries = directories[3][1] // 12
    image.relocation_bytes = directories[5][1]
    return image
