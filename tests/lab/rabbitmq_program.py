"""Which RabbitMQ the lab runs: this machine's, or the one installed in another Debian's folder (debootstrap).

PASSRELAY_LAB_RABBITMQ=/folder runs every broker of the tests with that folder as its root, so that RabbitMQ 4 can be
tried on Debian 12. It needs root: `debootstrap trixie /folder`, then `chroot /folder apt-get install rabbitmq-server`.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

from tests.lab.process import MissingServerError

ACCOUNT = "rabbitmq"
BIN = Path("/usr/lib/rabbitmq/bin")
# Taken when the tests are loaded: no setting of passrelay from outside may reach the commands that they run.
_ROOT = os.environ.pop("PASSRELAY_LAB_RABBITMQ", "")
# The node sees the lab's folders under their own names. Its account is a number: the folder may name it otherwise.
_ENTER = """
root=$1 temporary=$2 account=$3
shift 3
[ -e "$root/etc/hosts" ] || : >"$root/etc/hosts"
mount --bind /etc/hosts "$root/etc/hosts"
for shared in /proc /dev "$temporary"; do mount --rbind "$shared" "$root$shared"; done
exec chroot "$root" setpriv --reuid="$account" --regid="$account" --clear-groups --pdeathsig=TERM -- "$@"
"""


def user() -> str | None:
    """The account that the lab must start the command with; None when it stays as it is."""
    return ACCOUNT if os.geteuid() == 0 and not _ROOT else None


def command(program: str | Path, *arguments: str | Path) -> list[str | Path]:
    """How to start one of RabbitMQ's programs; MissingServerError when it is not installed."""
    path = Path(program)
    if path.is_absolute() and not Path(f"{_ROOT}{path}").exists():
        raise MissingServerError(f"{_ROOT}{path} is not installed: run `./run test` once")
    if not _ROOT:
        return [program, *arguments]
    enter = ["unshare", "--mount", "--propagation=private", "--", "sh", "-ec", _ENTER, "sh"]
    return [*enter, _ROOT, tempfile.gettempdir(), str(pwd.getpwnam(ACCOUNT).pw_uid), program, *arguments]
