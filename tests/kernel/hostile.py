"""The host's side of the attempts in ``probes``: what is put up for a jail to find, and how they are made."""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kernel import debian as roots
from tests.kernel.stage import CLONE_NEWNS, CLONE_NEWPID, Stage, mount, unshare

PROBES = Path(__file__).resolve().parent / "probes"
# A Debian with the Python that the attempts are written in.
RECIPE = roots.PYTHON
OTHER_ADDRESS = "203.0.113.77"
PYTHON = "/usr/bin/python3"
_PAUSE = "import signal\nwhile True: signal.pause()"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(*words: int | bytes | None) -> int:
    result: int = _libc.syscall(*[ctypes.c_long(word) if isinstance(word, int) else word for word in words])
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@dataclass
class Report:
    """What came of the attempts: name to (verdict, line)."""

    results: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, output: str) -> Report:
        report = cls()
        for line in output.splitlines():
            name, verdict, said = json.loads(line)
            report.results[name] = verdict, said
        return report

    def names(self, verdict: str) -> set[str]:
        return {name for name, (found, _) in self.results.items() if found == verdict}

    def lines(self, verdict: str) -> str:
        return "\n".join(f"{name}: {line}" for name, (found, line) in self.results.items() if found == verdict)

    def counts(self) -> dict[str, int]:
        return {verdict: len(self.names(verdict)) for verdict in ("held", "exposed", "escaped", "broken")}


