"""What a jail may know of itself: the file in its /dev, of which root inside can make what it likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.conftest import Command

SELF = "/dev/.jailng/self"


@pytest.fixture(params=["private", "shared"])
def cell(request: pytest.FixtureRequest, jail: Command, small_root: Path) -> str:
    uids = f"ng.uids={request.param}"
    words = ["name=own", f"path={small_root}", "persist", uids, "env.a=1", "meta=secret", "host.hostname=inside"]
    made = jail("-c", *words)
    assert made.returncode == 0, made.stderr
    request.addfinalizer(lambda: jail("-r", "own"))
    return "own"


def test_it_is_there_and_everybody_can_read_it(cell: str, jexec: Command) -> None:
    done = jexec(cell, "/bin/cat", SELF)
    lines = done.stdout.splitlines()
    assert {"env=a=1", "host.hostname=inside", "allow.raw_sockets=false", "securelevel=-1"} <= set(lines)
    assert "secret" not in done.stdout
    done = jexec(cell, "/bin/stat", "-c", "%a %u %g %F", "/dev/.jailng", SELF)
    assert done.stdout == "755 0 0 directory\n644 0 0 regular file\n"


def test_a_change_is_seen_inside(cell: str, jail: Command, jexec: Command) -> None:
    for word in ("securelevel=1", "allow.raw_sockets", "env.b=2", "allow.noraw_sockets"):
        assert jail("-m", f"name={cell}", word).returncode == 0
    lines = jexec(cell, "/bin/cat", SELF).stdout.splitlines()
    assert {"securelevel=1", "allow.raw_sockets=false", "env=b=2\\na=1"} <= set(lines)
    assert (
        jexec(cell, "/bin/ls", "-an", "/dev/.jailng").stdout.splitlines()[-1].split()[:4] == "-rw-r--r-- 1 0 0".split()
    )
    assert jexec(cell, "/bin/ls", "-A", "/dev/.jailng").stdout in ("self\n", "broker\nself\n")


@pytest.mark.parametrize(
    ("trick", "seen"),
    [
        ("rm -r /dev/.jailng", ""),
        ("rm /dev/.jailng/self", ""),
        ("cd /dev/.jailng; rm self; mkfifo self", ""),
        ("cd /dev/.jailng; rm self; ln -s /victim self", "mine"),
        ("cd /dev; rm -r .jailng; mkdir /evil; echo mine >/evil/self; ln -s /evil .jailng", "mine"),
        ("cd /dev/.jailng; ln -s /victim new", ""),
        ("cd /dev/.jailng; mkdir new", ""),
        ("cd /dev/.jailng; mkfifo new", ""),
    ],
)
def test_nothing_that_root_inside_puts_there_is_written_to(
    cell: str, jail: Command, jexec: Command, small_root: Path, trick: str, seen: str
) -> None:
    assert jexec(cell, "/bin/sh", "-c", f"echo mine >/victim; {trick}").returncode == 0
    done = jail("-m", f"name={cell}", "securelevel=3", timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert (small_root / "victim").read_text() == "mine\n"
    if seen:
        assert jexec(cell, "/bin/cat", SELF).stdout == f"{seen}\n"
    assert jail("-r", cell).returncode == 0


def test_where_root_inside_has_filled_dev_it_is_said(cell: str, jail: Command, jexec: Command) -> None:
    assert jexec(cell, "/bin/sh", "-c", "cat /dev/zero >/dev/fill 2>/dev/null; ls /dev/fill").stdout == "/dev/fill\n"
    done = jail("-m", f"name={cell}", "securelevel=3")
    assert (done.returncode, done.stderr) == (0, f"jail: {SELF}: No space left on device\n")
    inside = jexec(cell, "/bin/sh", "-c", f"rm /dev/fill; ls -A /dev/.jailng; cat {SELF}").stdout
    assert inside.startswith("self\n") and "securelevel=-1\n" in inside
    done = jail("-m", f"name={cell}", "securelevel=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "securelevel=3\n" in jexec(cell, "/bin/cat", SELF).stdout


def test_a_jail_in_it_is_told_of_what_it_loses_with_it(jail: Command, jexec: Command, small_root: Path) -> None:
    for words in (("name=own", "children.max=1"), ("name=own.own",)):
        done = jail("-c", *words, f"path={small_root}", "persist", "allow.raw_sockets")
        assert done.returncode == 0, done.stderr
    told = "allow.raw_sockets=true\n"
    assert told in jexec("own.own", "/bin/cat", SELF).stdout
    assert jail("-m", "name=own", "allow.noraw_sockets").returncode == 0
    assert told not in jexec("own.own", "/bin/cat", SELF).stdout
    assert jail("-r", "own").returncode == 0


def test_a_jail_that_is_not_told_has_nothing_of_that_name(jail: Command, jexec: Command, small_root: Path) -> None:
    create = ("-c", "name=own", f"path={small_root}", "persist", "ng.self=false")
    done = jail(*create, "children.max=1")
    why = "jail: ng.self=false: a jail with children.max has what its commands need in /dev/.jailng\n"
    assert (done.returncode, done.stderr) == (1, why)
    assert jail(*create).returncode == 0
    assert ".jailng" not in jexec("own", "/bin/ls", "-A", "/dev").stdout
    assert jail("-m", "name=own", "securelevel=3").returncode == 0
    assert ".jailng" not in jexec("own", "/bin/ls", "-A", "/dev").stdout
    assert jail("-r", "own").returncode == 0
