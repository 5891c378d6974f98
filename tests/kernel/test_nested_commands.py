"""The commands in a jail whose root has none: no Python, and no C library either."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import processid
from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount

_COMMANDS = "/dev/.jailng/commands"


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.fixture
def top(small_root: Path, jail: Command) -> Iterator[Path]:
    """The root of a jail, which has another root in it."""
    (small_root / "usr/sbin").mkdir(parents=True)
    (small_root / "jails").mkdir(mode=0o700)
    roots.small(small_root / "jails/in")
    _ok(jail("-c", "name=top", f"path={small_root}", "children.max=3", "persist"))
    yield small_root
    _ok(jail("-r", "top"))


def test_three_deep(top: Path, jexec: Command, jls: Command) -> None:
    script = """
        PATH=/usr/sbin:/bin
        jail -c name=a path=/jails/in children.max=1 persist
        jexec a jail -c name=b path=/ exec.start="echo started" persist
        jls -n name path
        jexec a jls -n name path
        jexec a.b id -u
        jexec -le A=1 -e HOME=/tmp a.b sh -c 'echo $A $HOME'
        jail -r a
        jls
    """
    assert _ok(jexec("top", "sh", "-ec", script)).splitlines() == [
        "started",
        "name=a path=/jails/in",
        "name=a.b path=/jails/in",
        "name=b path=/",
        "0",
        "1 /tmp",
        "   JID  IP Address      Hostname                      Path",
    ]
    assert _ok(jls("name")) == "top\n"


def test_a_configuration(top: Path, jexec: Command) -> None:
    (top / "etc/jail.conf").write_text(
        '$root = "/jails"; one { path = "$root/in"; exec.start = "echo in $name"; persist; }\n'
    )
    assert _ok(jexec("top", "/usr/sbin/jail", "-c", "one")) == "one: created\nin one\n"
    assert _ok(jexec("top", "/usr/sbin/jail", "-rc", "one")) == "one: created\nin one\n"
    assert _ok(jexec("top", "/usr/sbin/jls", "--libxo", "json", "name")).count('"one"') == 1


def test_what_is_refused_there_is_told_of_as_on_the_host(top: Path, jexec: Command) -> None:
    script = """
        PATH=/usr/sbin:/bin
        exec 2>&1
        jail -c name=a path=/jails/in persist
        jail -c name=b path=/jails/in persist
        jail -vm jid=$(jls -j b jid) name=a 2>/dev/null | sed 's/jid=[0-9]*/jid=N/'
        jail -vm name=b path=/
        jail -vm name=b children.max=100 2>/dev/null | sed 's/jid=[0-9]*/jid=N/'
        jls -j +$(jls -j b jid) name
        jail -r a b
    """
    assert _ok(jexec("top", "sh", "-c", script)).splitlines() == [
        "jail_set(JAIL_UPDATE) jid=N name=a: File exists",
        "jail: path cannot be changed after creation",
        "jail_set(JAIL_UPDATE) jid=N name=b children.max=100: Operation not permitted",
        "b",
        "b: removed",
        "a: removed",
    ]


def test_nothing_can_be_changed_there(top: Path, jexec: Command) -> None:
    for command in (
        f"echo x > {_COMMANDS}/jail",
        f"rm {_COMMANDS}/jls",
        f"touch {_COMMANDS}/x",
        f"chmod 777 {_COMMANDS}",
    ):
        done = jexec("top", "sh", "-c", command)
        assert done.returncode != 0 and "Read-only file system" in done.stderr
    assert jexec("top", "umount", _COMMANDS).returncode != 0


def test_links_that_are_there_already_will_do(top: Path, jail: Command, jexec: Command) -> None:
    _ok(jail("-r", "top"))
    _ok(jail("-c", "name=top", f"path={top}", "children.max=3", "persist"))
    assert _ok(jexec("top", "/usr/sbin/jls", "name")) == ""
    assert sorted(path.name for path in (top / "usr/sbin").iterdir()) == ["jail", "jexec", "jls"]


def test_a_jail_of_its_own_stays(small_root: Path, jail: Command, jexec: Command) -> None:
    (small_root / "usr/sbin").mkdir(parents=True)
    own = small_root / "usr/sbin/jail"
    own.write_text("#!/bin/sh\necho mine\n")
    own.chmod(0o755)
    _ok(jail("-c", "name=own", f"path={small_root}", "children.max=1", "persist"))
    assert _ok(jexec("own", "jail")) == "mine\n"
    assert jexec("own", "ls", _COMMANDS).returncode != 0
    _ok(jail("-r", "own"))


def test_a_root_that_is_read_only(small_root: Path, jail: Command, jexec: Command) -> None:
    (small_root / "usr/sbin").mkdir(parents=True)
    mount(str(small_root), str(small_root), None, 0x1000)
    mount("none", str(small_root), None, 0x1000 | 0x20 | 0x1)  # MS_BIND | MS_REMOUNT | MS_RDONLY
    try:
        _ok(jail("-c", "name=ro", f"path={small_root}", "children.max=1", "persist"))
        assert _ok(jexec("ro", f"{_COMMANDS}/jls", "name")) == ""
        _ok(jail("-r", "ro"))
    finally:
        unmount(str(small_root))


def test_a_root_whose_directories_are_links(small_root: Path, jail: Command, jexec: Command, tmp_path: Path) -> None:
    """Nothing is made where such a link leads: that may be the host's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (small_root / "usr").mkdir(exist_ok=True)
    (small_root / "usr/sbin").symlink_to(outside)
    _ok(jail("-c", "name=links", f"path={small_root}", "children.max=1", "persist"))
    assert list(outside.iterdir()) == []
    assert _ok(jexec("links", "jls", "name")) == ""
    _ok(jail("-r", "links"))


