"""Which of a machine's apt sources is Debian's own archive."""

from __future__ import annotations

import pytest

from tests.lab.debian_source import mirror

_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PARAGRAPHS = f"""\
# written by the installer
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: {_KEY}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {_KEY}
"""
_EMBEDDED_KEY = """\
Types: deb
URIs: http://other.example/apt
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 bm90IGEga2V5
 -----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("debian.sources", _PARAGRAPHS, "http://mirror.example/debian"),
        ("debian.sources", _PARAGRAPHS.replace("Components: main\n", "Components: main contrib\nEnabled: no\n"), None),
        ("other.sources", _EMBEDDED_KEY, None),
        ("sources.list", "deb http://mirror.example/debian trixie main", "http://mirror.example/debian"),
        (
            "sources.list",
            f"deb [arch=amd64 signed-by={_KEY}] http://m.example/d stable main contrib",
            "http://m.example/d",
        ),
        ("sources.list", "deb http://security.example/debian-security trixie-security main", None),
        ("sources.list", "# deb http://mirror.example/debian trixie main", None),
        ("sources.list", "deb cdrom:[Debian_13]/ trixie main", None),
        ("other.list", "deb [signed-by=/etc/apt/keyrings/other.asc] http://other.example bookworm main", None),
        ("other.list", "deb http://other.example cloud-bookworm main", None),
        ("other.list", "deb http://other.example bookworm stable", None),
    ],
)
def test_only_debians_archive_is_taken(name: str, text: str, found: str | None) -> None:
    assert mirror([(name, text)]) == found


def test_the_entry_that_names_debians_key_wins_over_one_that_names_none() -> None:
    unsigned = ("a.list", "deb http://copy.example/debian bookworm main")
    assert mirror([unsigned, ("debian.sources", _PARAGRAPHS)]) == "http://mirror.example/debian"
    assert mirror([unsigned]) == "http://copy.example/debian"
