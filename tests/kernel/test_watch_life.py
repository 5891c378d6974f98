"""The post for terminals in a jail's life: switched on and off, killed; jails in jails; what is to be seen inside."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import btf, ns, processid
from jailng.observe import event, ptys, shared
from tests.kernel import test_watch
from tests.kernel.conftest import Command, standing
from tests.kernel.terminals import PATIENCE, Observer, Screen, of, screen, shown
from tests.kernel.test_watch import watched

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
logs = test_watch.logs
# What the attacker looks at first, of the whole jail and of the process that holds its terminal.
_LOOK = r"""
cd /proc; for each in 1 $PPID $$; do
    for name in cgroup mountinfo limits fd fdinfo ns environ; do
        echo "== $each $name"; if [ -d $each/$name ]; then ls $each/$name; else cat $each/$name 2>&1; fi
    done
    grep -E 'TracerPid|Seccomp|NoNewPrivs|Cap|Threads|NSpid' $each/status
    for fd in 0 1 2; do cat $each/fdinfo/$fd; readlink $each/fd/$fd; done
done
echo "== files"
for name in 1/wchan mounts modules locks filesystems net/unix net/packet keys cmdline; do cat $name 2>&1; done
wc -l kallsyms; ls /proc | grep -v '[0-9]'; ls /dev /dev/pts /run /tmp /sys 2>&1; dmesg 2>&1 | tail -3
ps -o comm; tty; stty -a
"""


@contextmanager
def sitting(checkout: Path, name: str = "cell") -> Iterator[Screen]:
    """A shell on a terminal of a jail, from which no escape sequences come."""
    with screen(str(checkout / "bin/jexec"), name, "sh", "-c", 'while read -r line; do eval "$line"; done') as shell:
        yield shell


def test_nothing_inside_tells(small_root: Path, jail: Command, checkout: Path) -> None:
    (small_root / "look").write_text(_LOOK)
    with standing(jail, small_root), sitting(checkout) as shell:
        seen = []
        for parameter in ("ng.watch=", "ng.watch=tty", "ng.watch="):
            assert jail("-m", "name=cell", parameter).returncode == 0
            shell.type("exec 3>&1; sh /look; exec 3>&-; echo 'o''ver'\n")
            seen.append(shell.until("\r\nover\r\n"))
            if parameter == "ng.watch=tty":
                record = registry.find("cell")
                assert record is not None and processid.is_alive(record.posts["tty"])
        lines = [[re.sub(rb"\b[0-9]{1,5}\b", b"N", line) for line in one.split(b"\r\n")] for one in seen]
        lines = [one[one.index(b"== N cgroup") :] for one in lines]
        assert len(lines[0]) > 100
        assert lines[0] == lines[1] == lines[2]


def test_switched_on_while_somebody_types(small_root: Path, jail: Command, checkout: Path) -> None:
    with standing(jail, small_root), sitting(checkout) as shell:
        shell.type("echo be''fore\n")
        shell.until("before\r\n")
        assert jail("-m", "name=cell", "ng.watch=tty").returncode == 0
        observer = Observer("cell")
        shell.type("echo af''ter\n")
        shell.until("after\r\n")
        events = observer.until(lambda events: b"after\r\n" in shown(events))
        assert b"before" not in shown(events)
        assert jail("-m", "name=cell", "ng.watch=").returncode == 0
        shell.type("echo at''last\n")
        shell.until("atlast\r\n")
        observer.until(lambda events: b"atlast\r\n" in shown(events))  # who watches goes on
        observer.close()


def _keys(name: str) -> set[int]:
    """Those of a map of the program's."""
    found = shared.attached()
    keys = {int.from_bytes(key, "little") for key in found.maps[name].keys()}  # noqa: SIM118
    for fd in [*found.links, *[one.fd for one in found.maps.values()]]:
        os.close(fd)
    return keys


def _worker() -> int:
    record = registry.find("cell")
    assert record is not None
    supervisor = int(record.posts["tty"].split()[0])
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text())


