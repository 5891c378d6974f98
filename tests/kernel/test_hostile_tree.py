"""The tree of a jail belongs to an enemy: what the host does with it neither hangs, nor follows, nor runs any of it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import Stage, mount, unmount

pytestmark = pytest.mark.usefixtures("modes")
_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _EXCHANGE = -100, 2


def _is_refused(made: subprocess.CompletedProcess[str]) -> bool:
    return made.returncode == 1 and made.stderr.startswith("jail: ") and made.stderr.count("\n") == 1


def test_a_root_of_another_user_is_refused(jail: Command, small_root: Path) -> None:
    """Whoever owns the directory above can enter it, whatever its mode says, and run what is set-uid inside."""
    above = small_root.parent / "home"
    above.mkdir(mode=0o700)
    root = small_root.rename(above / "root")
    os.chown(above, 1001, 1001)
    _open_up(small_root.parent)
    made = jail("-c", "name=x", f"path={root}", "command=/bin/true")
    assert _is_refused(made), made


def test_a_root_of_another_user_below_one_of_roots(jail: Command, small_root: Path) -> None:
    """It is enough that one directory on the way is root's alone."""
    above = small_root.parent / "home"
    above.mkdir(mode=0o755)
    root = small_root.rename(above / "root")
    os.chown(above, 1001, 1001)
    assert small_root.parent.stat().st_mode & 0o777 == 0o700
    made = jail("-c", "name=x", f"path={root}", "command=/bin/true")
    assert made.returncode == 0, made.stderr