@contextmanager
def host(stage: Stage, directory: Path, root: Path) -> Iterator[dict[str, str]]:
    """What a host has that a jail might want, for as long as it lasts; yields the facts that the attempts are given."""
    token = secrets.token_hex(8)
    number = int(token[:7], 16)
    queue = f"attempt-{token}"
    secret = directory / "secret"
    secret.write_text(token)
    with ExitStack() as stack:
        listeners = [stack.enter_context(made) for made in _listeners(f"host-{token}")]
        port = listeners[0].getsockname()[1]
        victim = subprocess.Popen([PYTHON, "-IS", "-c", _PAUSE, f"victim-{token}"], env={"SECRET": token})
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        subprocess.run(["ip", "address", "add", f"{OTHER_ADDRESS}/32", "dev", "lo"], check=True)
        stack.callback(subprocess.run, ["ip", "address", "del", f"{OTHER_ADDRESS}/32", "dev", "lo"], check=True)
        for get, arguments, control in (
            (29, (number, 4096, 0o1600), 31),
            (64, (number, 1, 0o1600), 66),
            (68, (number, 0o1600), 71),
        ):
            identity = _call(get, *arguments)
            stack.callback(_call, control, identity, *((0, 0) if control == 66 else (0, None)))
        _call(240, queue.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
        stack.callback(_call, 241, queue.encode())
        Path("/dev/shm", queue).write_text(token)
        stack.callback(Path("/dev/shm", queue).unlink)
        _call(250, 1, None)  # a session keyring of our own, so that the key is in nobody else's
        key = _call(248, b"user", f"key-{token}".encode(), b"secret", 6, -3)
        _call(250, 5, key, 0x3F3F0000)
        stack.callback(_call, 250, 21, key)
        disk = os.stat(root).st_dev
        source = next(line.split(" - ")[1].split()[1] for line in _mountinfo() if line.split()[2] == _name(disk))
        with open("/proc/stat") as file:
            stat = {line.split()[0]: line.split()[1] for line in file}
        yield {
            "token": token,
            "victim": f"victim-{token}",
            "pids": str(victim.pid),
            "init": "1",
            "secret": str(secret),
            "secret_inode": str(secret.stat().st_ino),
            "disk": str(disk),
            "disk name": source if source.startswith("/dev/") else "",
            "dev_device": str(os.stat("/dev/null").st_dev),
            "pts_device": str(os.stat("/dev/pts").st_dev),
            "abstract": f"host-{token}",
            "sibling": f"sibling-{token}",
            "queue": queue,
            "ipc key": str(number),
            "key": str(key),
            "key name": f"key-{token}",
            "loopback": "127.0.0.1",
            "loopback6": "::1",
            "other address": OTHER_ADDRESS,
            "port": str(port),
            "sibling address": "",
            "sibling key": str(number + 1),
            "sibling port": str(port),
            "links": " ".join(name for _, name in socket.if_nameindex() if name != "lo"),
            "hostname": os.uname().nodename,
            "root": "" if root == Path("/") else str(root),
            "cgroup": "jailng",
            "boot id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "command line": Path("/proc/cmdline").read_text().strip(),
            "memory": Path("/proc/meminfo").read_text().split()[1],
            "blocks": str(os.statvfs(root).f_blocks),
            "started": stat["processes"],
            "btime": stat["btime"],
            "threads": Path("/proc/loadavg").read_text().split()[3].partition("/")[2],
            "uptime": Path("/proc/uptime").read_text().split()[0],
            "base": "",
            **{f"ns {name}": str(os.stat(f"/proc/self/ns/{name}").st_ino) for name in os.listdir("/proc/self/ns")},
        }


def _listeners(name: str) -> Iterator[socket.socket]:
    port = 0
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, OTHER_ADDRESS)):
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the other address comes later
        made.bind((address, port))
        made.listen()
        port = made.getsockname()[1]
        yield made
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(f"\0{name}-{kind}")
        if kind == socket.SOCK_STREAM:
            made.listen()
        yield made


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _name(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def prepare(request: pytest.FixtureRequest, stage: Stage, directories: pytest.TempPathFactory) -> Path:
    """A Debian with the attempts in it, below a directory that only root can enter; one for all tests of a run."""
    root = directories.getbasetemp() / "hostile/root"
    if not root.exists():
        capture = request.config.pluginmanager.getplugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            made = roots.make(RECIPE, prepare=stage.onto_host_network)
        root.parent.mkdir(mode=0o700)
        roots.copy(made, root)
        shutil.copytree(PROBES, root / "opt/probes", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def program(module: str, *arguments: str, where: str = "/opt") -> list[str]:
    """The command that runs ``module`` of the attempts inside."""
    environment = [f"PYTHONPATH={where}", "PYTHONDONTWRITEBYTECODE=1"]
    return ["/usr/bin/env", *environment, PYTHON, "-s", "-P", "-m", module, *arguments]


def sibling(facts: dict[str, str]) -> list[str]:
    """What runs in another jail, made with sysv*=new: a process to be found, with sockets and IPC to be reached."""
    text = f"""import ctypes, os, signal, socket
kept = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind("\\0{facts["sibling"]}-" + str(int(kind)))
    kept.append(made)
kept[0].listen()
libc = ctypes.CDLL(None)
key = {facts["sibling key"]}
assert min(libc.syscall(29, key, 4096, 0o1666), libc.syscall(64, key, 1, 0o1666), libc.syscall(68, key, 0o1666)) >= 0
assert libc.syscall(240, b"{facts["sibling"]}", os.O_CREAT | os.O_RDWR, 0o666, None) >= 0
open("/dev/shm/{facts["sibling"]}", "w").close()
print("ready", flush=True)
{_PAUSE}"""
    return [PYTHON, "-IS", "-c", text, facts["victim"]]


def unconfined(root: Path, facts: dict[str, str], prefix: str = "") -> Report:
    """The same attempts by a root whom nothing confines but chroot(2), in mount and pid namespaces of his own.

    That is for the machine's sake: he sees our victim and no process that is not ours, and mounts for himself alone.
    """
    argv = [sys.executable, "-m", "tests.kernel.hostile", str(root), prefix]
    done = subprocess.run(
        argv, input=json.dumps(facts), capture_output=True, text=True, timeout=600, cwd=PROBES.parents[2]
    )
    assert done.returncode == 0, done.stderr
    return Report.of(done.stdout)


def _be_unconfined(root: Path, facts: dict[str, str], prefix: str) -> int:
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    mount("none", "/", None, 0x4000 | 1 << 18)
    victim = subprocess.Popen([PYTHON, "-IS", "-c", _PAUSE, facts["victim"]])
    for name in ("dev", "sys"):
        mount(f"/{name}", root / name, None, 0x5000)
    mount("proc", root / "proc", "proc")
    os.chroot(root)
    os.chdir("/")
    given = {**facts, "unconfined": "yes", "init": str(victim.pid), "pids": str(victim.pid)}
    status = subprocess.run(program("probes", prefix), input=json.dumps(given), text=True).returncode
    victim.kill()
    os._exit(status)


def base_of(stage: Stage, jid: str) -> str:
    """The first uid of a running jail as the host numbers it."""
    found = next((stage.cgroup2 / "jailng").glob(f"**/{jid}/init/cgroup.procs"))  # a jail's is below the outer one's
    pid = found.read_text().split()[0]
    return Path(f"/proc/{pid}/uid_map").read_text().split()[1]


def slug(name: str) -> str:
    """A name that a jail can have."""
    return re.sub(r"\W+", "-", name)


if __name__ == "__main__":
    sys.exit(_be_unconfined(Path(sys.argv[1]), json.load(sys.stdin), sys.argv[2]))
