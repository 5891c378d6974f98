"""Root inside tries to blind or to harm whoever watches its terminals: it is seen, or counted as what was not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from jailng.linux import btf
from jailng.observe import event, ringrecord
from jailng.observe.event import Event
from tests.kernel import test_watch
from tests.kernel.conftest import Command
from tests.kernel.terminals import Observer, of, screen, shown, typed
from tests.kernel.test_watch import MASTERS, watched

pytestmark = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
logs = test_watch.logs


def _lost(events: Sequence[Event]) -> int:
    return sum(one.count for one in of(events, event.DROPPED))


def test_a_flood(debian_terminals: Path, small_root: Path, jail: Command, jexec: Command, checkout: Path) -> None:
    """What there was no room for is counted; another jail's watchers miss nothing meanwhile."""
    made = jail("-c", "name=other", "persist", f"path={small_root}", "ng.watch=tty")
    assert made.returncode == 0, made.stderr
    with watched(jail, f"path={debian_terminals}", "mount.devfs") as observer:
        other = Observer("other")
        done = jexec("cell", "python3", "-c", MASTERS, "flood")
        said = json.loads(done.stdout)
        with screen(str(checkout / "bin/jexec"), "other", "sh", "-c", "echo $((6*7))") as quiet:
            quiet.end()
        assert shown(other.until_ended()) == quiet.shown
        other.close()
        observer.until_ended(said["number"])

        def seen(events: list[Event]) -> int:
            return len(shown(events, said["number"]))

        # What was lost is told of in its own time.
        events = observer.until(lambda events: said["size"] <= seen(events) + _lost(events) * ringrecord.CHUNK)
        assert seen(events) <= said["size"]
    assert jail("-r", "other").returncode == 0


def test_thousands_of_ptys(debian_terminals: Path, jail: Command, jexec: Command) -> None:
    with watched(jail, f"path={debian_terminals}", "mount.devfs") as observer:
        done = jexec("cell", "python3", "-c", MASTERS, "many")
        said = json.loads(done.stdout)
        assert said["opened"] > 500
        observer.until_ended(said["number"])
        events = observer.until(lambda events: len(of(events, event.START)) + _lost(events) >= said["opened"] + 1)
        begun, ended = of(events, event.START), of(events, event.END)
        events = observer.until(lambda events: len(of(events, event.END)) == len(of(events, event.START)))
        assert len(ended) <= len(begun)
        observer.forget()  # and then all is as before
        said = json.loads(jexec("cell", "python3", "-c", MASTERS, "vectors").stdout)
        assert shown(observer.until_ended(said["number"]), said["number"]).hex() == said["read"]


def test_everything_is_killed(debian_terminals: Path, jail: Command, checkout: Path) -> None:
    with watched(jail, f"path={debian_terminals}", "mount.devfs") as observer:
        with screen(
            str(checkout / "bin/jexec"), "cell", "sh", "-c", "echo last words; sleep 99 & kill -9 -1; kill -9 $$"
        ) as shell:
            shell.end()
        assert shown(observer.until_ended()) == b"last words\r\n"
        observer.forget()
        with screen(str(checkout / "bin/jexec"), "cell", "sh", "-c", "echo here") as shell:
            shell.end()
        assert shown(observer.until_ended()) == b"here\r\n"


def test_a_master_that_is_lent_to_another_jail(
    debian_terminals: Path, tmp_path: Path, jail: Command, jexec: Command, checkout: Path
) -> None:
    """Its terminal is the jail's whose devpts it is in, whoever holds it."""
    both = tmp_path / "both"
    both.mkdir()
    mounted = f"mount={both} {debian_terminals}/mnt nullfs rw 0 0"
    made = jail("-c", "name=other", "persist", f"path={debian_terminals}", "mount.devfs", mounted, "ng.uids=shared")
    if made.returncode:
        pytest.skip(made.stderr)
    with watched(jail, f"path={debian_terminals}", "mount.devfs", mounted, "ng.uids=shared") as observer:
        argv = [str(checkout / "bin/jexec"), "cell", "python3", "-c", MASTERS, "lent"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as lender:
            while not (both / "socket").exists():
                pass
            done = jexec("other", "python3", "-c", MASTERS, "borrow")
            assert done.returncode == 0, done.stderr
            assert lender.stdout is not None
            said = json.loads(lender.stdout.read())
        events = observer.until_ended(said["number"])
        assert shown(events, said["number"]).hex() == said["read"]
        assert typed(events, said["number"]).hex() == said["written"]
    assert jail("-r", "other").returncode == 0