def test_a_root_that_a_list_lets_another_user_reach_is_refused(jail: Command, small_root: Path) -> None:
    """An access control list shows in the mode as the group's bits: 0710 root root may let anybody in."""
    above = small_root.parent / "home"
    above.mkdir(mode=0o700)
    # acl(5) as in posix_acl_xattr.h: version 2; owner rwx, user 1001 x, group none, mask x, other none
    entries = ((1, 7, 0xFFFFFFFF), (2, 1, 1001), (4, 0, 0xFFFFFFFF), (0x10, 1, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    packed = b"".join(
        t.to_bytes(2, "little") + p.to_bytes(2, "little") + i.to_bytes(4, "little") for t, p, i in entries
    )
    try:
        os.setxattr(above, "system.posix_acl_access", (2).to_bytes(4, "little") + packed)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    root = small_root.rename(above / "root")
    _open_up(small_root.parent)
    made = jail("-c", "name=x", f"path={root}", "command=/bin/true")
    assert _is_refused(made), made


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A place that everybody reaches, to mount at."""
    mount("none", "/mnt", "tmpfs", 0, "mode=755")
    place = Path("/mnt/there")
    place.mkdir()
    yield place
    while os.path.ismount(place):
        unmount(place)
    unmount("/mnt")


@pytest.mark.parametrize("what", ["the root", "above it", "in it"])
def test_a_root_that_is_mounted_in_another_place_is_refused(
    jail: Command, jailctl: Command, small_root: Path, elsewhere: Path, what: str
) -> None:
    """Where others come in; mounted nosuid it gives them nothing. doctor names it."""
    source = {"the root": small_root, "above it": small_root.parent, "in it": small_root / "bin"}[what]
    if what == "above it":
        source.chmod(0o755)  # it is root's alone by what is above
    mount(str(source), elsewhere, None, 0x1000)
    door = elsewhere / "small" if what == "above it" else elsewhere
    made = jail("-c", "name=x", f"path={small_root}", "command=/bin/true")
    assert _is_refused(made) and f" can reach it at {door}, and a set-uid" in made.stderr, made
    assert made.stderr.endswith(f"umount {door} (or set ng.lenient)\n")
    made = jail("-c", "name=x", f"path={small_root}", "ng.lenient", "persist")
    assert made.returncode == 0, made.stderr
    told = jailctl("doctor", "roots")
    jail("-R", "x")
    assert told.returncode == 1 and f"x: other users of this host can reach {small_root} at {door}" in told.stdout
    mount("none", elsewhere, None, 0x1000 | 32 | 2)  # MS_BIND, MS_REMOUNT, MS_NOSUID
    made = jail("-c", "name=x", f"path={small_root}", "command=/bin/true")
    assert made.returncode == 0, made.stderr


def test_doctor_names_roots_that_are_reached(
    jail: Command, jailctl: Command, small_root: Path, etc: Path, elsewhere: Path
) -> None:
    (etc / "jail.conf").write_text(
        f'a {{ path = "{small_root}"; }} b {{ path = "{elsewhere}"; }} c {{ path = /none; }}'
    )
    told = jailctl("doctor", "roots")
    assert told.returncode == 1
    assert f"b: other users of this host can reach {elsewhere}: a set-uid" in told.stdout
    assert "a: other" not in told.stdout and "install -d -m 700 /jail && mv /mnt/there /jail/" in told.stdout


def test_doctor_knows_the_jails_that_have_a_file_of_their_own(jailctl: Command, etc: Path, elsewhere: Path) -> None:
    """service(8) starts them by that, whether /etc/jail.conf includes it or not."""
    (etc / "jail.conf.d").mkdir(exist_ok=True)
    files = [etc / "jail.a.conf", etc / "jail.conf.d/b.conf", etc / "jail.conf.d/c.conf"]
    for file in files[:2]:
        (elsewhere / file.name).mkdir()
        file.write_text(f'{file.name.split(".")[-2]} {{ path = "{elsewhere}/{file.name}"; }}')
    os.mkfifo(files[2])
    for including in ("", '.include "jail.conf.d/b.conf";'):
        (etc / "jail.conf").write_text(including)
        told = jailctl("doctor", "roots")
        assert told.returncode == 1
        assert f"a: other users of this host can reach {elsewhere}/jail.a.conf: " in told.stdout
        assert told.stdout.count(f"b: other users of this host can reach {elsewhere}/b.conf: ") == 1
        assert f"the roots of {files[2]} are not known: " in told.stdout
        assert f"jail -f {files[2]} -e , " in told.stdout


def _open_up(directory: Path) -> None:
    """Let everybody reach a directory of the test's; those above it stay shut when the test is over."""
    for path in (directory, *directory.parents):
        if path == Path("/tmp"):
            break
        if path.stat().st_uid == 0 and not path.stat().st_mode & 1:
            path.chmod(0o711)


@pytest.mark.parametrize("name", ["dev", "proc"])
@pytest.mark.parametrize("what", ["fifo", "socket", "device"])
def test_a_mount_point_that_is_no_directory(jail: Command, small_root: Path, name: str, what: str) -> None:
    point = small_root / name
    point.rmdir()
    if what == "fifo":
        os.mkfifo(point)
    elif what == "device":
        os.mknod(point, 0o020666, os.makedev(1, 3))
    else:
        os.mknod(point, 0o140666)
    made = jail("-c", "name=x", f"path={small_root}", "command=/bin/true", timeout=60)
    assert _is_refused(made), made


@pytest.mark.parametrize("name", ["dev", "proc", "dev/shm"])
def test_a_mount_point_that_changes_under_way(jail: Command, small_root: Path, tmp_path: Path, name: str) -> None:
    """Another root of the same tree exchanges a directory for a link to the host's, over and over."""
    outside = tmp_path / "outside"
    outside.mkdir()
    point = small_root / name
    point.mkdir(exist_ok=True)
    other = point.with_name("other")
    other.symlink_to(outside)
    stop = threading.Event()

    def exchange() -> None:
        names = os.fsencode(point), os.fsencode(other)
        while not stop.is_set():
            _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)

    before = os.stat(outside)
    thread = threading.Thread(target=exchange)
    thread.start()
    ends = set()
    try:
        for _ in range(15):
            made = jail("-c", "name=x", f"path={small_root}", "command=/bin/true", timeout=60)
            ends.add(made.returncode)
            assert "Traceback" not in made.stderr, made.stderr
            assert not list(outside.iterdir())
    finally:
        stop.set()
        thread.join()
    after = os.stat(outside)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
    assert ends <= {0, 1}


@pytest.fixture
def running(jail: Command, small_root: Path) -> Iterator[Path]:
    """The root of a running jail, ``x``."""
    made = jail("-c", "name=x", "persist", f"path={small_root}")
    assert made.returncode == 0, made.stderr
    yield small_root
    jail("-R", "x")


@pytest.mark.parametrize(
    "script",
    [
        "rm null; mkfifo null",
        "rm null; ln -s /etc/passwd null",
        "rm null; mkdir null",
        "rm *; true",
        "rm ptmx; ln -s /etc/passwd ptmx",
        "rm tty; mkfifo tty; rm stdin stdout stderr fd",
        "cd /; rm -rf tmp root run; ln -s /dev/null root",
        "chmod 000 . pts shm; true",
    ],
)
def test_entering_a_jail_whose_dev_is_spoilt(jexec: Command, running: Path, script: str) -> None:
    """The command runs as it can; the host neither waits nor opens what it was led to."""
    jexec("x", "/bin/sh", "-c", f"cd /dev; {script}")
    argv = [*jexec_of(jexec), "x", "/bin/echo", "in"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as entered:
        try:
            assert entered.communicate(timeout=60)[0] == "in\n"
        finally:
            entered.kill()


def jexec_of(jexec: Command) -> list[str]:
    """The command line that the fixture runs."""
    return list(jexec("-h").args[:1])


@pytest.mark.parametrize("cwd", ["/fifo", "/loop", "/missing", "/bin/sh", "/dark", "relative", "/" + "x" * 5000])
def test_a_directory_to_start_in_that_is_none(jexec: Command, running: Path, cwd: str) -> None:
    os.mkfifo(running / "fifo")
    (running / "loop").symlink_to("loop")
    (running / "dark").mkdir(mode=0)
    done = jexec("-d", cwd, "x", "/bin/true", timeout=60)
    if cwd == "/dark":  # root's privilege inside
        assert done.returncode == 0
    else:
        assert done.returncode == 1 and done.stderr.startswith(f"jexec: chdir: {cwd}: "), done.stderr


@pytest.mark.parametrize("what", ["fifo", "directory", "huge", "noise", "loop", "none"])
def test_a_shell_that_is_none(jexec: Command, running: Path, what: str) -> None:
    shell = running / "bin/shell"
    if what == "fifo":
        os.mkfifo(shell, 0o755)
    elif what == "directory":
        shell.mkdir()
    elif what == "huge":
        shell.touch(0o755)
        os.truncate(shell, 1 << 40)
    elif what == "noise":
        shell.write_bytes(b"#!" + os.urandom(4000))
        shell.chmod(0o755)
    elif what == "loop":
        shell.write_text("#!/bin/shell\n")
        shell.chmod(0o755)
    done = jexec("x", "/bin/shell", timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("jexec: execvp: /bin/shell: "), done.stderr


def test_a_hostile_jail_is_removed(jail: Command, jexec: Command, running: Path, stage: Stage) -> None:
    """Processes that fork without end, ignore signals or are stopped all end at once."""
    bomb = "trap '' TERM INT HUP; ulimit -u 200; while :; do ( while :; do sleep 1 & done ) & done"
    argv = [*jexec_of(jexec), "x", "/bin/sh", "-c", bomb]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as entered:
        members = next(stage.cgroup2.glob("jailng/*/members/cgroup.procs"))
        until = time.monotonic() + 20
        while len(members.read_text().split()) < 100 and time.monotonic() < until:
            time.sleep(0.01)
        for pid in members.read_text().split()[::2]:
            try:
                os.kill(int(pid), signal.SIGSTOP)
            except ProcessLookupError:
                continue
        done = jail("-R", "x", timeout=60)
        assert done.returncode == 0, done.stderr
        entered.wait(timeout=60)


def test_files_of_another_jail(jail: Command, jexec: Command, running: Path, tmp_path: Path) -> None:
    """Two roots side by side: neither tree is in the other, by whatever path."""
    shutil.copytree(running, tmp_path / "beside", symlinks=True)
    (tmp_path / "beside/secret").write_text("of the other jail")
    (running / "link").symlink_to(tmp_path / "beside/secret")
    assert jail("-c", "name=beside", "persist", f"path={tmp_path / 'beside'}").returncode == 0
    try:
        script = f"cat /link {tmp_path}/beside/secret /../beside/secret /proc/1/root/secret; cd /; cd ..; ls; exit 0"
        done = jexec("x", "/bin/sh", "-c", script)
        assert "of the other jail" not in done.stdout
        assert "secret" not in done.stdout.split()
    finally:
        assert jail("-R", "beside").returncode == 0
