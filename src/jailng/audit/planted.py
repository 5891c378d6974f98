"""What is put up on the host for a container to find, and what the host knows of itself.

All of it is taken away again. What would outlive this process (IPC objects, files) is written down before it is made,
in a journal that bears this process's identity; ``clear`` takes away what journals of dead processes name.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from jailng.audit.probe import call
from jailng.core import registry
from jailng.core.interpreter import PYTHON
from jailng.linux import processid

# On a disk, where roots of jails are too: a handle of a file leads to those of its own file system.
PLACE = Path("/var/cache/jailng/audit")
_JOURNAL, _SECRET, _SOCKET = "journal", "secret", "socket"
_RMID = 0
# It ends with the process that started it, whatever ends that.
_VICTIM = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[2]):
    print("ready", flush=True)
    while True: signal.pause()
"""
_NAMESPACES = ("time", "mnt", "cgroup", "uts", "ipc", "user", "pid", "net")


class Journal:
    """A directory of this process's, with what is to be taken away when it is gone."""

    def __init__(self) -> None:
        PLACE.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = PLACE / secrets.token_hex(8)
        self.directory.mkdir(mode=0o700)
        self.file = self.directory / _JOURNAL
        self.file.write_text(f"{registry.boot_id()} {processid.of(os.getpid())}\n")

    def note(self, line: str) -> None:
        """Write it down before it is made."""
        with self.file.open("a") as file:
            file.write(line + "\n")


def clear() -> None:
    """Take away what audits have left that were killed."""
    for directory in PLACE.glob("*/"):
        try:
            boot, _, identity = (directory / _JOURNAL).read_text().partition("\n")[0].partition(" ")
        except OSError:
            boot, identity = "", ""  # it was killed before it wrote a line
        if boot != registry.boot_id() or not processid.is_alive(identity):
            take_away(directory)


def take_away(directory: Path) -> None:
    """Undo what the journal of a directory names, and remove that."""
    try:
        lines = (directory / _JOURNAL).read_text().splitlines()
    except OSError:
        lines = []
    if lines and lines[0].partition(" ")[0] == registry.boot_id():
        for line in reversed(lines[1:]):
            kind, _, what = line.partition(" ")
            try:
                _UNDO[kind](what)
            except (OSError, KeyError):
                pass  # it was not made yet, or is gone
    shutil.rmtree(directory, ignore_errors=True)


_UNDO: dict[str, Callable[[str], object]] = {
    "shm": lambda key: call("shmctl", call("shmget", int(key), 0, 0), _RMID, None),
    "sem": lambda key: call("semctl", call("semget", int(key), 0, 0), 0, _RMID),
    "msg": lambda key: call("msgctl", call("msgget", int(key), 0), _RMID, None),
    "queue": lambda name: call("mq_unlink", name.encode()),
    "file": os.unlink,
}


@contextmanager
def host(root: str = "/") -> Iterator[dict[str, str]]:
    """The facts, with all that they tell of made, for as long as it lasts. ``root`` is the container's, if known.

    Raises OSError.
    """
    clear()
    journal = Journal()
    with ExitStack() as stack:
        stack.callback(take_away, journal.directory)
        yield {**_plant(journal, stack), **_known(root)}


