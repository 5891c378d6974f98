"""Several commands at once: what one finds that another is in the middle of, on the same jail or beside it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.core import create, firewall, index, registry, undo
from jailng.engine import modify
from jailng.errors import JailError
from jailng.linux import ns
from jailng.params.model import Parameters
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.networks import Namespace, ip, run, set_switch
from tests.kernel.stage import mount, unmount

_MOMENT = 0.5  # seconds: who does not wait is done by then, or nearly always


def _made(jail: Command, *words: str) -> registry.Record:
    done = jail("-c", *words, "persist")
    assert (done.returncode, done.stderr) == (0, "")
    record = registry.find(words[0].partition("=")[2])
    assert record is not None
    return record


def _end(record: registry.Record) -> None:
    """Have a jail end by itself, as it were: nobody clears away what it had."""
    init = ns.pidfd_open(record.init_pid)
    os.kill(record.init_pid, signal.SIGKILL)
    assert ns.ends_within(init, 60)
    os.close(init)


@contextmanager
def _begun(*argv: str, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as running:
        try:
            yield running
        finally:
            running.kill()


def _is_done(running: subprocess.Popen[str], seconds: float = _MOMENT) -> bool:
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


# A jail that has ended, and another command comes upon it as well


def test_what_is_being_cleared_away_is_waited_for(checkout: Path, jail: Command, small_root: Path) -> None:
    """It is no jail any more, so that one of its name is not said to exist."""
    _end(_made(jail, "name=a", "jid=7", f"path={small_root}"))
    lock = index.hold(7)
    with _begun(f"{checkout}/bin/jail", "-c", "name=a", f"path={small_root}", "persist") as running:
        _is_done(running)
        os.close(lock)
        assert running.wait(60) == 0, running.stderr and running.stderr.read()
    assert jail("-r", "a").returncode == 0


def test_more_dead_jails_in_the_way_than_are_swept(jail: Command, lan: Namespace, small_root: Path) -> None:
    """Each has an address of those that the new one is to have alone."""
    given = [f"198.51.100.{number}" for number in range(10, 22)]
    words = (f"path={small_root}", "interface=ep0")
    records = [_made(jail, f"name=j{address[-2:]}", f"ip4.addr={address}", *words) for address in given]
    for record in records:
        _end(record)
    done = jail("-c", "name=all", f"ip4.addr={','.join(given)}", *words, "persist")
    assert (done.returncode, done.stderr) == (0, "")
    assert jail("-r", "*").returncode == 0


def test_a_jail_made_since_stays_in_the_index(jail: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has found that a jail is gone strikes out no other that has its jid by now."""
    _made(jail, "name=a", "jid=7", f"path={small_root}")
    load, answers = registry.load, [None]
    monkeypatch.setattr(registry, "load", lambda jid: answers.pop() if answers else load(jid))
    create._make_way(Parameters(), 7, JailError("jail 7 already exists"))
    assert index.names_of(7) == ["a"]
    assert jail("-r", "a").returncode == 0


