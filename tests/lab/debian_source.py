"""The source of a Debian package, fetched by apt itself: it checks the archive's signature and every file's hash.

The machine's own sources stay as they are; only the address of its Debian mirror is taken from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.lab.process import LabError, run_tool

_APT = Path("/etc/apt")
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_RELEASES = frozenset({"bookworm", "trixie", "oldstable", "stable", "testing"})
_ONE_LINE = re.compile(
    r"deb(?:-src)?\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)"
)


class _Entry(NamedTuple):
    """One line or paragraph of apt's sources (sources.list(5))."""

    uris: list[str]
    suites: list[str]
    components: list[str]
    signed_by: str


def mirror(sources: Iterable[tuple[str, str]]) -> str | None:
    """The address of Debian's archive in apt's sources (name, text), or None. An entry that names its keyring wins."""
    entries = [entry for name, text in sources for entry in _entries(name, text)]
    # An archive with a key of its own is somebody else's, even if its suites are named like Debian's.
    ours = [entry for entry in entries if _is_debian(entry) and (not entry.signed_by or _has_debians_key(entry))]
    ours.sort(key=_has_debians_key, reverse=True)
    return ours[0].uris[0] if ours else None


def machine_mirror() -> str | None:
    """The address of Debian's archive that this machine itself uses, or None."""
    return mirror(_machine_sources())


def _entries(name: str, text: str) -> Iterator[_Entry]:
    if name.endswith(".sources"):
        yield from (entry for paragraph in re.split(r"\n\s*\n", text) if (entry := _paragraph(paragraph)))
        return
    for line in text.splitlines():
        found = _ONE_LINE.match(line.partition("#")[0].strip())
        if found:
            options = dict(option.partition("=")[::2] for option in (found["options"] or "").split())
            yield _Entry([found["uri"]], [found["suite"]], found["components"].split(), options.get("signed-by", ""))


def _paragraph(text: str) -> _Entry | None:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    fields: dict[str, str] = {}
    last = ""
    for line in lines:
        if line[0].isspace():
            fields[last] = f"{fields.get(last, '')} {line.strip()}"
            continue
        last = line.partition(":")[0].strip().lower()
        fields[last] = line.partition(":")[2].strip()
    if not fields.get("uris") or fields.get("enabled", "yes").lower() in {"no", "false", "0"}:
        return None
    return _Entry(
        fields["uris"].split(),
        fields.get("suites", "").split(),
        fields.get("components", "").split(),
        fields.get("signed-by", ""),
    )


def _is_debian(entry: _Entry) -> bool:
    # The security archive has another address and no sources of its own for most packages.
    releases = {suite.partition("-")[0] for suite in entry.suites if "security" not in suite}
    return bool(releases & _RELEASES) and "main" in entry.components and not entry.uris[0].startswith("cdrom:")


def _has_debians_key(entry: _Entry) -> bool:
    return "debian-archive" in entry.signed_by


def fetch(package: str, suite: str, folder: Path) -> Path:
    """Download the original archive of a source package into `folder`; LabError with apt's own words.

    Only that file, without Debian's patches.
    """
    uri = machine_mirror()
    if uri is None:
        raise LabError(f"apt's sources below {_APT} name no Debian mirror that could have the source of {package}")
    keyring = next((path for path in _KEYRINGS if path.exists()), None)
    if keyring is None:
        raise LabError("Debian's keyring is missing: install debian-archive-keyring")
    with TemporaryDirectory(prefix="apt-", dir=folder) as scratch:
        work = Path(scratch)
        (work / "sources.list").write_text(f"deb-src [signed-by={keyring}] {uri} {suite} main\n")
        _apt(work, "update")
        _apt(work, "source", "--download-only", "--tar-only", package)
        [archive] = work.glob(f"{package}_*.orig.tar.*")
        return archive.replace(folder / archive.name)


def _machine_sources() -> Iterator[tuple[str, str]]:
    paths = [*sorted((_APT / "sources.list.d").glob("*")), _APT / "sources.list"]
    for path in paths:
        if path.suffix in {".list", ".sources"} and path.is_file():
            yield path.name, path.read_text(errors="replace")


def _apt(work: Path, *arguments: str) -> None:
    """apt-get with nothing but the sources and folders in `work`; the machine's proxy settings hold."""
    (work / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (work / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
        "Acquire::AllowInsecureRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Update::Error-Mode": "any",
        # The folder is ours alone, so apt's own user could not write to it.
        "APT::Sandbox::User": "",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    command = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), *arguments]
    try:
        run_tool(command, cwd=work, env={**os.environ, "LC_ALL": "C"}, timeout_seconds=600)
    except LabError as error:
        words = [line.removeprefix("E: ") for line in str(error).splitlines() if line.startswith("E: ")]
        raise LabError(f"apt-get {arguments[0]}: {words[0] if words else error}") from None
