"""The whole relay from docker-compose.yml: a password of the Samba container logs in at the directory container."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.engine import Engine
from tests.compose.keeper import Keeper
from tests.compose.project import ROOT, Project, health, state
from tests.lab.folder import CANARY, canary_password, find_canary
from tests.lab.process import LabError, wait_for

SERVICES = ("broker", "consumer", "watch", "producer", "samba", "directory", "prometheus")
ONCE = ("files", "demo-files", "demo-setup", "demo-producer")
ROOTS = {"producer", "samba", "demo-files", "demo-producer"}
"""docs/compose.md says why these run as root."""
ADDED = {"samba": ["CHOWN"], "demo-files": ["CHOWN", "DAC_OVERRIDE"]}
REPLICAS = 3
_HEAL_SECONDS = 180


def service(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def test_everything_comes_up_and_a_password_set_in_the_samba_container_logs_in_at_the_directory(
    project: Project,
) -> None:
    for name in ONCE:
        project.wait_until_done(name)
    project.wait_until_healthy(SERVICES)
    assert not project.binds("alice", canary_password())
    project.wait_until_binds("alice", change(project, "alice"))


def test_a_second_up_changes_nothing_and_more_consumers_are_found_by_prometheus(
    project: Project, engine: Engine
) -> None:
    before = {path: path.read_bytes() for path in project.files.rglob("*") if path.is_file()}
    ids = {found["Id"] for found in project.containers()}
    project.up("--scale", f"consumer={REPLICAS}")
    for name in ONCE:
        project.wait_until_done(name)
    assert {path: path.read_bytes() for path in project.files.rglob("*") if path.is_file()} == before
    assert ids < {found["Id"] for found in project.containers()}
    assert len(project.containers("consumer")) == REPLICAS
    wanted = {"passrelay-consumer": REPLICAS, "passrelay-watch": 1, "passrelay-producer": 1, "rabbitmq": 1}
    wait_for(lambda: scraped(engine) == wanted, what=f"Prometheus sees {wanted}", timeout_seconds=60)
    assert queried(engine, "passrelay_producer_up") == {"dc1": 1}
    rules = json.loads(engine.fetch("http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
    shipped = (ROOT / "ops/prometheus/passrelay.rules.yml").read_text()
    assert sum(len(group["rules"]) for group in rules) == shipped.count("- alert: ") > 0


def scraped(engine: Engine) -> dict[str, float]:
    """How many targets of each job answer."""
    return queried(engine, "sum by (job) (up)", label="job")


def queried(engine: Engine, expression: str, *, label: str = "producer") -> dict[str, float]:
    page = json.loads(engine.fetch(f"http://127.0.0.1:9090/api/v1/query?query={expression.replace(' ', '%20')}"))
    return {sample["metric"][label]: float(sample["value"][1]) for sample in page["data"]["result"]}


def test_the_operator_sees_a_sound_relay(project: Project) -> None:
    project.compose("run", "--rm", "-T", "operator", "status", "alice")
    # Exit code 1 would be a fault: a check that failed, a user of AD whose password is not in the directory.
    project.compose("run", "--rm", "-T", "operator", "doctor")
    for user in ("bob", "carol"):
        project.wait_until_binds(user, change(project, user))
    project.compose("run", "--rm", "-T", "operator", "audit")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_dies_comes_back_by_itself_and_loses_nothing(
    project: Project, engine: Engine, name: str
) -> None:
    victims = project.containers(name)
    before = change(project, "alice")
    for victim in victims:
        engine.signal(victim["State"]["Pid"], signal.SIGKILL)
    during = None if name == "samba" else change(project, "bob")
    wait_for(lambda: reborn(project, victims), what=f"{name} runs again", timeout_seconds=_HEAL_SECONDS)
    project.wait_until_binds("alice", before)
    project.wait_until_binds("bob", during or change(project, "bob"))


@pytest.fixture
def keeper(engine: Engine) -> Iterator[Keeper]:
    with Keeper(engine) as made:
        yield made
    assert made.faults == []


@pytest.mark.usefixtures("keeper")
@pytest.mark.parametrize("name", SERVICES)
def test_docker_kill_heals_by_itself_and_loses_nothing(project: Project, engine: Engine, name: str) -> None:
    victims = project.containers(name)
    before = change(project, "alice")
    engine.docker("kill", *(victim["Id"] for victim in victims))
    during = None if name == "samba" else change(project, "bob")
    wait_for(lambda: reborn(project, victims), what=f"{name} runs again", timeout_seconds=_HEAL_SECONDS)
    project.wait_until_binds("alice", before)
    project.wait_until_binds("bob", during or change(project, "bob"))


def test_what_is_stopped_replaced_or_run_once_is_not_started_again(
    project: Project, engine: Engine, keeper: Keeper
) -> None:
    project.compose("stop", "watch")
    once = project.compose("run", "-d", "--no-deps", "consumer", "consumer", "run").split()[-1]
    engine.docker("kill", once)
    keeper.wait_for_looks()
    assert {state(found)[0] for found in project.containers("watch")} == {"exited"}
    assert state(engine.inspect(once)[0]) == ("exited", 137)
    engine.docker("rm", once)
    # Compose stops and renames what it replaces before it removes it.
    project.up("--scale", f"consumer={REPLICAS}", "--force-recreate", "--no-deps", "consumer", "watch")
    keeper.wait_for_looks()
    assert len(project.containers("consumer")) == REPLICAS
    assert len(project.containers("watch")) == 1


def change(project: Project, user: str) -> str:
    """A new password for the user in AD."""
    password = canary_password()
    project.change_password(user, password)
    return password


def reborn(project: Project, victims: list[dict[str, Any]]) -> bool:
    """Whether every one of them runs as a new process."""
    now = {found["Id"]: found for found in project.containers(service(victims[0]))}
    return all(
        state(now[old["Id"]])[0] == "running" and now[old["Id"]]["State"]["StartedAt"] != old["State"]["StartedAt"]
        for old in victims
    )


def test_after_all_that_everybody_is_healthy_and_every_password_is_in_the_directory(project: Project) -> None:
    project.wait_until_healthy(SERVICES)
    project.compose("run", "--rm", "-T", "operator", "audit")


def test_each_container_may_do_as_little_as_the_documentation_says(project: Project, engine: Engine) -> None:
    for container in project.containers():
        name, host = service(container), container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert [cap.removeprefix("CAP_") for cap in host["CapAdd"] or []] == ADDED.get(name, []), name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert not host["Privileged"], name
        (image,) = engine.inspect(container["Config"]["Image"], kind="image")
        user = container["Config"]["User"] or image["Config"]["User"] or "0"
        assert (user.split(":")[0] in {"0", "root"}) == (name in ROOTS), name
        assert host["RestartPolicy"]["Name"] == (
            "always" if name in SERVICES else {"files": "no"}.get(name, "on-failure")
        )
        addresses = {port["HostIp"] for ports in host["PortBindings"].values() for port in ports}
        assert addresses <= {"127.0.0.1"}, name


def test_no_password_is_where_it_need_not_be(project: Project, engine: Engine) -> None:
    secrets = [path.read_text() for path in project.files.rglob("*.password")]
    assert len(secrets) > 4
    told = json.dumps(project.containers())
    images = engine.docker("image", "ls", "--all", "--quiet", "--no-trunc").split()
    told += json.dumps(engine.inspect(*images, kind="image"))
    for image in set(images):
        told += engine.docker("history", "--no-trunc", image)
    assert [needle for needle in (CANARY, *secrets) if needle in told] == []
    # Logs (both streams) and what the engine keeps of each container.
    kept = engine.data / "containers"
    assert any("made certificates" in log.read_text() for log in kept.rglob("*-json.log"))
    assert [find_canary([kept], secret)[2] for secret in secrets] == [[]] * len(secrets)
    # Everything on the engine's disk: layers, logs, volumes. Only the two directories may know passwords.
    volumes = {
        found["Name"]: Path(found["Mountpoint"]) for found in engine.inspect(*volume_names(engine), kind="volume")
    }
    keepers = [path for name, path in volumes.items() if name in {"passrelay_directory", "passrelay_samba"}]
    assert len(keepers) == 2
    paths = [path for path in engine.data.iterdir() if path.name != "volumes"]
    paths += [path for path in volumes.values() if path not in keepers]
    files, size, hits = find_canary([*paths, project.files])
    assert files > 1000
    assert size > 100_000_000
    assert hits == []


def volume_names(engine: Engine) -> list[str]:
    return engine.docker("volume", "ls", "--quiet").split()


def test_the_demo_leaves_an_administrators_files_alone(project: Project, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "consumer").mkdir()
    mine = tmp_path / "consumer/consumer.toml"
    mine.write_text("mine")
    product = f"{project.folder / 'ops'}:/product:ro"
    run = ["run", "--rm", "--network", "none", "--user", "0:0", "--volume", product, "--volume", f"{tmp_path}:/files"]
    script = ["--entrypoint", "python", "passrelay:local", "/product/compose/demo/files.py", "/product", "/files"]
    with pytest.raises(LabError, match=r"exit 4\n.* hold files that are not the demo's"):
        engine.docker(*run, *script)
    assert [path.name for path in tmp_path.rglob("*")] == ["consumer", "consumer.toml"]
    assert mine.read_text() == "mine"
    assert health(project.containers("consumer")[0]) == "healthy"