_LATE = """
import sys
sys.path.append(sys.argv[1])
from jailng.cli import jail
from jailng.core import registry
find, found = registry.find, [registry.load(7)]
registry.find = lambda text: found.pop() if found else find(text)
sys.exit(jail.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("letters", ["-cm", "-rc", "-cmr"])
def test_a_jail_that_ends_when_it_has_just_been_found(
    checkout: Path, jail: Command, jls: Command, small_root: Path, letters: str
) -> None:
    """Whoever says what there shall be, and not what shall happen, makes one."""
    words = ("name=a", f"path={small_root}", "persist")
    _end(_made(jail, *words, "jid=7"))
    argv = [sys.executable, "-c", _LATE, str(checkout / "src"), letters, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert jls("name").stdout == "a\n"
    assert jail("-r", "a").returncode == 0


# Names


def test_a_name_of_a_jail_that_has_ended(jail: Command, jls: Command, small_root: Path) -> None:
    _made(jail, "name=a", "jid=70", f"path={small_root}")
    _end(_made(jail, "name=b", f"path={small_root}"))
    done = jail("-m", "jid=70", "name=b")
    assert (done.returncode, done.stderr) == (0, "")
    assert jls("jid", "name").stdout == "70 b\n"
    assert jail("-r", "b").returncode == 0


def test_a_name_that_is_in_the_index_alone(jail: Command, small_root: Path) -> None:
    """Who renames a jail enters the new name first, and may be killed then."""
    _made(jail, "name=a", "jid=70", f"path={small_root}")
    with index.Index() as rows:
        rows.add_name(70, "b")
    assert (registry.find("b"), jail("-r", "b").returncode) == (None, 1)
    assert registry.find("a") is not None and jail("-r", "a").returncode == 0


def test_a_jail_that_was_not_there_yet_when_it_was_looked_at(jail: Command, small_root: Path) -> None:
    found = _made(jail, "name=a", f"path={small_root}")
    found.init = ""
    assert not found.alive() and not undo.recover(found)
    assert not found.locked and registry.find("a") is not None
    assert jail("-r", "a").returncode == 0


def test_jails_in_the_next_of_that_name_are_not_taken_along(jail: Command, jls: Command, small_root: Path) -> None:
    """Who cleared away the first was killed when that was out of the index, and before its record was gone."""
    first = _made(jail, "name=first", "jid=70", f"path={small_root}")
    _made(jail, "name=a", "jid=71", f"path={small_root}", "children.max=1")
    _made(jail, "name=a.b", "jid=72", "path=/")
    _end(first)
    with index.Index() as rows:
        rows.drop(70)
    assert first.lock()
    first.append(["param name=a"])
    first.unlock()
    assert undo.recover(first)
    assert (jls("jid", "name").stdout, registry.load(70)) == ("71 a\n72 a.b\n", None)
    assert jail("-r", "a").returncode == 0


def test_a_jail_that_is_renamed_while_it_is_waited_for(jail: Command, jls: Command, small_root: Path) -> None:
    """Who has asked for it by its old name finds that there is none of that, and does not rename it again."""
    _made(jail, "name=a", "jid=70", f"path={small_root}")
    found = registry.find("a")
    assert found is not None
    assert jail("-m", "jid=70", "name=b").returncode == 0
    changes = Parameters()
    changes.add("name", "a")
    changes.add("meta", "new")
    with pytest.raises(JailError, match=r'^"a" not found$'):
        modify.modify(found, changes)
    assert jls("-j", "70", "name", "meta").stdout.split() == ["b", '""']
    assert jail("-r", "b").returncode == 0


# What jails share


def test_the_last_two_with_addresses_go_at_once(
    lan: Namespace, checkout: Path, jail: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host has switched on for them goes with the second; neither leaves it to the other."""
    words = (f"path={small_root}", "interface=ep0")
    set_switch("ipv4/conf/ep0/forwarding", "0")
    record = _made(jail, "name=a", "ip4.addr=198.51.100.10", *words)
    _made(jail, "name=b", "ip4.addr=198.51.100.11", *words)
    append = registry.Record.append
    other: list[subprocess.Popen[str]] = []

    def slowly(self: registry.Record, lines: list[str]) -> None:
        if self.undo[-1].startswith("firewall ") and lines == ["undone"] and not other:
            removal = [f"{checkout}/bin/jail", "-r", "b"]
            other.append(subprocess.Popen(removal, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT))
            _is_done(other[0], 2)
        append(self, lines)

    monkeypatch.setattr(registry.Record, "append", slowly)
    assert record.lock()
    undo.walk(record)
    with other[0] as running:
        assert running.wait(60) == 0
    assert "jailng" not in run("nft", "list", "tables")
    assert firewall.read_switch("ipv4/conf/ep0/forwarding") == 0


_REMOVAL = """
import sys
sys.path.append(sys.argv[1])
from jailng.core import alias, firewall
read = firewall.read_switch
def slowly(path):
    found = read(path)
    print("read", flush=True)
    sys.stdin.readline()
    return found
firewall.read_switch = slowly
alias.remove(["ep0", "203.0.113.10/24"])
"""


