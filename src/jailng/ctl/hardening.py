"""Settings of the host that no jail can change and that weaken what stands around all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from jailng.ctl.diagnosis import Finding, Jails
from jailng.params.values import visible

_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:  # the kernel has no such setting
        return ""


def _core_pattern() -> Iterator[Finding]:
    pattern = _read("/proc/sys/kernel/core_pattern")
    if pattern.startswith("@"):
        yield Finding(
            f"kernel.core_pattern is {visible(pattern)}: whoever listens there reads as the host's root what a jail "
            f"wrote, and no limit keeps a jail's cores from a socket: jails are refused as long as that is so"
        )
    if pattern.startswith("|"):
        yield Finding(
            f"kernel.core_pattern hands cores to {pattern[1:].split(' ')[0]}, which as the host's root would read what "
            f"a jail wrote: jails have none as long as that is so",
            wrong=False,
        )


def _links() -> Iterator[Finding]:
    for name in ("protected_symlinks", "protected_hardlinks", "protected_fifos", "protected_regular"):
        if _read(f"/proc/sys/fs/{name}") == "0":
            yield Finding(
                f"fs.{name} is 0: host programs that walk a jail's tree can be led astray in directories like its /tmp",
                (f"sysctl -w fs.{name}=1",),
                wrong=False,
            )


def _terminals() -> Iterator[Finding]:
    if _read("/proc/sys/dev/tty/legacy_tiocsti") == "1":
        yield Finding(
            "dev.tty.legacy_tiocsti is 1: what runs on a terminal of the host's can type into it; jails cannot",
            ("sysctl -w dev.tty.legacy_tiocsti=0",),
            wrong=False,
        )


def _programs() -> Iterator[Finding]:
    if _read("/proc/sys/kernel/unprivileged_bpf_disabled") == "0":
        yield Finding(
            "kernel.unprivileged_bpf_disabled is 0: users of the host may load programs into the kernel; jails may not",
            ("sysctl -w kernel.unprivileged_bpf_disabled=2",),
            wrong=False,
        )


def _processors() -> Iterator[Finding]:
    if not _VULNERABILITIES.is_dir():
        return
    for file in sorted(_VULNERABILITIES.iterdir()):
        state = _read(str(file))
        if state.startswith("Vulnerable"):
            yield Finding(
                f"processors: {file.name}: {state}: one jail may learn what another, or the host, computes; what mends "
                f"it is microcode, or mitigations=auto on the kernel's command line",
                wrong=False,
            )


def _threads() -> Iterator[Finding]:
    if _read("/sys/devices/system/cpu/smt/active") == "1":
        yield Finding(
            "two threads of a core run different jails at once, and share its caches: where jails must not learn of "
            "each other so, mitigations=auto,nosmt on the kernel's command line",
            wrong=False,
        )


def _shared_pages() -> Iterator[Finding]:
    if _read("/sys/kernel/mm/ksm/run") == "1":
        yield Finding(
            "the kernel merges equal pages (KSM): the time that a write takes tells a jail what others have in memory",
            ("echo 2 > /sys/kernel/mm/ksm/run",),
            wrong=False,
        )


def _panic() -> Iterator[Finding]:
    if _read("/proc/sys/vm/panic_on_oom") not in ("", "0"):
        yield Finding(
            "vm.panic_on_oom is not 0: a jail that uses up the memory stops the machine",
            ("sysctl -w vm.panic_on_oom=0",),
        )


_CHECKS: list[Callable[[], Iterator[Finding]]] = [
    _core_pattern, _links, _terminals, _programs, _processors, _threads, _shared_pages, _panic,
]  # fmt: skip


def check(_: Jails) -> Iterator[Finding]:
    """What the host's administrator may want otherwise."""
    for one in _CHECKS:
        yield from one()
