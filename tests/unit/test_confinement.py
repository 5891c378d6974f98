"""What privileges come to, and the cache of compiled programs, which trusts nobody but root."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.core import confinement
from jailng.core import filter as filters
from jailng.core.confinement import ROWS, Confinement, Privileges, compute
from jailng.errors import JailError
from jailng.linux import caps

BASE = caps.mask(
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP SYS_PTRACE"
)
CORE, MEMLOCK = (4, 0, 0), (8, 0, 0)
NO_PREFERENCE = [(13, 0, 0), (14, 0, 0)]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path: Path = tmp_path_factory.mktemp("cache") / "jailng" / "seccomp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confinement, "CACHE", str(path))
        patch.setattr(confinement, "_OWNER", os.geteuid())
        yield path


@pytest.fixture
def entry(cache: Path) -> Iterator[Path]:
    """The default program's file in the cache; whatever is done to it is undone."""
    found = cache / compute(Privileges()).key
    yield found
    cache.chmod(0o700)
    if found.is_symlink() or found.is_fifo():
        found.unlink()
    if found.is_dir():
        found.rmdir()
    found.unlink(missing_ok=True)


def program(*lifted: str) -> bytes:
    return filters.build(frozenset(lifted))


def names(bits: int) -> set[str]:
    return {name for number, name in enumerate(caps.NAMES) if bits >> number & 1}


# --- the table


def test_the_default() -> None:
    made = compute(Privileges(inet4=True))
    assert (made.caps, made.landlock, made.rlimits) == (BASE, 0, [CORE, *NO_PREFERENCE, MEMLOCK])
    assert made.program == program("debug", "inet4", "core")


@pytest.mark.parametrize(
    ("privilege", "gained"),
    [
        ("raw_sockets", "NET_RAW"),
        ("vnet", "NET_ADMIN"),
        ("own_init", "SYS_BOOT"),
        ("set_hostname", "SYS_ADMIN"),
        ("bind_mounts", "SYS_ADMIN"),
        ("file_systems", "SYS_ADMIN"),
        ("mlock", ""),
        ("socket_af", ""),
        ("sysvshm", ""),
    ],
)
def test_capabilities_that_are_added(privilege: str, gained: str) -> None:
    assert compute(Privileges(**{privilege: True})).caps == BASE | caps.mask(gained)


def test_capabilities_that_are_taken_away() -> None:
    assert compute(Privileges(reserved_ports=False)).caps == BASE & ~caps.mask("NET_BIND_SERVICE")
    everything = dict.fromkeys(Privileges.__slots__, True) | {"suser": False}
    assert compute(Privileges(**everything)).caps == 0


@pytest.mark.parametrize(
    ("privilege", "rule"),
    [
        ("set_hostname", "hostname"),
        ("bind_mounts", "bind"),
        ("file_systems", "fs"),
        ("raw_sockets", "raw"),
        ("vnet", "vnet"),
        ("socket_af", "families"),
        ("proc_debug", "debug"),
        ("sysvmsg", "msg"),
        ("sysvsem", "sem"),
        ("sysvshm", "shm"),
        ("inet4", "inet4"),
        ("inet6", "inet6"),
        ("core_files", "core"),
        ("own_init", "reboot"),
        ("uevents", "uevents"),
    ],
)
def test_rules_that_are_lifted(privilege: str, rule: str) -> None:
    nothing = dict.fromkeys(Privileges.__slots__, False)
    assert compute(Privileges(**nothing)).program == program()
    assert compute(Privileges(**nothing | {privilege: True})).program == program(rule)


def test_limits_and_scopes() -> None:
    assert compute(Privileges(mlock=True)).rlimits == [CORE, *NO_PREFERENCE]
    assert compute(Privileges(mlock=True, core_files=False)).rlimits == [(4, 1, 1), *NO_PREFERENCE]
    assert compute(Privileges(shared_net=True)).landlock == 1  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    assert compute(Privileges(shared_uids=True, inet4=True, inet6=True)).landlock == 0


def test_the_table_and_its_readers_agree() -> None:
    assert {lifts for _, lifts, _, _ in ROWS.values() if lifts} == filters.LIFTS
    assert set(Privileges.__slots__) == set(ROWS)


