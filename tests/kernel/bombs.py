"""Bombs: what root inside does to have all that there is of something, one program a thing. They run in a jail alone.

Each writes a line when there is no more to be had, with what it was told, or else when it has had much; and goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

_BEGIN = """
import os, sys, errno, time, signal, ctypes, socket, resource
libc = ctypes.CDLL(None, use_errno=True)
disk = os.statvfs("/tmp")
assert disk.f_blocks * disk.f_frsize < 1 << 30, "this is no disk to be filled"
said = False
def full(what="much"):
    global said
    if isinstance(what, OSError): what = errno.errorcode[what.errno]
    if not said: print(what, flush=True)
    said = True
def call(*arguments):
    found = libc.syscall(*[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    if found < 0: raise OSError(ctypes.get_errno(), "")
    return found
def hoard(get, pause=0.01):
    kept = []
    while True:
        try: kept.append(get())
        except OSError as error: full(error); time.sleep(pause)
def killed(work):
    "Have children do it that may be killed for it."
    while True:
        pid = os.fork()
        if pid == 0:
            open("/proc/self/oom_score_adj", "w").write("1000")  # before this one, and before who has entered
            try: work()
            except (OSError, MemoryError): time.sleep(0.1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        full("killed" if os.WIFSIGNALED(status) else "refused")
def many(work, count=8):
    "So many do it at once, of which this one speaks."
    for _ in range(count):
        try:
            if os.fork() == 0:
                global said
                said = True
                break
        except OSError: break
    work()
"""
_PAGE = "b'x' * 65536"
BOMBS = {
    "fork": """
while True:
    try: os.fork()
    except OSError as error: full(error)
""",
    "thread": """
import _thread
def wait():
    while True: time.sleep(100)
_thread.stack_size(65536)
while True:
    try: _thread.start_new_thread(wait, ())
    except RuntimeError: full("EAGAIN"); time.sleep(0.01)
""",
    "cpu": """
full()
def spin():
    while True: pass
many(spin, 50)
""",
    "memory": """
def take():
    kept = []
    while True: kept.append(bytearray(b"x") * (1 << 20))
killed(take)
""",
    "memfd": f"""
def take():
    kept = []
    while True:
        kept.append(os.memfd_create("x"))
        for _ in range(64): os.write(kept[-1], {_PAGE})
killed(take)
""",
    "shm": """
libc.shmat.restype = ctypes.c_void_p
def take():
    while True:
        one = libc.shmget(0, 4 << 20, 0o1600)  # IPC_PRIVATE
        if one < 0: raise OSError(ctypes.get_errno(), "")
        at = libc.shmat(one, None, 0)
        ctypes.memset(at, 1, 4 << 20)
        libc.shmdt(ctypes.c_void_p(at))
killed(take)
""",
    "tmpfs": f"""
def take():
    number = 0
    while True:
        number += 1
        for top in ("/dev/shm", "/dev"):
            try:
                with open(f"{{top}}/x{{os.getpid()}}-{{number}}", "wb", 0) as one:
                    for _ in range(64): one.write({_PAGE})
            except OSError as error:
                if top == "/dev/shm" and error.errno == errno.ENOSPC: raise
killed(take)
""",
    "fd": """
many(lambda: hoard(lambda: os.open("/dev/null", os.O_RDONLY)), 5)
""",
    "pipe": """
def one():
    ends = os.pipe2(os.O_NONBLOCK)
    try:
        while True: os.write(ends[1], bytes(65536))
    except BlockingIOError: return ends
def take():
    kept = []
    while True: kept.append(one())
killed(take)
""",
    "socket": """
def one():
    ends = socket.socketpair()
    ends[0].setblocking(False)
    try:
        while True: ends[0].send(bytes(65536))
    except BlockingIOError: return ends
def take():
    kept = []
    while True: kept.append(one())
killed(take)
""",
    "inotify": """
def one():
    fd = libc.inotify_init1(0)
    if fd < 0: raise OSError(ctypes.get_errno(), "")
    return fd
hoard(one)
""",
    "watch": """
fd = libc.inotify_init1(0)
number = 0
def one():
    global number
    number += 1
    path = f"/tmp/watch{number}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    if libc.inotify_add_watch(fd, path.encode(), 0xfff) < 0: raise OSError(ctypes.get_errno(), "")
hoard(one)
""",
    "epoll": """
import select
null = os.pipe()[0]
def one():
    found = select.epoll()
    found.register(null)
    return found
many(lambda: hoard(one), 5)
""",
    "timer": """
one = ctypes.create_string_buffer(8)
hoard(lambda: call(222, 1, None, one))
""",
    "timerfd": """
def one():
    fd = call(283, 1, 0)
    call(286, fd, 0, (ctypes.c_long * 4)(0, 1000000, 0, 1000000), None)
    return fd
many(lambda: hoard(one), 5)
""",
    "key": """
def one():
    global number
    number += 1
    return call(248, b"user", f"key{number}".encode(), bytes(1000), 1000, -3)
number = 0
hoard(one)
""",
    "pty": """
hoard(lambda: os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
""",
    "signal": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
hoard(lambda: call(129, os.getpid(), int(signal.SIGRTMIN), bytes([0] * 8 + [0xff] * 4 + [0] * 116)))
""",
    "negative": """
number = 0
def look():
    global number
    while True:
        number += 1
        try: os.stat(f"/tmp/{os.getpid()}-{number}")
        except OSError: pass
        if number == 20000: full()
many(look, 4)
""",
    "disk": """
number = 0
def one():
    global number
    number += 1
    with open(f"/tmp/disk{number}", "wb", 0) as file:
        while True: file.write(bytes(1 << 20))
hoard(one)
""",
    "inode": """
number = 0
def one():
    global number
    number += 1
    os.close(os.open(f"/tmp/inode{number}", os.O_CREAT | os.O_WRONLY))
hoard(one)
""",
    "sparse": """
number = 0
def one():
    global number
    number += 1
    fd = os.open(f"/tmp/sparse{number}", os.O_CREAT | os.O_RDWR)
    os.truncate(fd, 1 << 40)
    os.posix_fallocate(fd, 1 << 30, 1 << 30)
hoard(one)
""",
    "directory": """
def deep():
    os.chdir("/tmp")
    while True:
        try:
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        except OSError as error: full(error); time.sleep(0.01)
deep()
""",
}
LIMITS = "memoryuse:deny=96M,maxproc:deny=100,openfiles:deny=2000"


def program(name: str) -> str:
    """What Python has to run."""
    return _BEGIN + BOMBS[name]


def root(top: Path) -> Path:
    """A root for jails that has the host's programs, and else nothing but what it is given; nobody else gets to it."""
    top.mkdir(mode=0o700)
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (top / name).symlink_to(f"usr/{name}")
    for name in ("usr", "dev", "proc", "etc", "tmp", "run", "var"):
        (top / name).mkdir()
    return top


def words(top: Path) -> list[str]:
    """Parameters of a jail with such a root."""
    return [f"path={top}", f"mount=/usr {top}/usr nullfs ro", "ng.quota=image:64M", "sysvshm=new"]
