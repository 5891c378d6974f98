"""A command is killed that changes a jail or strikes one out: any other command finds what it needs, and mends it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from jailng.core import registry, sockets
from jailng.engine import modify
from jailng.linux import bpfattached, cgroup, ns
from jailng.params.model import Parameters
from tests.kernel import test_killed
from tests.kernel.conftest import Command
from tests.kernel.test_killed import Trial

remains, trial = test_killed.remains, test_killed.trial
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")


def _make(trial: Trial, *commands: tuple[str, ...]) -> None:
    for words in commands:
        done = trial.jail(*words)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_is_torn(jail: Command, jls: Command, small_root: Path) -> None:
    """Who writes more than is in a page can be killed after a part of it; what comes next is a line of its own."""
    assert jail("-c", "name=a", "jid=7", f"path={small_root}", "persist").returncode == 0
    with open("/run/jailng/jails/7", "ab") as record:
        record.write(b"param meta=to")
    assert jail("-m", "name=a", "host.hostname=other").returncode == 0
    assert jls("-j", "a", "host.hostname", "meta").stdout == 'other ""\n'
    assert jail("-r", "a").returncode == 0


def test_a_record_that_is_struck_out_already(jail: Command, jls: Command, small_root: Path) -> None:
    """Whoever comes upon what is left of it leaves alone the jails in another that has its name by now."""
    assert jail("-c", "name=a", "jid=8", f"path={small_root}", "children.max=3", "persist").returncode == 0
    assert jail("-c", "name=a.b", "jid=9", f"path={small_root}", "persist").returncode == 0
    left = f"boot {registry.boot_id()}\nstarter 1 1\nparam name=a\nparam path={small_root}\n"
    Path("/run/jailng/jails/7").write_text(left)
    assert jail("-r", "7").returncode == 1
    assert not Path("/run/jailng/jails/7").exists()
    assert jls("name").stdout.split() == ["a", "a.b"]
    assert jail("-r", "a").returncode == 0


@pytest.mark.parametrize(
    ("line", "said", "listed"),
    [
        ("base x", "/run/jailng/jails/7: not the record of a jail", 1),
        ("undone", "/run/jailng/jails/7: not the record of a jail", 1),
        ("undo later 1", "later: that is for another release of jailng to undo", 0),
        ("init x 1", "", 0),
    ],
)
def test_a_record_that_is_damaged_or_of_a_later_release(
    jail: Command, jls: Command, small_root: Path, line: str, said: str, listed: int
) -> None:
    """It is named, and in nobody's way: there was a traceback, and no jail could be started."""
    assert jail("-c", "name=a", "jid=8", f"path={small_root}", "persist").returncode == 0
    damaged = Path("/run/jailng/jails/7")
    damaged.write_text(f"boot {registry.boot_id()}\nstarter 1 1\nparam name=dead\n{line}\n")
    made = jail("-c", "name=b", "jid=9", f"path={small_root}", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    if said:
        asked = jail("-r", "7")
        assert (asked.returncode, asked.stderr) == (1, f"jail: {said}\n")
        assert jls("name").returncode == listed
        damaged.unlink()
    assert not damaged.exists()
    assert jail("-r", "a", "b").returncode == 0


def test_rules_of_a_later_release(jail: Command, small_root: Path) -> None:
    rules = Path("/run/jailng/rules")
    assert jail("-c", "name=a", f"path={small_root}", "command=true").returncode == 0
    rules.write_text(f"boot {registry.boot_id()}\njail:a:later:deny=1\n")
    made = jail("-c", "name=a", f"path={small_root}", "command=true")
    rules.unlink()
    assert (made.returncode, made.stderr) == (1, "jail: /run/jailng/rules: Invalid argument\n")


@pytest.mark.parametrize("content", [b"", bytes(64)], ids=["nothing", "zeros"])
@pytest.mark.parametrize("file", ["rules", "beneath", "pidns"])
def test_a_file_of_which_a_power_cut_has_left_nothing(
    checkout: Path, jail: Command, jls: Command, small_root: Path, file: str, content: bytes
) -> None:
    """Where /run is on a disk: a file that was written just before has its length, or not even that."""
    (small_root / "mnt").mkdir()
    assert jail("-c", "name=a", f"path={small_root}", "command=true").returncode == 0
    left = Path("/run/jailng", file)
    left.write_bytes(content)
    made = jail("-c", "name=a", f"path={small_root}", f"mount=/etc {small_root}/mnt nullfs ro 0 0", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    assert jls("name").stdout == "a\n"
    listed = subprocess.run([f"{checkout}/bin/rctl"], capture_output=True, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    gone = jail("-r", "a")
    assert (gone.returncode, gone.stderr) == (0, "")
    if file != "pidns":
        left.unlink(missing_ok=True)


def test_renaming(trial: Trial, small_root: Path) -> None:
    """The jail has one name, and those in it are called after it; the other is for whoever wants it."""
    words = (f"path={small_root}", "persist")
    create, inner = ("-c", "name=a", "jid=7", *words, "children.max=3"), ("-c", "name=a.x", "jid=8", *words)
    _make(trial, create, inner)
    steps = trial.steps("jail", "-m", "jid=7", "name=b")
    trial.jail("-r", "b")
    for step in steps:
        _make(trial, create, inner)
        trial.kill(step, "jail", "-m", "jid=7", "name=b")
        name = trial.jls("-j", "7", "name").stdout.strip()
        other = {"a": "b", "b": "a"}.get(name, "")
        if not other:
            trial.note(step, f"it is called {name!r}")
        trial.expect(step, "-c", f"name={other}", "jid=9", *words)
        trial.expect(step, "-c", f"name={name}.y", *words)
        found = trial.jls("-j", "8", "name").stdout.strip()
        if found != f"{name}.x":
            trial.note(step, f"the one in {name} is called {found!r}")
        trial.expect(step, "-m", "jid=9", "name=c")
        trial.expect(step, "-m", "jid=7", f"name={other}")
        trial.expect(step, "-r", "c")
        trial.expect(step, "-r", other)
        trial.nothing_remains(step)
    trial.verdict()


def test_no_longer_to_persist(trial: Trial, small_root: Path) -> None:
    """Said again, the jail ends that nobody lives in."""
    create, modify = ("-c", "name=a", "jid=7", f"path={small_root}", "persist"), ("-m", "name=a", "nopersist")
    _make(trial, create)
    for step in trial.steps("jail", *modify):
        trial.jail(*create)
        record = registry.load(7)
        assert record is not None
        init = ns.pidfd_open(record.init_pid)
        trial.kill(step, "jail", *modify)
        trial.jail(*modify)
        if not ns.ends_within(init, 60):
            trial.note(step, "it lives on")
            os.kill(record.init_pid, signal.SIGKILL)
        os.close(init)
    trial.jail("-r", "*")
    trial.verdict()


def test_a_permission_taken_from_jails_in_it_as_well(trial: Trial, small_root: Path) -> None:
    """Said again, none of them has it."""
    words = (f"path={small_root}", "persist", "allow.raw_sockets")
    create, inner = ("-c", "name=a", "jid=7", *words, "children.max=3"), ("-c", "name=a.x", "jid=8", *words)
    modify = ("-m", "name=a", "allow.noraw_sockets")
    _make(trial, create, inner)
    steps = trial.steps("jail", *modify)
    trial.jail("-r", "a")
    for step in steps:
        _make(trial, create, inner)
        trial.kill(step, "jail", *modify)
        trial.expect(step, *modify)
        found = trial.jls("allow.raw_sockets").stdout.split()
        if found != ["false", "false"]:
            trial.note(step, f"allow.raw_sockets: {found}")
        trial.expect(step, "-r", "a")
    trial.verdict()


def test_what_was_is_asked_for(jail: Command, jexec: Command, small_root: Path) -> None:
    """Killed before the record tells of what was done: whoever asks for what jls(8) tells has it."""
    words = ("name=a", "jid=7", f"path={small_root}", "persist", "host.hostname=old", "ip4=inherit")
    assert jail("-c", *words).returncode == 0
    record = registry.load(7)
    assert record is not None and record.lock()
    params = Parameters.from_texts({**record.params, "host.hostname": "new", "ng.sockets": "none"})
    modify._set_names(record, params)
    sockets.permit(record, params)
    record.unlock()
    assert jail("-m", "name=a", "host.hostname=old", "ng.sockets=").returncode == 0
    assert jexec("a", "/bin/busybox", "hostname").stdout == "old\n"
    members = cgroup.open_directory("jailng/7/members")
    assert bpfattached.ours(members, bpfattached.CGROUP_INET_SOCK_CREATE) == []
    os.close(members)
    assert jail("-r", "a").returncode == 0
