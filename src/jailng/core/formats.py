"""A jail with the host's uids has a table of program formats of its own, empty: binfmt_misc.

What the host has registered there with its program held open (flag F, as for qemu-user) runs in every jail, and is then
to be reached by /proc/PID/exe: the host's file, on the host's mount. Root of a jail whose uids are the host's owns it,
and could make it set-user-ID. A user namespace has a table of its own as soon as that was mounted in it (Linux 6.7).
"""

from __future__ import annotations

from jailng.core import jailinit, process, program
from jailng.core.program import kept
from jailng.linux import mount, ns
from jailng.linux.libc import ENODEV

_FSOPEN_CLOEXEC = 1


def have_none(init: int) -> None:
    """Give the user namespace of this PID 1, a pidfd, a table of its own. Raises JailError.

    It outlives its mount, which is never attached.
    """
    way = program.Program()
    way.fds.append(init)
    process.not_dumpable(way)
    label = "jail_set: binfmt_misc"
    way.must("setns", init, ns.CLONE_NEWUSER, label=label)
    way.must("unshare", ns.CLONE_NEWNS, label=label)  # to have one in which root of that namespace may mount
    unknown = way.here()
    way.must("fsopen", way.text("binfmt_misc"), _FSOPEN_CLOEXEC, keep=1, label=label, unless=ENODEV)
    way.must("fsconfig", kept(1), mount.FSCONFIG_CMD_CREATE, 0, 0, 0, label=label)
    way.skip(unknown)
    way.end()
    program.start(way, jailinit.path()).finished()