def _plant(journal: Journal, stack: ExitStack) -> dict[str, str]:
    """What is made, of names that nobody can guess."""
    token = secrets.token_hex(8)
    number = int(token[:7], 16)
    queue = f"jailng-audit-{token}"
    secret = journal.directory / _SECRET
    secret.write_text(token)
    opened = stack.enter_context(secret.open())
    other = other_address()
    port, listeners = _listen(["127.0.0.1", "::1", other])
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(journal.directory / _SOCKET))
    made.listen(8)
    for one in [made, *listeners, *_abstract(f"host-{token}")]:
        stack.enter_context(one)
    victim = start_victim(f"victim-{token}", token, opened.fileno())
    stack.callback(victim.communicate)
    stack.callback(victim.kill)
    for kind, get, arguments in (
        ("shm", "shmget", (4096, 0o1600)),
        ("sem", "semget", (1, 0o1600)),
        ("msg", "msgget", (0o1600,)),
    ):
        journal.note(f"{kind} {number}")
        call(get, number, *arguments)
    journal.note(f"queue {queue}")
    os.close(call("mq_open", queue.encode(), os.O_CREAT | os.O_RDWR, 0o666, None))
    journal.note(f"file /dev/shm/{queue}")
    Path("/dev/shm", queue).write_text(token)
    status = secret.stat()
    return {
        "token": token,
        "victim": f"victim-{token}",
        "pids": str(victim.pid),
        "victim handle": _handle(os.pidfd_open(victim.pid)),
        "namespace handle": _handle(os.open("/proc/self/ns/mnt", os.O_RDONLY)),
        "init": "1",
        "secret": str(secret),
        "secret inode": str(status.st_ino),
        "secret device": str(status.st_dev),
        "socket": str(journal.directory / _SOCKET),
        "abstract": f"host-{token}",
        "sibling": f"sibling-{token}",
        "sibling key": str(number + 1),
        "sibling address": "",
        "sibling port": str(port),
        "queue": queue,
        "ipc key": str(number),
        "loopback": "127.0.0.1",
        "loopback6": "::1" if any(made.family == socket.AF_INET6 for made in listeners) else "",
        "other address": other,
        "port": str(port),
        **_key(token),
    }


def start_victim(mark: str, token: str, stdin: int) -> subprocess.Popen[str]:
    """A process to be found, by its command line or its environment, with the secret file open."""
    argv = [PYTHON, "-IS", "-c", _VICTIM, mark, str(os.getpid())]
    made = subprocess.Popen(
        argv, stdin=stdin, stdout=subprocess.PIPE, env={"SECRET": token}, text=True, start_new_session=True
    )
    assert made.stdout is not None
    made.stdout.readline()
    return made


def _handle(fd: int) -> str:
    """The file handle of what a descriptor leads to, its type and its content; "" if there is none. Closes it."""
    memory = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    try:
        call("name_to_handle_at", fd, b"", memory, ctypes.create_string_buffer(8), 0x1000)  # AT_EMPTY_PATH
    except OSError:
        return ""
    finally:
        os.close(fd)
    size, kind = struct.unpack_from("=Ii", memory.raw)
    return f"{kind} {memory.raw[8 : 8 + size].hex()}"


def _listen(addresses: list[str]) -> tuple[int, list[socket.socket]]:
    """Listeners at one port of those addresses that there are; nobody accepts."""
    port, made = 0, []
    for address in filter(None, addresses):
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            one.bind((address, port))
        except OSError:
            one.close()
            continue
        one.listen(8)
        port = one.getsockname()[1]
        made.append(one)
        datagrams = socket.socket(one.family, socket.SOCK_DGRAM)
        made.append(datagrams)
        try:
            datagrams.bind((address, port))
        except OSError:
            pass  # it is somebody else's
    return port, made


def _abstract(name: str) -> Iterator[socket.socket]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(f"\0{name}-{int(kind)}")
        if kind == socket.SOCK_STREAM:
            made.listen(8)
        yield made


def _key(token: str) -> dict[str, str]:
    """A key in a session keyring of this process's own, with which it ends."""
    call("keyctl", 1, None)
    key = call("add_key", b"user", f"key-{token}".encode(), b"secret", 6, -3)
    call("keyctl", 5, key, 0x3F3F0000)
    return {"key": str(key), "key name": f"key-{token}"}


def other_address() -> str:
    """An IPv4 address of the host's that is no loopback and no jail's; "" if there is none."""
    jails = " ".join(record.params.get("ip4.addr", "") for record in registry.records())
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return ""
    for above, line in pairwise(lines):
        if line.split() == ["/32", "host", "LOCAL"]:
            address = above.split()[-1]
            if not address.startswith("127.") and address not in jails:
                return address
    return ""


