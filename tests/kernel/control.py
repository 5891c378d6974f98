"""Places where probes are to fail: ``python3 -m tests.kernel.control FACTS PLACE ROOT COMMAND...`` runs one there.

A root whom chroot(2) confines and no more, whose caller was careless: streams, descriptors, environment, terminal and
niceness are such as no jail's root has. He is in mount and pid namespaces of his own, for the machine's sake, and what
he mounts is his alone; he sees a process of the host's and the objects of another jail, which are put up there.

``plain`` is the kernel's own /proc, /sys and /dev; in ``masked`` /proc is masked as a jail's is, but by mounts that he
owns; ``files`` has files of the host as streams; in ``painted`` /proc and /sys are plain files in a directory, for what
this kernel has not or lets nobody write to; ``host`` is no place at all, and the machine's processes are seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from jailng.audit import planted
from tests.kernel.stage import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, mount, unshare

_BIND, _REC, _PRIVATE, _RDONLY, _REMOUNT = 0x1000, 0x4000, 1 << 18, 1, 32
MASKED = ("keys", "kcore", "cmdline", "interrupts")  # those that there are
NOBODY = 70000


def main(argv: list[str]) -> int:
    facts = json.loads(Path(argv[0]).read_text())
    place, root, command = argv[1], Path(argv[2]), argv[3:]
    if place == "host":
        os.execvp(command[0], command)
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    mount("none", "/", None, _REC | _PRIVATE)
    mount("proc", "/proc", "proc")  # of these processes
    with open(facts["secret"]) as secret:
        victim = planted.start_victim(facts["victim"], facts["token"], secret.fileno())
    sibling = subprocess.Popen(planted.sibling(facts), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sibling.stdout is not None and sibling.stdout.readline() == b"ready\n"
    {"plain": furnish, "files": furnish, "masked": mask, "painted": paint}[place](root, facts)
    status = in_files(root, facts, command) if place == "files" else careless(root, facts, command)
    victim.kill()
    sibling.kill()
    for left in (f"/dev/mqueue/{facts['sibling']}", f"/dev/shm/{facts['sibling']}"):
        if os.path.exists(left):
            os.unlink(left)
    os._exit(status)


def furnish(root: Path, facts: dict[str, str]) -> None:
    for name in ("dev", "sys"):
        mount(f"/{name}", root / name, None, _BIND | _REC)
    mount("proc", root / "proc", "proc")


def mask(root: Path, facts: dict[str, str]) -> None:
    furnish(root, facts)
    for name in MASKED:
        if (root / "proc" / name).exists():
            mount("/dev/null", root / "proc" / name, None, _BIND)
    mount("none", root / "proc/acpi", "tmpfs") if (root / "proc/acpi").exists() else None
    mount(str(root / "proc/sys"), root / "proc/sys", None, _BIND)
    mount("none", root / "proc/sys", None, _REMOUNT | _BIND | _RDONLY)


def paint(root: Path, facts: dict[str, str]) -> None:
    """``root`` is one of this process's own, with a shell."""
    for name in ("proc", "sys"):
        (root / name).mkdir(exist_ok=True)
    for name, content in json.loads(os.environ["PAINTED"]).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))


def careless(root: Path, facts: dict[str, str], command: list[str]) -> int:
    master, slave = os.openpty()
    _, others = os.openpty()
    os.fchown(others, NOBODY, NOBODY)
    inherited = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(inherited, True)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MARK": facts["token"], "ROOT": facts["root"]}
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            os.nice(5)
            for limit in (resource.RLIMIT_CPU, resource.RLIMIT_CORE):
                resource.setrlimit(limit, (1000, 1000))
            os.chroot(root)
            os.chdir("/")
            os.execve(command[0], command, environment)
        finally:
            os._exit(127)
    unshare(CLONE_NEWUSER)  # PID 1's, which its child can join
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(master)
    return status


def in_files(root: Path, facts: dict[str, str], command: list[str]) -> int:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(sys.stdin.buffer.read())
        given.seek(0)
        status = subprocess.run(["chroot", str(root), *command], stdin=given, stdout=said, stderr=said).returncode
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.buffer.flush()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
