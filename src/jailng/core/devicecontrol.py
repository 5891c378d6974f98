"""Which devices the processes of a jail may open, however they have come by a node: a program on its cgroup.

The tree's mounts have no devices, and nobody inside may make one; this stands behind both. It is one program, on the
cgroup of all jails, for all that have the usual devices, and one on a jail's own where its rule set shows others or it
is in another jail. The nearest judges (BPF_F_ALLOW_OVERRIDE). The builder loads it, since few starts have to.
"""

from __future__ import annotations

import posix

from jailng.core.devfs import DEVICES
from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.core.rootfs import NEW
from jailng.linux import cgroup
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.devfs import Node
    from jailng.core.operation import Slots
    from jailng.core.program import Program

ALL = "jailng"  # the cgroup of all jails
LABEL = "devfs_ruleset: a program on the jail's cgroup that judges devices (CONFIG_CGROUP_BPF)"
# What deviceprogram.judge() makes of DEVICES: tests/unit/test_devicecontrol.py holds the two together.
USUAL = bytes.fromhex(
    """
    611200000000000061130400000000006114080000000000bf25000000000000540500000000010056050f0000000000
    54020000ffff00005602060002000000560305000100000016040d000300000016040c000500000016040b0007000000
    16040a000800000016040900090000005602030002000000560302000500000016040600000000001604050002000000
    560202000200000054030000f8ffffff1603020088000000b4000000000000009500000000000000b400000001000000
    9500000000000000
    """
)
_MARK = "trusted.jailng.devices"  # of the cgroup that has it: the usual program, by its length and remainder
_MARKED = b"%d-%d" % (len(USUAL), int.from_bytes(USUAL, "little") % 0xFFFFFFFB)
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_F_ALLOW_OVERRIDE = 1
_TYPE = 0o170000


class JudgeDevices(Operation):
    """Let the processes of a jail open these devices and its terminals, and make none."""

    __slots__ = ("cgroup", "first", "lenient", "nodes")

    def __init__(self, path: str, nodes: list[Node], nested: bool, lenient: bool) -> None:
        """``path`` is the jail's cgroup. ``lenient``: a kernel that has no such programs is told of, and no error."""
        usual = {node[1:4] for node in nodes} == {node[1:4] for node in DEVICES}
        self.cgroup = ALL if usual and not nested else path
        self.nodes = nodes
        self.lenient = lenient
        self.first = -1  # of the calls that can fail

    def outside(self, way: Program, slots: Slots) -> None:
        """Nothing, where all jails have the program by now. It goes with the cgroup."""
        directory = cgroup.open_directory(self.cgroup)
        slots["devices"] = directory
        if self.cgroup == ALL and _is_marked(directory):
            return
        slots["devices.program"] = program = posix.dup(directory)
        way.fds += [directory, program]
        code, licence = way.data(self._code()), way.text(b"GPL")
        size = len(self._code()) // 8
        # union bpf_attr, BPF_PROG_LOAD: prog_type insn_cnt insns license; BPF_PROG_ATTACH: target_fd attach_bpf_fd
        # attach_type attach_flags
        loaded = words(_PROG_TYPE_CGROUP_DEVICE, size, size=4) + words(code, licence) + bytes(24)
        attached = words(directory, program, _CGROUP_DEVICE, _F_ALLOW_OVERRIDE, size=4)
        self.first = way.here()
        if self.lenient:
            way.note("bpf", _PROG_LOAD, way.data(loaded, (8, 16)), len(loaded), keep=NEW)
        else:
            way.must("bpf", _PROG_LOAD, way.data(loaded, (8, 16)), len(loaded), keep=NEW, label=LABEL)
        way.must("dup3", kept(NEW), program, posix.O_CLOEXEC)
        way.must("close", kept(NEW))
        way.must("bpf", _PROG_ATTACH, way.data(attached), len(attached), label=LABEL)
        if self.cgroup == ALL:
            way.must("fsetxattr", directory, way.text(_MARK), way.data(_MARKED), len(_MARKED), 0, label=LABEL)
        way.skip(self.first)

    def _code(self) -> bytes:
        if self.cgroup == ALL:
            return USUAL
        from jailng.core import deviceprogram

        return deviceprogram.judge([(node[1] & _TYPE, node[2], node[3]) for node in self.nodes])

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"judge devices in cgroup {self.cgroup}: {' '.join([node[0] for node in self.nodes])}"

    def warnings(self, noted: list[int]) -> list[str]:
        """That the kernel has no such programs."""
        return [f"{LABEL}: not supported by this kernel"] if self.first in noted else []


def _is_marked(directory: int) -> bool:
    try:
        return posix.getxattr(directory, _MARK) == _MARKED  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
