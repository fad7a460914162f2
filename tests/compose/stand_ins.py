"""Images under the names and tags of the public ones, made of Debian's packages: no image registry is asked.

One Debian 13 with everything in it takes a minute to make, so that it is kept for a week in a cache of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.compose.engine import Engine
from tests.lab.debian_source import machine_mirror
from tests.lab.process import run_tool

CACHE = Path("/var/cache/passrelay-compose")
_SUITE = "trixie"
_PACKAGES = ("ca-certificates", "python3", "python3-venv", "python3-pip", "rabbitmq-server", "prometheus")
_FRESH_SECONDS = 7 * 24 * 3600
_LEFT_OUT = ("./proc/*", "./sys/*", "./dev/*", "./var/cache/apt/*.bin", "./var/cache/apt/archives/*.deb")
_BASE = "debian"
# What the public images bring and Debian's packages do not: account numbers, folders, entry points.
_LIKE = {
    "python": """
        RUN ln -s /usr/bin/python3 /usr/local/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
        CMD ["python"]
    """,
    "rabbitmq": """
        RUN groupmod -g 999 rabbitmq && usermod -u 999 rabbitmq && chown -R 999:999 /var/lib/rabbitmq \
            && rm -rf /var/lib/rabbitmq/.erlang.cookie /etc/rabbitmq && mkdir -p /etc/rabbitmq/conf.d
        ENV PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/rabbitmq
        CMD ["rabbitmq-server"]
    """,
    "prom/prometheus": """
        RUN install -d -o 65534 -g 65534 /prometheus
        USER 65534
        WORKDIR /prometheus
        ENTRYPOINT ["prometheus"]
    """,
}


def public_images(*files: Path) -> set[str]:
    """The images with a tag that Dockerfiles and compose files name, except those that they build (`:local`)."""
    names: set[str] = set()
    for file in files:
        names |= set(re.findall(r"^\s*(?:FROM|image:) +([a-z0-9/._-]+:[\w.-]+)", file.read_text(), re.MULTILINE))
    return {name for name in names if not name.endswith(":local")}


def make(engine: Engine, images: set[str]) -> None:
    """Give the engine these images; KeyError for one that has no stand-in."""
    (base,) = [image for image in images if image.partition(":")[0] == _BASE]
    run_tool(["sh", "-c", 'docker import - "$1" <"$2"', "sh", base, _root_file_system()], env=engine.environment)
    for image in sorted(images - {base}):
        recipe = f"FROM {base}\n{_LIKE[image.partition(':')[0]]}"
        # The older builder, which needs no plug-in.
        arguments = ["build", "--quiet", "--network", "none", "--tag", image, "-"]
        command = ["/usr/bin/docker", *arguments]
        run_tool(command, env={**engine.environment, "DOCKER_BUILDKIT": "0"}, stdin=recipe.encode())


def _root_file_system() -> Path:
    """A tar file of Debian with all packages, made under a lock."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    wanted = hashlib.sha256(" ".join((_SUITE, *_PACKAGES, *_LEFT_OUT)).encode()).hexdigest()[:16]
    file = CACHE / f"{_SUITE}-{wanted}.tar"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists() or time.time() - file.stat().st_mtime > _FRESH_SECONDS:
            _bootstrap(file)
    return file


def _bootstrap(file: Path) -> None:
    with TemporaryDirectory(prefix="passrelay-base-", dir=CACHE) as folder:
        root, made = Path(folder) / "root", Path(folder) / "made.tar"
        include = f"--include={','.join(_PACKAGES)}"
        mirror = [address] if (address := machine_mirror()) else []
        # In a mount namespace, so that not even a killed run leaves the new system's /proc mounted.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", include, _SUITE, str(root), *mirror]
        run_tool(command, timeout_seconds=900)
        excluded = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        run_tool(["tar", "--create", f"--file={made}", f"--directory={root}", *excluded, "."], timeout_seconds=300)
        made.rename(file)