def test_only_processes_of_the_hosts_are_followed(small_root: Path, jail: Command, checkout: Path) -> None:
    """There is room for so many on the whole machine, which a jail does not take up by opening ptys before that."""
    with standing(jail, small_root), sitting(checkout) as shell:
        shell.type("exec 5<>/dev/ptmx; ls /dev/pts; echo op''en\n")
        assert b"1" in shell.until("open\r\n").split()
        assert jail("-m", "name=cell", "ng.watch=tty").returncode == 0
        assert _keys("pids") == {shell.pid}


def test_a_worker_that_is_killed(small_root: Path, jail: Command, checkout: Path) -> None:
    """What happens until there is another is in the ring."""
    with watched(jail, f"path={small_root}") as observer, sitting(checkout) as shell:
        shell.type("echo o''ne\n")
        shell.until("one\r\n")
        observer.until(lambda events: b"one\r\n" in shown(events))
        worker = _worker()
        os.kill(worker, signal.SIGKILL)
        shell.type("echo t''wo\n")
        shell.until("two\r\n")
        observer.close()
        again = Observer("cell")
        shell.type("echo th''ree\n")
        shell.until("three\r\n")
        again.until(lambda events: b"three\r\n" in shown(events))
        again.close()
        assert _worker() != worker
        files = list(Path("/var/log/jailng/cell").glob("**/*.cast"))
        assert len(files) == 1
        kept = files[0].read_text()
        assert all(f"{word}\\r\\n" in kept for word in ("one", "two")) and "gap" in kept


def test_one_that_is_about_to_leave_when_it_is_wanted(small_root: Path, jail: Command, checkout: Path) -> None:
    with standing(jail, small_root):
        observer = Observer("cell")
        record = registry.find("cell")
        assert record is not None
        supervisor = int(record.posts["tty"].split()[0])
        worker = int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text())
        os.kill(supervisor, signal.SIGSTOP)
        try:
            pidfd = os.pidfd_open(worker)
            observer.close()
            assert ns.ends_within(pidfd, PATIENCE)
            os.close(pidfd)
            later = threading.Timer(0.5, os.kill, (supervisor, signal.SIGCONT))
            later.start()
            changed = jail("-m", "name=cell", "ng.watch=tty")
            later.join()
        finally:
            with suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGCONT)
        assert (changed.returncode, changed.stderr) == (0, "")
        record = registry.find("cell")
        assert record is not None and not record.posts["tty"].startswith(f"{supervisor} ")
        assert processid.is_alive(record.posts["tty"])


def test_jails_in_jails(small_root: Path, jail: Command, checkout: Path) -> None:
    """What is not watched itself is its watched outer jail's."""
    (small_root / "inner").mkdir()
    with watched(jail, f"path={small_root}", "children.max=1") as observer:
        made = jail("-c", "name=cell.inner", "persist", f"path={small_root}")
        assert made.returncode == 0, made.stderr
        with sitting(checkout, "cell.inner") as shell:
            shell.type("echo in''side\n")
            shell.until("inside\r\n")
            observer.until(lambda events: b"inside\r\n" in shown(events))
            with screen(str(checkout / "bin/jailctl"), "watch", "-t", "cell.inner", "0") as watch:
                watch.until("Logging Started.")
                shell.type("echo a''gain\n")
                shell.until("again\r\n")
                watch.until("again\r\n")
        events = observer.until_ended()
        assert len(of(events, event.START)) == 1


def test_a_jail_that_is_made_in_one_that_is_watched_is_watched_from_the_start(
    small_root: Path, jail: Command, checkout: Path
) -> None:
    """However late its post comes by: the host's jexec(8) may open a terminal there at once."""
    with watched(jail, f"path={small_root}", "children.max=1") as observer:
        worker = _worker()
        os.kill(worker, signal.SIGSTOP)
        later = threading.Timer(0.5, os.kill, (worker, signal.SIGCONT))
        later.start()
        try:
            made = jail("-c", "name=cell.inner", "persist", f"path={small_root}")
            claimed = _keys("devs")
        finally:
            later.join()
        assert made.returncode == 0, made.stderr
        record = registry.find("cell.inner")
        assert record is not None and shared.kernel_device(ptys.present(record.init_pid)[0]) in claimed
        with sitting(checkout, "cell.inner") as shell:
            shell.type("echo in''side\n")
            observer.until(lambda events: b"inside\r\n" in shown(events))


