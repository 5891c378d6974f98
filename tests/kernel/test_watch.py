"""Terminals of a jail, seen from outside: byte for byte what the user saw, whatever program has opened them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.linux import btf
from jailng.observe import event
from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount
from tests.kernel.terminals import Observer, of, screen, shown, typed

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")


@pytest.fixture(autouse=True)
def logs(tmp_path: Path) -> Iterator[None]:
    """A place of the test's own for what is recorded."""
    Path("/var/log/jailng").mkdir(mode=0o700, exist_ok=True)
    mount("none", "/var/log/jailng", "tmpfs", 0, "mode=700,size=256m")
    yield
    unmount("/var/log/jailng")


@contextmanager
def watched(jail: Command, *parameters: str) -> Iterator[Observer]:
    made = jail("-c", "name=cell", "persist", "ng.watch=tty", *parameters)
    assert made.returncode == 0, made.stderr
    observer = Observer("cell")
    try:
        yield observer
    finally:
        observer.watching.close()
        gone = jail("-r", "cell")
        assert gone.returncode == 0, gone.stderr


def test_a_shell_of_jexec(small_root: Path, jail: Command, checkout: Path) -> None:
    with watched(jail, f"path={small_root}") as observer:
        with screen(str(checkout / "bin/jexec"), "cell", "sh") as shell:
            shell.until("# ")
            shell.type("stty -echo; echo $((6*7))\n")
            shell.until("42\r\n")
            shell.type("read x; echo got $x; exit\n")
            shell.type("secret\n")
            shell.until("got secret\r\n")
            shell.end()
        events = observer.until_ended()
    assert shown(events) == shell.shown
    assert b"read x; echo got $x; exit\nsecret\n" in typed(events)
    start = of(events, event.START)[0]
    assert (start.terminal, start.comm, start.uid) == (0, "jexec", 0)
    assert of(events, event.RESIZE)[0].data == b"0x0"
    assert not of(events, event.DROPPED) + of(events, event.UNRECORDED)
