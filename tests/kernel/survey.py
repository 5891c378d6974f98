"""What root looks at inside a jail: a program for its Python, which prints a JSON object of what it has found.

Names are what was looked at, values are lines. What it does itself is the same each time.
"""

import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
found: dict[str, list[str]] = {}
# The first three are not to be read; how much is used, and since when, differs from jail to jail.
SKIPPED = (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/sysrq-trigger",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/sys/kernel/random/uuid",
)
ITSELF = ("/proc/self", "/proc/1", "/proc/thread-self")


def lines(path: str) -> list[str]:
    try:
        with open(path, "rb", buffering=0) as file:
            os.set_blocking(file.fileno(), False)
            return (file.read(1 << 15) or b"").decode("utf-8", "backslashreplace").split("\n")
    except OSError as error:
        return [errno.errorcode[error.errno or 0]]


def look(path: str, depth: int) -> None:
    """A file or a directory and what is in it, as long as it is not another process."""
    try:
        status = os.lstat(path)
    except OSError as error:
        found["stat " + path] = [errno.errorcode[error.errno or 0]]
        return
    # The links of /proc are as many as the machine has processes, whoever starts them (proc_root_getattr()).
    links = 0 if path == "/proc" else status.st_nlink
    seen = [oct(status.st_mode), str(status.st_uid), str(status.st_gid), str(links), str(status.st_rdev)]
    found["stat " + path] = [" ".join(seen)]
    if stat.S_ISLNK(status.st_mode):
        try:
            found["link " + path] = [os.readlink(path)]
        except OSError as error:
            found["link " + path] = [errno.errorcode[error.errno or 0]]
    elif stat.S_ISREG(status.st_mode) and path not in SKIPPED:
        found["file " + path] = lines(path)
    elif stat.S_ISDIR(status.st_mode) and depth:
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            found["list " + path] = [errno.errorcode[error.errno or 0]]
            return
        shown = [name for name in names if not (path == "/proc" and name.isdigit())]
        found["list " + path] = shown
        for name in shown:
            if f"{path}/{name}" not in ITSELF:
                look(f"{path}/{name}", depth - 1)


def call(name: str, number: int, *arguments: int | bytes) -> None:
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    found["call " + name] = [errno.errorcode.get(ctypes.get_errno(), "0") if result < 0 else "done"]


def cookies() -> None:
    """How many numbers the kernel gives to sockets that nobody has asked about: SO_COOKIE."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def asked() -> int:
        with socket.socket() as one:
            return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 57, 8), sys.byteorder)

    steps = []
    for _ in range(5):
        before = asked()
        for _ in range(4):
            with socket.create_connection(listener.getsockname()):
                listener.accept()[0].close()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"x", ("127.0.0.1", 9))
        steps.append(asked() - before)
    found["cookies"] = [str(min(steps))]  # others on the same processor may have taken some


def listen() -> None:
    """Be a syslogd, with what that leaves of itself, and give whoever wants to take its place a moment for it."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if os.path.lexists("/dev/log"):
        os.unlink("/dev/log")
    log.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    own = os.stat("/dev/log").st_ino
    until = time.monotonic() + 1
    while time.monotonic() < until and os.path.exists("/dev/log") and os.stat("/dev/log").st_ino == own:
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.connect("/dev/log")
        other.send(b"<14>hello")
        found["syslog"] = [repr(log.recv(100)), str(other.getpeername())]
    found["log"] = [str(os.listdir("/dev")), str(log.getsockname())]
    kept.append(log)


kept: list[socket.socket] = []
listen()
for top, depth in (("/proc", 4), ("/dev", 6), ("/sys", 6), ("/run", 6), ("/tmp", 6), ("/var/log", 3), ("/etc", 1)):
    look(top, depth)
for process in ("/proc/1", "/proc/self"):
    look(process, 1)
    for name in ("fd", "ns", "fdinfo", "net", "attr"):
        look(f"{process}/{name}", 1)
look(os.path.dirname(sys.executable), 1)
for argv in (
    ["ps", "-eo", "pid,ppid,user,comm,args"], ["ss", "-anp"], ["ss", "-axnp"], ["ip", "-d", "address"], ["ip", "route"],
    ["ip", "neighbour"], ["ip", "-s", "link"], ["tc", "-s", "qdisc"], ["tc", "filter"], ["df"], ["mount"], ["dmesg"],
    ["env"], ["id"], ["prlimit"], ["who", "-a"], ["bpftool", "prog"], ["nft", "list", "ruleset"],
):  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, timeout=20)
        found["run " + " ".join(argv)] = (done.stdout + done.stderr).decode("utf-8", "backslashreplace").split("\n")
    except FileNotFoundError:
        found["run " + " ".join(argv)] = ["none"]
if os.uname().machine == "x86_64":
    for name, number, *arguments in (
        ("bpf", 321, 11, b"\0" * 128, 128), ("ptrace init", 101, 16, 1, 0, 0), ("perf", 298, b"\0" * 128, 0, -1, -1, 0),
        ("syslog", 103, 10, 0, 0), ("fanotify", 300, 0, 0), ("inotify", 294, 0), ("kcmp", 312, 1, 1, 0, 0, 0),
        ("add_key", 248, b"user\0", b"x\0", b"x", 1, -3), ("process_vm_readv", 310, 1, 0, 0, 0, 0, 0),
        ("memfd", 319, b"x\0", 0), ("userfaultfd", 323, 0), ("io_uring", 425, 1, b"\0" * 120),
        ("splice", 275, 0, 0, 1, 0, 0, 0),
        ("socket packet", 41, 17, 3, 0), ("socket audit", 41, 16, 3, 9), ("socket connector", 41, 16, 3, 11),
        ("socket diag", 41, 16, 3, 4), ("seccomp sizes", 317, 3, 0, b"\0" * 8), ("prctl seccomp", 157, 21, 0, 0, 0, 0),
        ("pidfd init", 434, 1, 0), ("quotactl", 179, 0, 0, 0, 0), ("acct", 163, 0), ("lookup_dcookie", 212, 0, 0, 0),
    ):  # fmt: skip
        call(name, number, *arguments)
cookies()
sys.stdout.write(json.dumps(found))