def test_jails_that_are_in_one_already_when_it_is_watched(small_root: Path, jail: Command, checkout: Path) -> None:
    with standing(jail, small_root, "children.max=1"):
        made = jail("-c", "name=cell.inner", "persist", f"path={small_root}")
        assert made.returncode == 0, made.stderr
        with sitting(checkout, "cell.inner") as before:
            assert jail("-m", "name=cell", "ng.watch=tty").returncode == 0
            observer = Observer("cell")
            with sitting(checkout, "cell.inner") as after:
                for number, shell in enumerate((before, after)):
                    shell.type("echo in''side\n")
                    observer.until(lambda events, number=number: b"inside\r\n" in shown(events, number))  # type: ignore[misc]
            os.kill(_worker(), signal.SIGKILL)
            before.type("echo a''gain\n")
            before.until("again\r\n")
            observer.close()
            observer = Observer("cell")
            before.type("echo la''ter\n")
            observer.until(lambda events: b"later\r\n" in shown(events))
            observer.close()
        files = list(Path("/var/log/jailng/cell").glob("**/*.cast"))
        assert len(files) == 2
        assert sum("again" in file.read_text() for file in files) == 1


def test_of_jails_that_have_ended_nothing_is_kept(small_root: Path, jail: Command, checkout: Path) -> None:
    """Who makes jails in his own, one after the other, would take the room that there is for all jails' terminals."""
    with watched(jail, f"path={small_root}", "children.max=1") as observer:
        worker = _worker()
        claimed, opened = _keys("devs"), len(os.listdir(f"/proc/{worker}/fd"))
        for number in range(3):
            made = jail("-c", "name=cell.inner", "persist", f"path={small_root}")
            assert made.returncode == 0, made.stderr
            with sitting(checkout, "cell.inner") as shell:
                shell.type(f"echo in''side{number}\n")
                observer.until(lambda events, word=b"inside%d\r\n" % number: word in shown(events))  # type: ignore[misc]
            assert jail("-r", "cell.inner").returncode == 0
        deadline = time.monotonic() + PATIENCE
        while _keys("devs") != claimed or len(os.listdir(f"/proc/{worker}/fd")) > opened:
            assert time.monotonic() < deadline, (_keys("devs"), claimed)
            time.sleep(0.1)


def test_what_a_post_that_was_killed_has_left_goes_with_the_next(small_root: Path, jail: Command) -> None:
    with watched(jail, f"path={small_root}"):  # as long as one is there the kernel has all that was given to it
        claimed, rings = _keys("devs"), _keys("rings")
        made = jail("-c", "name=killed", "persist", f"path={small_root}", "ng.watch=tty")
        assert made.returncode == 0, made.stderr
        record = registry.find("killed")
        assert record is not None
        supervisor = os.pidfd_open(int(record.posts["tty"].split()[0]))
        signal.pidfd_send_signal(supervisor, signal.SIGKILL)
        assert ns.ends_within(supervisor, PATIENCE)
        os.close(supervisor)
        assert jail("-r", "killed").returncode == 0
        assert (_keys("devs"), _keys("rings")) == (claimed, rings)
        assert not Path(f"/run/jailng/posts/{record.jid}.tty").exists()


def test_a_jail_that_is_not_watched_itself_any_more(small_root: Path, jail: Command, checkout: Path) -> None:
    with watched(jail, f"path={small_root}", "children.max=1") as observer:
        made = jail("-c", "name=cell.inner", "persist", f"path={small_root}", "ng.watch=tty")
        assert made.returncode == 0, made.stderr
        record = registry.find("cell.inner")
        assert record is not None
        assert jail("-m", "name=cell.inner", "ng.watch=").returncode == 0
        assert processid.ends(record.posts["tty"], PATIENCE)
        with sitting(checkout, "cell.inner") as shell:
            shell.type("echo in''side\n")
            observer.until(lambda events: b"inside\r\n" in shown(events))
