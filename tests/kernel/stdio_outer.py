"""The host's side of a command with streams and terminal as in a jail, but without the jail: a program for the tests.

``stdio_outer.py [--root PID] [--base UID] [--user UID] [--fds 0,1,2] [--hand-over] [--unattended]
[--moment SECONDS] COMMAND...`` runs a command as jexec(8) does.
``stdio_outer.py --hold ROOT [without-devpts|false-devpts|used-up|false-null]`` makes a root with a /dev, says so, and
lives until its input ends.
``stdio_outer.py --shell FD COMMAND...`` leads a session whose terminal is its input and has the command for a job. It
takes orders from the socket FD (``start`` the job, ``start-front``: in the foreground; ``front``; ``front-continue``;
``kill-15``) and tells the raw wait status whenever the job has stopped or ended.
"""

from __future__ import annotations

import argparse
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

from jailng.core import jailinit, process, program, relay, stdio, waiting
from jailng.core.passwd import User
from jailng.core.program import Program
from jailng.errors import JailError
from jailng.linux import libc, mount, mountfd, ns


def start(
    streams: stdio.Streams, argv: list[str], tree: int = -1, ids: tuple[int, int] = (0, 0), alone: bool = False
) -> tuple[int, int]:
    """The command, as (pid, pidfd): a child of this process's, on its way by the program that enters jails, too.

    ``ids`` are those of the root and of the user; ``alone``: the end of this process is not the command's.
    """
    way = Program()
    way.fds += streams.descriptors()
    way.must("setsid")
    if tree >= 0:
        way.fds.append(tree)
        way.must("setns", tree, ns.CLONE_NEWNS)
    base, user = ids
    streams.install(way)
    if user:
        streams.give_to(way, User("alice", user, user, [], "/", "/bin/sh"))
    process.become(way, user or base, user or base, [])
    way.must("prctl", 1, 0 if alone else signal.SIGKILL, 0, 0, 0)
    way.execute(argv, dict(os.environ))
    running = program.start(way, jailinit.detached())
    pid = running._helper  # it forks no further
    if complaint := running.complaint():
        sys.exit(f"outer: {complaint}")
    return pid, ns.pidfd_open(pid)


def run(options: argparse.Namespace) -> None:
    """prepare, fork, install, exec; wait, finish."""
    root, tree = None, -1
    if options.root:
        root = os.open(f"/proc/{options.root}/root", os.O_PATH | os.O_DIRECTORY)
        tree = os.open(f"/proc/{options.root}/ns/mnt", os.O_RDONLY)
    if options.moment is not None:
        relay._MOMENT = options.moment
    fds = tuple(map(int, options.fds.split(",")))
    streams = stdio.prepare(root, options.base, (fds[0], fds[1], fds[2]), not options.unattended)
    pid, pidfd = start(streams, options.command, tree, (options.base, options.user), options.unattended)
    if options.unattended:
        streams.close()
        sys.exit(0)
    try:
        status = waiting.wait(pid, pidfd, streams, options.hand_over)
    except JailError as error:
        sys.exit(f"outer: {error}")
    waiting.finish(status)


def _move_mount(tree: int, directory: int, path: bytes = b"") -> None:
    flags = mount.MOVE_MOUNT_F_EMPTY_PATH | (0 if path else mount.MOVE_MOUNT_T_EMPTY_PATH)
    libc.syscall("move_mount", tree, b"", directory, path, flags)


def hold(root: str, *faults: str) -> None:
    """A mount namespace of which ``root``, with /dev, /dev/pts and /proc, is the root."""
    ns.unshare(ns.CLONE_NEWNS)
    mountfd.make_private()
    above = os.open(root, os.O_PATH | os.O_DIRECTORY)
    _move_mount(mountfd.open_tree(above), above)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    dev = mountfd.new_file_system(b"tmpfs", [(b"mode", b"755")])
    os.mkdir("pts", dir_fd=dev)
    for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("tty", 5, 0)):
        os.mknod(name, 0o20600, os.makedev(major, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    if "false-null" in faults:
        os.unlink("null", dir_fd=dev)
        os.close(os.open("null", os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=dev))
    _move_mount(dev, top, b"dev")
    if "false-devpts" in faults:
        os.symlink("/dev/zero", "pts/ptmx", dir_fd=dev)
    elif "without-devpts" not in faults:
        options = [(b"newinstance", None), (b"mode", b"620"), (b"ptmxmode", b"666"), (b"gid", b"5")]
        options += [(b"max", b"1")] if "used-up" in faults else []
        _move_mount(mountfd.new_file_system(b"devpts", options), dev, b"pts")
    _move_mount(mountfd.new_file_system(b"proc", []), top, b"proc")
    os.fchdir(top)
    libc.syscall("pivot_root", b".", b".")
    libc.syscall("umount2", b".", mount.MNT_DETACH)
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
        parser = argparse.ArgumentParser()
        parser.add_argument("--root")
        parser.add_argument("--fds", default="0,1,2")
        for name in ("base", "user"):
            parser.add_argument(f"--{name}", type=int, default=0)
        parser.add_argument("--moment", type=float)
        for name in ("hand-over", "unattended"):
            parser.add_argument(f"--{name}", action="store_true")
        parser.add_argument("command", nargs=argparse.REMAINDER)
        run(parser.parse_args(words))


if __name__ == "__main__":
    main(sys.argv[1:])
