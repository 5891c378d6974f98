"""The kernel tests on Debian's own kernel: ``./check --vm``, which runs ``python3 -m tests.vm``.

Boots a virtual machine whose PID 1 is systemd, runs tests/kernel there, and exits with their status; or, with --boot,
has jails start and stop with the machine itself. Its console is kept in the cache, beside the system, for when it does
not come up.
"""

from __future__ import annotations

import argparse
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jailng.errors import JailError
from tests.kernel import debian
from tests.vm import image

# By which kernel arguments systemd, or the kernel, has cgroups as wanted.
MODES = {
    "v2": "",
    "no-v1": "cgroup_no_v1=all",
    "hybrid": "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0",
}
_MEMORY = "3G"
# It starts each command some hundred times, and kills it at another of its system calls each time.
_LONG = ("tests/kernel/test_killed.py",)
# These ask the archive, and the machine has no network; what others need of it is carried along (tests/vm/image.py).
_BOOTSTRAP = "tests/kernel/test_bootstrap.py"
_ARCHIVE = (
    f"{_BOOTSTRAP}::test_an_end_in_the_middle_leaves_nothing_that_looks_finished",
    f"{_BOOTSTRAP}::test_a_package_that_is_not_there",
)
# The machine's first sign of life; a useless /dev/kvm gives none.
_PROBE = 20
_started = time.monotonic()


def say(line: str) -> None:
    """A line of progress, as ./check has them."""
    print(f"== {time.monotonic() - _started:3.0f} s  {line}", flush=True)


def accelerator(system: image.System) -> list[str]:
    """qemu's arguments: KVM if this very kernel starts with it, which /dev/kvm alone does not tell; else emulation."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        kvm = ["-accel", "kvm", "-cpu", "host"]
        argv = [*_machine(kvm), "-no-reboot", "-serial", "stdio", "-kernel", str(system.kernel)]
        argv += ["-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"]
        try:  # without a root it panics and reboots, which ends it
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE, check=False)
            if b"Linux version" in done.stdout:
                return kvm
        except subprocess.TimeoutExpired:
            pass
        say("/dev/kvm is there, but this kernel does not start with it: emulated, which takes about 10 times as long")
    else:
        say("no /dev/kvm: emulated, which takes about 10 times as long")
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _machine(accel: list[str]) -> list[str]:
    return ["qemu-system-x86_64", *accel, "-smp", str(min(4, os.cpu_count() or 1)), "-m", _MEMORY,
            "-nodefaults", "-display", "none", "-nic", "none"]  # fmt: skip


def boot(
    system: image.System, accel: list[str], mode: str, wanted: list[str], limit: float, boots: bool = False
) -> int:
    """Run the tests that are ``wanted`` in a machine, for ``limit`` seconds at most. Their status; 1 if it has none.

    With ``boots`` it is that of booting (tests/vm/guest-boot) instead.
    """
    console = debian.CACHE / f"console-{mode}.log"
    with image.carried(wanted, boots) as checkout, tempfile.NamedTemporaryFile(prefix="jailng-vm-") as status:
        append = f"root=/dev/vda rw panic=10 quiet console=ttyS0 systemd.show_status=0 {MODES[mode]}".strip()
        argv = [
            *_machine(accel),
            *([] if boots else ["-no-reboot"]),
            "-kernel",
            str(system.kernel),
            "-initrd",
            str(system.initramfs),
            "-append",
            append,
        ]
        for disk in (system.root, checkout):  # written to, and forgotten
            argv += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        argv += ["-serial", f"file:{console}", "-serial", "stdio", "-serial", f"file:{status.name}"]
        say(f"booting Linux {system.release} ({mode}{', ' if MODES[mode] else ''}{MODES[mode]}); console: {console}")
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
            try:
                ended = _show(machine, time.monotonic() + limit)
            finally:
                machine.kill()
        told = Path(status.name).read_text().strip()
    if not ended:
        say(f"the machine was stopped after {limit:.0f} s")
        return 1
    if not told.isdecimal():
        sys.stderr.write(console.read_text(errors="replace")[-4000:])
        say("the machine ended without having told a status; the end of its console is above")
        return 1
    return int(told)


def _show(machine: subprocess.Popen[bytes], until: float) -> bool:
    """Print what the tests print, as it comes. False if the time is over before the machine is."""
    assert machine.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(machine.stdout, selectors.EVENT_READ)
        while waiting.select(max(0.0, until - time.monotonic())):
            data = os.read(machine.stdout.fileno(), 65536)
            if not data:
                return True
            sys.stdout.buffer.write(data.replace(b"\r\n", b"\n"))
            sys.stdout.buffer.flush()
    return False


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(prog="check --vm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cgroups", choices=MODES, default="v2")
    parser.add_argument("--boot", action="store_true", help="restart it, with jails that start and stop with it")
    parser.add_argument("--limit", type=float, default=75 * 60, help="seconds for which the tests may run")
    parser.add_argument("--package", action="append", default=[], help="what the machine needs installed")
    parser.add_argument("wanted", nargs="*", help="arguments of pytest instead of all tests")
    given = parser.parse_args()
    try:
        system = image.make(tuple(given.package), say=lambda line: say(line))
        accel = accelerator(system)
        if given.boot:
            return boot(system, accel, given.cgroups, [], given.limit, boots=True)
        wanted = given.wanted or ["-p", "tests.beside", "tests/vm", "tests/kernel"]
        if not given.wanted and "kvm" not in accel:
            say(f"left out without KVM, since they take many times as long as all the others: {' '.join(_LONG)}")
            wanted += [f"--ignore={path}" for path in _LONG]
        if not given.wanted or any(word.startswith(_BOOTSTRAP) for word in given.wanted):
            say(f"left out, since they need a network: {' '.join(_ARCHIVE)}")
            wanted += [f"--deselect={path}" for path in _ARCHIVE]
        return boot(system, accel, given.cgroups, wanted, given.limit)
    except (OSError, RuntimeError, JailError) as error:
        print(f"check --vm: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
