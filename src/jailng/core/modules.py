"""That no module is loaded because of what a jail with vnet asks. Loaded for such a jail alone.

The kernel looks for one for each new kind of interface, protocol or expression of a firewall, and runs modprobe(8) as
the host's root. Which modules there are is the host's affair, as on FreeBSD.
"""

from __future__ import annotations

import posix

from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import bpf, cgroup, content, lsm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots

_LOADER = "/proc/sys/kernel/modprobe"
_DISABLED = "/proc/sys/kernel/modules_disabled"


class RefuseModules(Operation):
    """Have the kernel load none for the processes of the jail's cgroup, nor for those of the jails in it."""

    __slots__ = ("cgroup",)

    def __init__(self, cgroup: str) -> None:
        self.cgroup = cgroup

    def apply(self, slots: Slots) -> None:
        """Raises JailError. The program goes with the cgroup."""
        program = _load()
        directory = cgroup.open_directory(self.cgroup)
        try:
            bpf.attach(directory, program, lsm.CGROUP)
        except OSError as error:
            raise _refused(error) from None
        finally:
            posix.close(directory)
            posix.close(program)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "have no module loaded by what it asks"


def _loads_any() -> bool:
    """Whether the kernel loads modules by itself, which one without modules does not, nor where it knows no loader."""
    return _content(_LOADER) not in (b"", b"\n") and _content(_DISABLED) != b"1\n"


def _content(path: str) -> bytes:
    try:
        return content.read(path)
    except FileNotFoundError:
        return b""


def _load() -> int:
    try:
        return lsm.load_refusal()
    except OSError as error:
        raise _refused(error) from None


def _refused(error: OSError) -> JailError:
    return JailError(
        "vnet=new: this kernel would load modules for the jail's root, and takes no program that forbids it: "
        f'{error.filename}: {error.strerror} (CONFIG_BPF_LSM, "bpf" in lsm=): mend that, or '
        "load what the host needs and then set kernel.modules_disabled"
    )


def check() -> None:
    """Raises JailError where it cannot be kept from that."""
    if _loads_any():
        posix.close(_load())


def operations(path: str) -> list[Operation]:
    """What that takes for the cgroup ``path``."""
    return [RefuseModules(path)] if _loads_any() else []
