"""The host's side of a command with streams and terminal as in a jail, but without the jail: a program for the tests.

``stdio_outer.py [--root PID] [--base UID] [--hand-over] COMMAND...`` runs a command as jexec(8) does.
``stdio_outer.py --hold ROOT [without-devpts|false-devpts|used-up|false-null]`` makes a root with a /dev, says so, and
lives until its input ends.
``stdio_outer.py --shell FD COMMAND...`` leads a session whose terminal is its input and has the command for a job. It
takes orders from the socket FD (``start`` the job, ``start-front``: in the foreground; ``front``; ``front-continue``;
``kill-15``) and tells the raw wait status whenever the job has stopped or ended.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import termios
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from jailng.core import stdio, waiting
from jailng.errors import JailError
from jailng.linux import caps, mount, ns


def run(root_of: str | None, base: int, hand_over: bool, argv: list[str]) -> None:
    """prepare, fork, install, exec; wait, finish."""
    root = None if root_of is None else os.open(f"/proc/{root_of}/root", os.O_PATH | os.O_DIRECTORY)
    tree = None if root_of is None else os.open(f"/proc/{root_of}/ns/mnt", os.O_RDONLY)
    streams = stdio.prepare(root, base)
    failed, fail = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = ns.clone3()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if tree is not None and root is not None:
                ns.setns(tree, ns.CLONE_NEWNS)
                os.fchdir(root)
                os.chroot(".")
            stdio.install(streams)
            if base:
                os.setgroups([])
                os.setresgid(base, base, base)
                os.setresuid(base, base, base)
            caps.die_with_parent(signal.SIGKILL)
            os.execvp(argv[0], argv)
        except BaseException as error:
            os.write(fail, repr(error).encode())
        finally:
            os._exit(127)
    os.close(fail)
    if complaint := os.read(failed, 4096).decode():
        sys.exit(f"outer: {complaint}")
    try:
        status = waiting.wait(pid, pidfd, streams, hand_over)
    except JailError as error:
        sys.exit(f"outer: {error}")
    waiting.finish(status)


def hold(root: str, *faults: str) -> None:
    """A mount namespace in which ``root`` has /dev, /dev/pts and /proc, and this process has it for its root."""
    ns.unshare(ns.CLONE_NEWNS)
    mount.make_private()
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    dev = mount.new_file_system(b"tmpfs", [(b"mode", b"755")])
    os.mkdir("pts", dir_fd=dev)
    for name, minor in (("null", 3), ("zero", 5)):
        os.mknod(name, 0o20600, os.makedev(1, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    os.mknod("tty", 0o20600, os.makedev(5, 0), dir_fd=dev)
    os.chmod("tty", 0o666, dir_fd=dev)
    if "false-null" in faults:
        os.unlink("null", dir_fd=dev)
        os.close(os.open("null", os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=dev))
    mount.move_mount(dev, top, b"dev")
    if "false-devpts" in faults:
        os.symlink("/dev/zero", "pts/ptmx", dir_fd=dev)
    elif "without-devpts" not in faults:
        options = [(b"newinstance", None), (b"mode", b"620"), (b"ptmxmode", b"666"), (b"gid", b"5")]
        options += [(b"max", b"1")] if "used-up" in faults else []
        mount.move_mount(mount.new_file_system(b"devpts", options), dev, b"pts")
    mount.move_mount(mount.new_file_system(b"proc", []), top, b"proc")
    os.fchdir(top)
    os.chroot(".")
    os.write(1, b"ready\n")
    os.read(0, 1)


def shell(fd: int, argv: list[str]) -> None:
    """A shell's job control, with the test at the other end of a socket in place of somebody who types."""
    for number in (signal.SIGTTOU, signal.SIGTSTP, signal.SIGTTIN):
        signal.signal(number, signal.SIG_IGN)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    test = socket.socket(fileno=fd)
    woken, wake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    go, start = os.pipe()
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        for number in (signal.SIGTTOU, signal.SIGTSTP, signal.SIGTTIN, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.read(go, 1)
        os.close(go)
        os.execvp(argv[0], argv)
    os.setpgid(job, job)
    while True:
        ready, _, _ = select.select([fd, woken], [], [])
        if woken in ready:
            os.read(woken, 100)
            found, status = os.waitpid(job, os.WUNTRACED | os.WNOHANG)
            if found:
                test.sendall(b"%d\n" % status)
        if fd in ready:
            for order in test.recv(100).decode().split() or sys.exit():
                if "front" in order:
                    os.tcsetpgrp(0, job)
                if order.startswith("start"):
                    os.write(start, b"x")
                if "continue" in order:
                    os.killpg(job, signal.SIGCONT)
                if order.startswith("kill-"):
                    os.kill(job, int(order.removeprefix("kill-")))


def main(words: list[str]) -> None:
    """Read the command line."""
    if words[0] == "--hold":
        hold(*words[1:])
    elif words[0] == "--shell":
        shell(int(words[1]), words[2:])
    else:
        root_of, base, hand_over = None, 0, False
        while words[0].startswith("--"):
            option = words.pop(0)
            if option == "--root":
                root_of = words.pop(0)
            elif option == "--base":
                base = int(words.pop(0))
            elif option == "--hand-over":
                hand_over = True
        run(root_of, base, hand_over, words)


if __name__ == "__main__":
    main(sys.argv[1:])
