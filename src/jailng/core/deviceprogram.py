"""The program of core/devicecontrol.py, for other devices than the usual ones; and the host's processes beside a jail.

The kernel asks it for each device that is opened, looked at or made: struct bpf_cgroup_dev_ctx in linux/bpf.h.
"""

from __future__ import annotations

import posix

from jailng.core import devicecontrol
from jailng.errors import JailError
from jailng.linux import bpf, cgroup
from jailng.linux.assembler import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # type of st_mode, major, minor
    Device = tuple[int, int, int]

_MKNOD = 1 << 16  # what is wanted, above the kind of device
_KIND = 0xFFFF
_BLOCK, _CHARACTER = 1, 2
_KINDS = {0o060000: _BLOCK, 0o020000: _CHARACTER}
# Of every jail, whatever its rules show: what a stream may be, and the terminals of its own devpts.
_ALWAYS = ((0o020000, 1, 3), (0o020000, 5, 2))
_TERMINALS, _ALL_BUT_EIGHT = 136, 0xFFFFFFF8  # and the seven majors that follow


def judge(devices: Iterable[Device]) -> bytes:
    """A program that lets nothing be made, and be opened these devices and those of every jail."""
    numbers: dict[tuple[int, int], set[int]] = {}  # minors by kind and major
    for kind, major, minor in (*_ALWAYS, *devices):
        numbers.setdefault((_KINDS[kind], major), set()).add(minor)
    code = Code()
    access, major_, minor_, scratch = bpf.R2, bpf.R3, bpf.R4, bpf.R5
    for number, register in enumerate((access, major_, minor_)):
        code.load(register, bpf.R1, 4 * number)
    code.copy(scratch, access)
    code.mask(scratch, _MKNOD)
    code.jump_unless(scratch, 0, "no")
    code.mask(access, _KIND)
    for (kind, major), minors in sorted(numbers.items()):
        other = f"not {kind} {major}"
        code.jump_unless(access, kind, other)
        code.jump_unless(major_, major, other)
        for minor in sorted(minors):
            code.jump_if(minor_, minor, "yes")
        code.label(other)
    code.jump_unless(access, _CHARACTER, "no")
    code.mask(major_, _ALL_BUT_EIGHT)
    code.jump_if(major_, _TERMINALS, "yes")
    code.label("no")
    code.leave(0)
    code.label("yes")
    code.leave(1)
    return code.assembled()


def free(path: str) -> None:
    """Have no program judge the cgroup ``path``, which is for processes of the host's alone. Raises JailError."""
    directory = cgroup.open_directory(path)
    try:
        program = bpf.load(bpf.PROG_TYPE_CGROUP_DEVICE, bpf.CGROUP_DEVICE, bpf.mov(bpf.R0, 1) + bpf.leave())
        bpf.attach(directory, program, bpf.CGROUP_DEVICE, bpf.F_ALLOW_OVERRIDE)
        posix.close(program)
    except OSError as error:
        raise JailError(f"{devicecontrol.LABEL}: {error.strerror}") from None
    finally:
        posix.close(directory)
