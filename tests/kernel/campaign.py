"""A fault at one system call after another of a command: what each leads to, and what it must not lead to."""

from __future__ import annotations

import difflib
import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import seccomp

from jailng.core import beside, own, registry
from tests.kernel.conftest import ENVIRONMENT
from tests.kernel.injector import KILL, SHORT, Call, Done, Injector
from tests.kernel.leftovers import differences, snapshot
from tests.kernel.stage import Stage

# In a normal check one call in so many, others each time; all of them, and all that may happen to each, for a release.
EVERY = int(os.environ.get("JAILNG_TEST_EVERY") or (1 if os.environ.get("JAILNG_TEST_THOROUGH") else 300))
_MOMENT = 60.0  # seconds
# What a call may plausibly fail with; another on other runs, all of them when there is time.
_NEW = ("ENOMEM", "ENOSYS")
_FD = ("EMFILE", "ENOMEM")
_ERRORS = {
    **dict.fromkeys(("open", "openat", "pipe2", "dup", "dup2", "dup3", "epoll_create1", "signalfd4", "fcntl"), _FD),
    **dict.fromkeys(("socket", "socketpair", "accept4", "memfd_create", "eventfd2", "inotify_init1"), _FD),
    **dict.fromkeys(("openat2", "pidfd_open"), ("EMFILE", "ENOMEM")),
    **dict.fromkeys(("open_tree", "fsopen", "fsmount"), ("EMFILE", "ENOSYS", "EPERM")),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), ("EAGAIN", "ENOMEM")),
    **dict.fromkeys(("execve", "execveat"), ("ENOMEM", "EACCES")),
    **dict.fromkeys(("mount", "umount2", "move_mount", "pivot_root", "fsconfig"), ("EPERM", "ENOMEM")),
    **dict.fromkeys(("mount_setattr", "statmount", "listmount", "close_range", "pidfd_send_signal"), ("EPERM", *_NEW)),
    **dict.fromkeys(("landlock_create_ruleset", "landlock_restrict_self"), ("EOPNOTSUPP", "ENOSYS")),
    **dict.fromkeys(("setns", "unshare"), ("EPERM", "ENOMEM", "ENOSPC")),
    **dict.fromkeys(("capset", "setresuid", "setresgid", "setgroups", "keyctl", "sethostname"), ("EPERM", "ENOMEM")),
    **dict.fromkeys(("read", "pread64", "getdents64", "sendfile", "copy_file_range"), ("EIO", "EINTR")),
    **dict.fromkeys(("write", "pwrite64", "ftruncate", "fallocate"), ("ENOSPC", "EIO", "EINTR")),
    **dict.fromkeys(("mkdir", "mkdirat", "mknodat", "symlinkat", "linkat", "renameat", "rename"), ("ENOSPC", "EROFS")),
    **dict.fromkeys(("rmdir", "unlink", "unlinkat"), ("EBUSY", "EPERM")),
    **dict.fromkeys(("poll", "ppoll", "epoll_wait", "epoll_pwait"), ("EINTR", "ENOMEM")),
    **dict.fromkeys(("wait4", "waitid", "rt_sigtimedwait"), ("EINTR",)),
    **dict.fromkeys(("sendto", "sendmsg"), ("ENOBUFS", "EPERM")),
    **dict.fromkeys(("recvfrom", "recvmsg"), ("ENOBUFS", "EINTR")),
    **dict.fromkeys(("mmap", "mremap", "brk", "mprotect", "munmap"), ("ENOMEM",)),
    **dict.fromkeys(("bind", "connect", "listen", "setsockopt", "getsockopt"), ("ENOBUFS", "EPERM")),
    **dict.fromkeys(("bpf", "seccomp"), ("EPERM", "ENOMEM")),
    **dict.fromkeys(("prctl", "prlimit64", "setpriority", "ioprio_set"), ("EPERM", "EINVAL")),
    **dict.fromkeys(("sched_setaffinity", "sched_setscheduler"), ("EPERM", "EINVAL")),
    **dict.fromkeys(("fchmod", "fchmodat", "fchown", "fchownat", "fsetxattr", "setxattr"), ("EPERM", "ENOSPC")),
    **dict.fromkeys(("flock", "fcntl"), ("EINTR", "ENOLCK")),
}  # fmt: skip
_USUAL = ("ENOMEM", "EACCES")
# Of those that never fail, or whose failure nobody can do anything about.
_LEFT_OUT = {
    "exit", "exit_group", "rt_sigreturn", "gettid", "getpid", "getuid", "geteuid", "getgid", "getegid", "umask",
    "futex", "rt_sigprocmask",
    "close",  # of no file of a network's
    "readlinkat",  # of a name in the enemy's tree, which may be anything
    "brk",  # which tells of it in a way of its own
    "set_robust_list", "rseq", "sched_yield", "restart_syscall", "setfsuid", "setfsgid",
}  # fmt: skip