@given(st.fixed_dictionaries({name: st.booleans() for name in ROWS}))
def test_no_privileges_come_to_more_than_their_rows(chosen: dict[str, bool]) -> None:
    """Whatever is asked for: never a capability that is the host's, and a program under a name of its own."""
    made = compute(Privileges(**chosen))
    added = {"NET_ADMIN": "vnet", "SYS_BOOT": "own_init"}
    gained = {capability for capability, privilege in added.items() if chosen[privilege]}
    assert names(made.caps) <= names(BASE) | {"NET_RAW", "SYS_ADMIN"} | gained
    administers = chosen["set_hostname"] or chosen["bind_mounts"] or chosen["file_systems"]
    assert ("SYS_ADMIN" in names(made.caps)) == (administers and chosen["suser"])
    lifted = {ROWS[name][1] for name, on in chosen.items() if on} - {""}
    assert made.program == program(*lifted)
    assert set(made.key.split("-")[1].split(".")) - {""} == lifted
    assert (CORE if chosen["core_files"] else (4, 1, 1)) in made.rlimits


# --- the cache


def no_compiler(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "jailng.core.filter", None)


def again() -> Confinement:
    return compute(Privileges())


def test_a_program_is_compiled_once(cache: Path, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = again()
    no_compiler(monkeypatch)
    assert again().program == first.program
    assert cache.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_without_a_compiler_there_is_an_error(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry.unlink()
    no_compiler(monkeypatch)
    with pytest.raises(JailError, match=r"cannot compile the seccomp filter: .*python3-seccomp"):
        again()


def test_another_source_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "__file__", str(tmp_path / "confinement.py"))
    source = tmp_path / "filter.py"
    source.write_text("")
    os.utime(source, ns=(0, 1))
    old = again().key
    os.utime(source, ns=(0, 2))
    newer = again().key
    source.write_text("#")
    os.utime(source, ns=(0, 2))
    assert len({old, newer, again().key}) == 3


def spoil_content(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[9] ^= 1
    entry.write_bytes(content)


def exchange_content(entry: Path) -> None:
    """A whole program, but of fewer instructions than its trailer says."""
    content = entry.read_bytes()
    entry.write_bytes(content[:-16] + content[-8:])


def replace_by_fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


def replace_by_directory(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


def replace_by_link(entry: Path) -> None:
    """To a file that would pass."""
    target = entry.with_suffix(".moved")
    target.unlink(missing_ok=True)
    entry.rename(target)
    entry.symlink_to(target.name)


SPOILT = {
    "one bit differs": spoil_content,
    "it is cut short": lambda entry: os.truncate(entry, entry.stat().st_size - 8),
    "it is cut within a word": lambda entry: os.truncate(entry, entry.stat().st_size - 3),
    "it is empty": lambda entry: os.truncate(entry, 0),
    "it is all zeros": lambda entry: entry.write_bytes(bytes(entry.stat().st_size)),
    "it is too long": lambda entry: os.truncate(entry, 8 * 4096 + 16),
    "its length is another": exchange_content,
    "its group may write to it": lambda entry: entry.chmod(0o620),
    "all may write to it": lambda entry: entry.chmod(0o602),
    "it is a symbolic link": replace_by_link,
    "it is a FIFO": replace_by_fifo,
    "others may write to the directory": lambda entry: entry.parent.chmod(0o702),
    "its group may write to the directory": lambda entry: entry.parent.chmod(0o720),
    "it is a directory": replace_by_directory,
}


@pytest.mark.parametrize("why", SPOILT)
def test_what_is_not_roots_or_not_whole_is_not_used(
    entry: Path, cache: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = program("debug", "core")
    SPOILT[why](entry)
    with monkeypatch.context() as patch:
        no_compiler(patch)
        with pytest.raises(JailError):
            again()
    assert again().program == expected
    if "directory" not in why:  # it was replaced
        no_compiler(monkeypatch)
        assert again().program == expected


def test_another_owner_is_not_trusted(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = entry.stat().st_ino
    monkeypatch.setattr(confinement, "_OWNER", os.geteuid() + 1)
    no_compiler(monkeypatch)
    with pytest.raises(JailError):
        again()
    assert entry.stat().st_ino == before


def test_a_cache_that_is_a_link_is_not_followed(cache: Path, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = cache.with_name("link")
    link.symlink_to(cache)
    monkeypatch.setattr(confinement, "CACHE", str(link))
    assert again().program == program("debug", "core")
    no_compiler(monkeypatch)
    with pytest.raises(JailError):
        again()


@pytest.mark.parametrize("where", ["/proc/jailng/seccomp", "/dev/null/jailng/seccomp", "/sys/jailng/seccomp"])
def test_a_cache_that_cannot_be_written_costs_time_only(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "CACHE", where)
    assert again().program == program("debug", "core")


def test_what_a_dead_process_left_is_in_nobodys_way(cache: Path, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry.unlink()
    (cache / f".{entry.name}.{os.getpid()}").write_text("half")
    again()
    no_compiler(monkeypatch)
    assert again().program == program("debug", "core")