def test_two_take_aliases_of_one_network_away(lan: Namespace, checkout: Path) -> None:
    """The third stays: the first does not switch off in the middle what has the kernel keep it."""
    switch = "ipv4/conf/ep0/promote_secondaries"
    set_switch(switch, "0")
    set_switch("ipv4/conf/all/promote_secondaries", "0")
    ip(*[f"address add 203.0.113.{number}/24 dev ep0" for number in (10, 11)])
    argv = [sys.executable, "-c", _REMOVAL, str(checkout / "src")]
    Path("/run/jailng").mkdir(exist_ok=True)
    with firewall.Lock():  # of whoever has just switched it on
        set_switch(switch, "1")
        running = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert running.stdin and running.stdout
        select.select([running.stdout], [], [], 2 * _MOMENT)
        set_switch(switch, "0")
    running.communicate(b"go\n" * 9, timeout=60)
    assert running.returncode == 0
    assert "203.0.113.11" in run("ip", "address", "show", "dev", "ep0")
    assert firewall.read_switch(switch) == 0
    ip("address del 203.0.113.11/24 dev ep0")


# Locks


def test_a_jail_is_not_kept_by_whoever_hears_that_it_is_there(
    checkout: Path, jail: Command, jls: Command, small_root: Path, tmp_path: Path
) -> None:
    """The reader of what jail(8) says may take its time; the jail can be changed and removed meanwhile."""
    (tmp_path / "jail.conf").write_text(f'a {{ path = "{small_root}"; persist; }}\n')
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    try:
        while True:
            os.write(writes, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writes, True)
    with _begun(f"{checkout}/bin/jail", "-f", f"{tmp_path}/jail.conf", "-c", "a", stdout=writes) as running:
        for _ in range(200):
            if jls("-j", "a").returncode == 0:
                break
        assert not _is_done(running, 0.1)
        assert jail("-m", "name=a", "host.hostname=other", timeout=60).returncode == 0
        assert jail("-r", "a", timeout=60).returncode == 0
        os.close(reads)
        running.wait(60)
    os.close(writes)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
def test_a_hook_that_never_gets_to_its_program_holds_no_lock(checkout: Path, jail: Command, small_root: Path) -> None:
    """Its user's home does not answer, and it is left to itself when its time is over."""
    words = ("name=a", "jid=7", f"path={small_root}", "persist")
    hook = ("exec.clean", "exec.system_user=root", "exec.prestart=/bin/true", "exec.timeout=1")
    late = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=chdir", "-e", "inject=chdir:delay_enter=200s")
    with _begun(*late, f"{checkout}/bin/jail", "-c", *words, *hook) as running:
        assert running.stderr
        assert running.stderr.readline() == "jail: /bin/true: timed out\n"
        until = time.monotonic() + 60
        while "already exists" in (done := jail("-c", *words, timeout=60)).stderr:  # it is told before it is undone
            assert time.monotonic() < until
        running.send_signal(signal.SIGTERM)
    assert (done.returncode, done.stderr) == (0, "")
    assert jail("-r", "a").returncode == 0


# No room


@pytest.fixture
def small_run() -> Iterator[Path]:
    """A /run/jailng that is soon full."""
    place = Path("/run/jailng")
    place.mkdir(exist_ok=True)
    mount("none", place, "tmpfs", 0, "size=128k,mode=755")
    yield place
    unmount(place)


def _fill(place: Path, *records: int) -> None:
    """Let there be no room for another line of these records, nor for anything else."""
    for jid in records:
        with open(place / f"jails/{jid}", "ab") as file:
            file.write(b"filler %s\n" % (b"." * (-(file.tell() + 8) % 4096)))
            assert file.tell() % 4096 == 0
    with open(place / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize("struck", [0, 80])
def test_jails_go_where_there_is_no_room(
    jail: Command, jls: Command, small_root: Path, small_run: Path, struck: int
) -> None:
    for name, jid in (("a", 7), ("b", 8), ("c", 9)):
        _made(jail, f"name={name}", f"jid={jid}", f"path={small_root}")
    with open(small_run / "index", "ab") as file:
        file.write(b"".join([b"#00\t5\tgone\t\n"] * struck))
    _fill(small_run, 7, 8, 9)
    _end(registry.load(9) or registry.Record(9))
    for words in (["-r", "a"], ["-R", "b"]):
        done = jail(*words)
        assert (done.returncode, done.stderr) == (0, "")
    jail("-r", "*")
    assert jls("name").stdout == ""
    assert [*(small_run / "jails").iterdir()] == []