def _name(number: int) -> str:
    found = seccomp.resolve_syscall(seccomp.Arch(), number)
    return found.decode() if isinstance(found, bytes) else str(found)


_OF_THE_REGISTRY = re.compile(r"write\(\w+, '(boot|undo|undone|init|created|up|param|broker|keeper|sockets|\d+\\t)")


def errors(call: Call) -> list[int]:
    """What it may fail with."""
    found = [getattr(errno, name) for name in _ERRORS.get(_name(call.number), _USUAL)]
    return [*found, SHORT] if _OF_THE_REGISTRY.match(call.text) else found


class Campaign:
    """A command with a fault each time; whatever is wrong then is noted, and told of at the end."""

    def __init__(self, stage: Stage, injector: Injector, checkout: Path) -> None:
        self.stage = stage
        self.injector = injector
        self.bin = checkout / "bin"
        self.wrong: list[str] = []
        self.tolerated: list[str] = []
        self.took: list[tuple[float, str]] = []  # seconds
        self.said: dict[str, list[str]] = {}
        self.before = snapshot(stage)
        self.how: dict[str, object] = {}  # of Injector.calls
        self.by: list[str] = []  # what executes a jail -r

    def again(self) -> None:
        """What there is now has been there before."""
        self.before = snapshot(self.stage)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command without a fault."""
        argv = self.argv(program, *arguments)
        null = subprocess.DEVNULL
        return subprocess.run(
            argv, stdin=null, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, errors="replace"
        )

    def argv(self, program: str, *arguments: str) -> list[str]:
        return [str(self.bin / program), *arguments]

    def points(self, *commands: Sequence[str]) -> list[Call]:
        """The calls of commands that run now, and must succeed, from the first on that concerns the registry."""
        done = self.injector.calls(*commands, **self.how)
        assert (done.status, done.hung) == (0, False), done.err or done.out
        begun = False
        found: list[Call] = []
        loading: set[str] = set()
        others: list[str] = []  # processes that have executed what is not ours
        posts: set[str] = set()  # that have executed Python: they load much, and what fails then is all the same
        modules: set[tuple[str, str]] = set()  # that such a process reads: itself and the descriptor
        for call in done.calls:
            begun = begun or "/run/jailng" in call.text
            name = _name(call.number)
            if call.process in posts and _loads(call, name, modules):
                continue
            if not begun or name in _LEFT_OUT or call.process.startswith(tuple(others)):
                continue
            if name == "execve" and call.result == 0 and not _OURS.search(call.text):
                others.append(call.process)
            if name == "execve" and "python3" in call.text:
                loading.add(call.process)  # until it comes to the registry it is any interpreter
                posts.add(call.process)
            if "/run/jailng" in call.text:
                loading.discard(call.process)
            if call.process in loading:
                continue
            if name == "newfstatat" and "/usr/lib/python3" in call.text:
                continue  # a module of the interpreter's own, which takes its directory for a package without code
            if name == "prctl" and "'init'" in call.text:
                continue  # its name
            if name == "rt_sigaction" and "." in call.process and call.nth > 3:
                continue  # jailinit sets all 64
            if name == "write" and call.text.startswith(("write(2,", "write(1,")):
                continue
            if name == "read" and [_read_of(one) for one in found[-2:]] == [_read_of(call)] * 2:
                continue  # of one large file
            found.append(call)
        if chosen := os.environ.get("JAILNG_TEST_FAULT"):  # of those that a report names
            return [call for call in found if re.search(chosen, str(call))]
        return found

    def faults(self, calls: Sequence[Call]) -> Iterator[tuple[Call, int]]:
        """In a normal check one of the things that can happen to a call, in turn."""
        chosen = calls if os.environ.get("JAILNG_TEST_FAULT") else calls[os.getpid() % EVERY :: EVERY]
        for index, call in enumerate(chosen):
            # The command itself is killed at each step by test_killed.py.
            found = [KILL, *errors(call)] if "." in call.process else errors(call)
            for fault in found if EVERY == 1 else [found[index % len(found)]]:
                began = time.monotonic()
                yield call, fault
                self.took.append((time.monotonic() - began, f"{call} <- {fault}"))

    # What is judged

    def note(self, what: object, text: str) -> None:
        self.wrong.append(f"{what}\n    {text.strip()}")

    def nothing_remains(self, what: object, wait: float = 20.0) -> None:
        """All that there is was there before."""
        found = "; ".join(differences(self.stage, self.before, wait))
        if found:
            self.note(what, f"remains: {found}")
            self.run("jail", "-R", "*")
            self.stage.clear(keep={int(line.split()[0]) for line in self.before["process"]})
            differences(self.stage, self.before, 1.0)
            for top in [h.mounted.target for h in self.stage.hierarchies]:
                for path, _, _ in os.walk(f"{top}/jailng", topdown=False):
                    if path not in self.before["cgroup"]:
                        with suppress(OSError):
                            os.rmdir(path)
            self.again()

    def judge(self, what: object, done: Done, program: str = "jail") -> bool:
        """Whether the command succeeded; and whether it said what it has to."""
        lines = done.err.splitlines() or (done.out.splitlines() if self.how.get("terminal") else [])
        if done.hung:
            self.note(what, f"hangs: {done.err}")
        if "Traceback" in done.err + done.out or "Error:" in done.err + done.out:
            self.note(what, done.err + done.out)
        elif done.status == 0:
            self.tolerated.append(f"{what}{' said ' + done.err.strip() if done.err else ''}")
            return True
        elif done.status != 1 or len(lines) != 1 or not lines[0].startswith(f"{program}: "):
            self.note(what, f"status {done.status}: {done.err}{' / ' + done.out if done.out else ''}")
        else:
            self.said.setdefault(lines[0], []).append(str(what))
        return False

    def expect(self, what: object, *arguments: str) -> bool:
        """The next command works."""
        done = self.run("jail", *arguments)
        if done.returncode or done.stderr:
            self.note(what, f"then jail {' '.join(arguments[:2])}: {done.returncode} {done.stderr}")
        return done.returncode == 0

    def is_there(self, name: str) -> bool:
        return self.run("jls", "-j", name, "jid").returncode == 0

    def in_place(self, name: str) -> None:
        """Wait until those beside the jail are where they stay."""
        record = registry.find(name)
        assert record is not None
        for identity in [one for one in (record.warden, *record.posts.values()) if one]:
            while f"/{beside.HOME}\n" not in Path(f"/proc/{identity.partition(' ')[0]}/cgroup").read_text():
                time.sleep(0.01)

    def facts(self, name: str) -> str:
        """What distinguishes the jail from a weaker one, as it sees it and as the host does."""
        if not self.is_there(name):
            return "no jail"
        done = self.run("jexec", name, "/bin/sh", "-c", _FACTS)
        found = done.stdout + done.stderr
        jid = self.run("jls", "-j", name, "jid").stdout.strip()
        for hierarchy in self.stage.hierarchies:
            top = Path(hierarchy.mounted.target)
            for path in sorted({*top.glob(f"jailng/**/{jid}/**/*"), *top.glob(f"jailng/{jid}/*")}):
                if path.name in _LIMITS or (path.is_dir() and path.name != "broker"):  # the leaf of those same
                    text = "" if path.is_dir() else path.read_text().strip()
                    found += f"{path}: {text}\n"
        now = snapshot(self.stage)
        for line in sorted(now["process"] - self.before["process"]):
            if line.endswith((" jailinit", " jail-sockets", " python3")):
                continue  # keeper and brokers, on which nothing depends but what is asked of them
            with suppress(OSError):
                status = Path(f"/proc/{line.split()[0]}/status").read_text().splitlines()
                found += " ".join([line.split()[1], *[word for word in status if _OF_STATUS.match(word)], "\n"])
        for what in ("address, route or rule", "firewall rule", "sysctl", "mount"):
            found += "".join([f"{line}\n" for line in sorted(now[what] - self.before[what])])
        return _NUMBERS.sub("N", found.replace(",uuid=on", ""))  # which the kernel finds out with the first one

    def _settled(self, name: str) -> str:
        """The facts, once they stay: with what others are compared must not be those of a moment."""
        facts, before = self.facts(name), ""
        while facts != before:
            time.sleep(0.5)
            facts, before = self.facts(name), facts
        return facts

    def same(self, what: object, name: str, *wanted: str) -> None:
        """The jail is one of these, or is in a moment: what its init has just forked may not have executed yet."""
        until = time.monotonic() + _MOMENT
        while (facts := self.facts(name)) not in wanted and time.monotonic() < until:
            time.sleep(0.2)
        if facts not in wanted:
            lines = difflib.unified_diff(wanted[0].splitlines(), facts.splitlines(), n=0, lineterm="")
            self.note(what, "another jail: " + "\n      ".join([line[:200] for line in lines][2:10]))

    def verdict(self) -> None:
        if where := os.environ.get("JAILNG_TEST_FAULTS"):  # a directory: all that was tried, for who wants to read it
            name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0]
            with open(f"{where}/{name}", "w", encoding="utf-8") as report:
                report.writelines([f"wrong: {line}\n" for line in self.wrong])
                report.writelines([f"took {took:.1f} s: {what}\n" for took, what in sorted(self.took)[-5:]])
                report.writelines([f"tolerated: {line}\n" for line in self.tolerated])
                report.writelines([f"said: {line} ({len(at)}x, {at[0]})\n" for line, at in self.said.items()])
        assert not self.wrong, "\n".join([f"{len(self.wrong)} faults:", *self.wrong])

    # The kinds of commands

    def creation(self, *create: str, name: str = "a") -> None:
        """Of jail -c: either there is the jail, and none that is less, or there is nothing."""
        self.again()
        command = self.argv("jail", *create)
        calls = self.points(command)
        reference = self._settled(name)
        self.run("jail", "-r", name)
        self.nothing_remains("at first")
        for call, fault in self.faults(calls):
            what = f"{call} <- {fault}"
            done = self.injector.inject(fault, call, command, **self.how)
            if not done.fired:
                pass
            elif self.judge(what, done):
                if fault == KILL and not self.is_there(name):
                    self.run("jail", "-r", name)  # it was PID 1, which the command had no more to wait for
                else:
                    self.same(what, name, reference)
            else:
                if done.status == 1:
                    self.nothing_remains(what)
                self.expect(what, *create)
            if self.is_there(name):
                self.expect(what, "-r", name)
            self.nothing_remains(what)
        self.verdict()

    def passing(self, program: str, *arguments: str) -> None:
        """Of a jail that ends with its command: nothing is there afterwards."""
        self.again()
        command = self.argv(program, *arguments)
        calls = self.points(command)
        self.nothing_remains("at first")
        for call, fault in self.faults(calls):
            what = f"{call} <- {fault}"
            done = self.injector.inject(fault, call, command, **self.how)
            if done.fired:
                self.judge(what, done)
                if done.status == 0 and done.out != "here\n":
                    self.note(what, f"wrote {done.out}")
                if _TOPMOST.search(call.text):
                    self.run(program, *arguments)  # with which a directory of all jails goes
                self.run("jls")  # the next command
                self.nothing_remains(what)
        self.verdict()

    def request(self, create: Sequence[str], inside: Sequence[str], name: str) -> None:
        """Of what the broker of a jail does when it is asked: the command inside has a jail or says why not."""
        self.again()
        outer, ask = self.argv("jail", *create), self.argv("jexec", "top", *inside)
        calls = self.points(outer, ask)
        self.run("jail", "-r", "top")
        self.nothing_remains("at first")
        brokers = tuple({call.process for call in calls if _name(call.number) == "accept4"})
        assert brokers
        # Before it listens it is a jail's creation that fails, and not what is asked for.
        begun = next(index for index, call in enumerate(calls) if _name(call.number) == "accept4")
        for call, fault in self.faults([call for call in calls[begun:] if call.process.startswith(brokers)]):
            what = f"{call} <- {fault}"
            done = self.injector.inject(fault, call, outer, ask)
            if done.fired:
                self.judge(what, done)
            if not self.is_there("top"):
                self.note(what, "the outer jail is gone")
            if not self.is_there(name):
                again = self.run("jexec", "top", *inside)
                if again.returncode or again.stderr:
                    self.note(what, f"then {inside[0]}: {again.returncode} {again.stderr}")
            self.expect(what, "-r", "top")
            self.nothing_remains(what)
        self.verdict()

    def removal(self, create: Sequence[str], *remove: str, name: str = "a") -> None:
        """Of jail -r: either it is gone, without a trace, or the next jail -r has it gone."""
        self.again()
        assert not self.run("jail", *create).returncode
        command = [*self.by, *self.argv("jail", *remove)]
        calls = self.points(command)
        self.nothing_remains("at first")
        for call, fault in self.faults(calls):
            what = f"{call} <- {fault}"
            assert not self.run("jail", *create).returncode
            done = self.injector.inject(fault, call, command, **self.how)
            if done.fired and self.judge(what, done) and self.is_there(name):
                self.note(what, "it is still there")
            if not self.is_there(name) or self.run("jail", "-r", name).returncode:  # else it was dying
                self.expect(what, *create)
                self.expect(what, "-r", name)
            self.nothing_remains(what)
        self.verdict()

    def modification(self, create: Sequence[str], *modify: str, name: str = "a") -> None:
        """Of jail -m: it is changed or not; the same again changes it."""
        self.again()
        assert not self.run("jail", *create).returncode
        before = self.facts(name)
        told = self.run("jexec", name, "/bin/cat", own.PATH).stdout.rstrip("\n")
        command = self.argv("jail", *modify)
        calls = self.points(command)
        after = self.facts(name)
        assert before != after
        self.run("jexec", name, "/bin/sh", "-c", f'echo "$1" >{own.PATH}', "sh", told)
        untold = self.facts(name)  # where the file could not be written, and that is said
        self.run("jail", "-r", name)
        self.nothing_remains("at first")
        for call, fault in self.faults(calls):
            what = f"{call} <- {fault}"
            assert not self.run("jail", *create).returncode
            done = self.injector.inject(fault, call, command, **self.how)
            if done.fired:
                wanted = (after,) if self.judge(what, done) and not done.err else (before, after, untold)
                self.same(what, name, *wanted)
            self.expect(what, *modify)
            self.same(what, name, after)
            self.expect(what, "-r", name)
            self.nothing_remains(what)
        self.verdict()

    def entry(self, create: Sequence[str], *enter: str, name: str = "a") -> None:
        """Of jexec: the command has run, or it is said why not; nobody else stays inside."""
        outside = snapshot(self.stage)
        assert not self.run("jail", *create).returncode
        self.in_place(name)
        self.again()
        command = self.argv("jexec", *enter)
        calls = self.points(command)
        for call, fault in self.faults(calls):
            what = f"{call} <- {fault}"
            done = self.injector.inject(fault, call, command, **self.how)
            if done.fired:
                # A terminal that cannot be read or written has gone.
                lost = self.how.get("terminal") and _name(call.number) in ("read", "write")
                if self.judge(what, done, "jexec") and done.out.split() != ["here"] and not lost:
                    self.note(what, f"wrote {done.out}")
                self.nothing_remains(what)
                again = self.run("jexec", *enter)
                if (again.returncode, again.stdout.split(), again.stderr) != (0, ["here"], ""):
                    self.note(what, f"then jexec: {again}")
        self.before = outside
        self.expect("at last", "-r", name)
        self.nothing_remains("at last")
        self.verdict()


def _read_of(call: Call) -> tuple[str, int, str, int | None]:
    return call.process, call.number, call.text.partition(",")[0], call.result


def _loads(call: Call, name: str, modules: set[tuple[str, str]]) -> bool:
    """Whether a module is looked for or read by this call."""
    if _MODULE.search(call.text):
        if name in ("open", "openat") and call.result is not None and call.result >= 0:
            modules.add((call.process, f"{call.result:#x}" if call.result > 9 else str(call.result)))
        return True
    descriptor = call.text.partition("(")[2].partition(",")[0].rstrip(")")
    if (call.process, descriptor) not in modules:
        return False
    if name == "close":
        modules.discard((call.process, descriptor))
    return True


_MODULE = re.compile(r"\.pyc?'|/python3|/__pycache__'|/jailng/\w+'|/src'|/dist-packages")
_OURS = re.compile(r"execve\('[^']*/(jailinit|jail|jexec|jls|python3[^/]*)'")
# One that failed may be another than that which was seen, since some are tried again.
_TOPMOST = re.compile(r"^unlinkat\(\w+, '/sys/fs/cgroup/\w+/jailng")
_OF_STATUS = re.compile(r"Uid|Gid|Groups|Cap|Seccomp|NoNewPrivs")
_LIMITS = {
    "pids.max", "memory.max", "memory.limit_in_bytes", "cpu.shares", "cpu.weight", "cpu.max", "cpu.cfs_quota_us",
    "devices.list", "cpuset.cpus", "io.weight", "memory.swap.max",
}  # fmt: skip
# Namespaces, pids, inodes and the numbers of interfaces differ each time.
_NUMBERS = re.compile(
    r"(?<=[:\[ ])\d{4,}(?=\]|$)|(?<=jailng-stage-)[\d-]+|\b\d+:\d+\b|/proc/self/fd/\d+|^\d+(?=: )", re.M
)
_FACTS = """cut -d' ' -f4- /proc/self/mountinfo; for p in self 1; do
grep -E '^(Uid|Gid|Groups|Cap|Seccomp|NoNewPrivs)' /proc/$p/status; done; cat /proc/self/limits /proc/self/cgroup
cat /proc/self/uid_map /proc/self/gid_map /proc/sys/user/max_user_namespaces
ls -la /dev /dev/.jailng /dev/pts | sed 's/ [A-Z][a-z][a-z] [ 0-9][0-9] [0-9:]* / /'; hostname; cat /dev/.jailng/self
ip addr | grep -v -E 'link/|noqueue' ; ip route
ls -l /proc/self/fd | sed 's/.*->//' | grep -v -E 'pipe|/proc|/dev/null'
"""