def _known(root: str) -> dict[str, str]:
    """What the host knows of itself. None of it goes inside but what ``TOLD`` names."""
    above = os.path.dirname(root.rstrip("/")) or "/"
    disk = os.stat(root).st_dev
    stat = {line.split()[0]: line.split()[1] for line in Path("/proc/stat").read_text().splitlines()}
    mountinfo = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")  # a place may be called \r
    mounted = [line.split(" - ") for line in mountinfo.split("\n")[:-1]]
    device = f"{os.major(disk)}:{os.minor(disk)}"
    sources = [after.split()[1] for before, after in mounted if before.split()[2] == device]
    others = [before.split()[4] for before, after in mounted if after.split()[1].startswith("/dev/")]
    others = [where for where in others if root == "/" or not f"{where}/".startswith(f"{root}/")]
    own = [line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {
        "core": {"|": "handler", "@": "socket"}.get(Path("/proc/sys/kernel/core_pattern").read_text()[:1], "file"),
        "file systems": " ".join(line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()),
        "modules": "yes" if _has_modules() else "",
        "disk": str(disk),
        "disk name": next((source for source in sources if source.startswith("/dev/")), ""),
        "dev device": str(os.stat("/dev/null").st_dev),
        "pts device": str(os.stat("/dev/pts").st_dev) if os.path.isdir("/dev/pts") else "",
        "links": " ".join(f"{index}:{name}" for index, name in socket.if_nameindex() if name != "lo"),
        "hostname": os.uname().nodename,
        "root": "" if root == "/" else root,
        "cgroup": max(own, key=len) if len(max(own, key=len)) > 1 else "",
        "boot id": registry.boot_id(),
        "command line": Path("/proc/cmdline").read_text().strip(),
        "memory": Path("/proc/meminfo").read_text().split()[1],
        "blocks": " ".join(str(os.statvfs(where).f_blocks) for where in {above, *filter(os.path.exists, others)}),
        "started": stat["processes"],
        "running": str(sum(name.isdigit() for name in os.listdir("/proc"))),
        "btime": stat["btime"],
        "threads": Path("/proc/loadavg").read_text().split()[3].partition("/")[2],
        "uptime": Path("/proc/uptime").read_text().split()[0],
        "base": "",
        **{f"ns {name}": str(os.stat(f"/proc/self/ns/{name}").st_ino) for name in _NAMESPACES},
    }


def _has_modules() -> bool:
    """Whether this kernel would load one that is asked for."""
    try:
        return bool(Path("/proc/sys/kernel/modprobe").read_text().strip())
    except OSError:
        return False


# The facts that a container is told: what was made for it, and what anybody knows.
TOLD = frozenset(
    [
        *"token victim pids init secret socket abstract sibling queue loopback loopback6 port key core modules".split(),
        *(
            "victim handle",
            "namespace handle",
            "secret inode",
            "secret device",
            "sibling key",
            "sibling address",
            "sibling port",
        ),
        *("ipc key", "other address", "file systems", "disk"),
    ]
)

# What runs in another jail, made with sysv*=new: a process to be found, with sockets and IPC to be reached.
_SIBLING = """\
import ctypes, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
from jailng.audit.probe import call
kept = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(f"\\0{sys.argv[2]}-{int(kind)}")
    kept.append(made)
kept[0].listen()
key = int(sys.argv[3])
call("shmget", key, 4096, 0o1666), call("semget", key, 1, 0o1666), call("msgget", key, 0o1666)
call("mq_open", sys.argv[2].encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
open("/dev/shm/" + sys.argv[2], "w").close()
print("ready", flush=True)
sys.stdin.read()
"""
# Of a jail with the host's tree; "sibling" is what its own objects are called.
SIBLING_WORDS = ("path=/", "sysvmsg=new", "sysvsem=new", "sysvshm=new")


def sibling(facts: dict[str, str]) -> list[str]:
    """The command for another jail, which ends when its standard input does. It says "ready"."""
    source = str(Path(__file__).resolve().parents[2])
    return [PYTHON, "-ISB", "-c", _SIBLING, source, facts["sibling"], facts["sibling key"], facts["victim"]]
