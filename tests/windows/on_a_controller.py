"""`passrelay` in Windows' Python under wine, which says that it is no domain controller; nothing else is pretended."""

from __future__ import annotations

import os
import sys

from passrelay_ops.cli import main
from passrelay_producer.windows import machine
from passrelay_producer.windows.facts import Role

if __name__ == "__main__":
    role = Role[os.environ.get("LAB_ROLE", "WRITABLE")]
    machine.role = lambda: role
    # Its machine's SID has the form of a domain's, so the installer takes it; a test may name another.
    sid = os.environ.get("LAB_DOMAIN_SID", "")
    if sid:
        machine._domain_sid = lambda: sid
    sys.argv[0] = "passrelay"
    main()
