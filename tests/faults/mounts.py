"""A mount namespace of our own (mount_namespaces(7)): however this process ends, no disk of it is left mounted."""

from __future__ import annotations

import ctypes
import os

from tests.lab.process import LabError

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def keep_mounts_private() -> None:
    """For this thread and everything that it starts from now on; LabError without the right to do so."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise LabError(f"small disks need root: {os.strerror(ctypes.get_errno())}")