def test_a_jail_that_may_have_none_has_no_commands(small_root: Path, jail: Command) -> None:
    done = jail("-c", f"path={small_root}", "command=ls", _COMMANDS)
    assert done.returncode == 1 and "No such file or directory" in done.stderr


def test_the_hosts_own_directories_get_no_links(small_root: Path, jail: Command) -> None:
    words = ("--plan", "-c", "children.max=1", "persist")
    assert "link jail, jls, jexec to" in jail(*words, f"path={small_root}").stdout
    done = jail(*words, "path=/")
    assert (done.returncode, "link jail" in done.stdout) == (0, False)


def test_the_broker_of_a_package_that_is_upgraded(
    small_root: Path, checkout: Path, tmp_path: Path, jail: Command, jexec: Command
) -> None:
    """What a call takes is loaded with it, and would not go with what the broker has loaded before."""
    place = tmp_path / "installed"
    for part in ("bin", "jailinit", "src"):
        # What others compile meanwhile has another name first.
        shutil.copytree(checkout / part, place / part, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))
    words = [str(place / "bin/jail"), "-c", "name=top", f"path={small_root}", "children.max=1", "persist"]
    made = subprocess.run(words, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    record = registry.find("top")
    assert record is not None
    create = f"{_COMMANDS}/jail -c name=a path=/ command=echo made"
    assert _ok(jexec("top", "sh", "-c", f"{_COMMANDS}/jls name")) == ""  # it has loaded what it begins with
    for module, text in (("boot", "below.born("), ("below", "def born(")):
        file = place / f"src/jailng/core/{module}.py"
        (file.parent / "new").write_text(file.read_text().replace(text, text.replace("born", "brought")))
        (file.parent / "new").rename(file)
    for part in ("core", "engine"):
        os.utime(place / "src/jailng" / part, (0, 0))  # it is not being unpacked any more; a checkout may be quite new
    assert _ok(jexec("top", "sh", "-c", create)) == "made\n"
    assert _ok(jexec("top", "sh", "-c", create)) == "made\n"
    again = registry.find("top")
    assert again is not None and again.broker == record.broker and processid.is_alive(record.broker)
    _ok(jail("-r", "top"))
