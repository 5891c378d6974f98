"""A jail that is watched and logged looks, to its own root, like the same jail that is not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stage import own_logs

Survey = dict[str, list[str]]
WATCHED = ("ng.watch=tty,packets", "ng.log=all")
_PLAIN = 2  # surveys of a jail that nobody watches: what differs between these says nothing
# Files with numbers that are those of a moment, some of them of the whole machine: what is named in them is compared.
_COUNTED = (
    "arch_status io limits loadavg maps net/dev net/netstat net/snmp net/snmp6 net/sockstat net/sockstat6 "
    "net/softnet_stat numa_maps pagemap sched schedstat smaps smaps_rollup stat statm status syscall task timers "
    "timerslack_ns wchan"
).split()
_NUMBERS = re.compile(r"-?\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b|\s+")


@pytest.fixture
def kept() -> Iterator[Path]:
    """Where what is seen is kept."""
    with own_logs() as directory:
        yield directory / "cell"


def _survey(jail: Command, jexec: Command, root: Path, *parameters: str) -> Survey:
    create = ["name=cell", "jid=77", f"path={root}", "ip4.addr=198.51.100.30", "interface=ep0", "host.hostname=www"]
    made = jail("-c", *create, "persist", *parameters)
    assert made.returncode == 0, made.stderr
    program = Path(__file__).with_name("survey.py").read_text()
    done = jexec("cell", "/usr/bin/python3", "-", stdin=program, timeout=120)
    assert jail("-r", "cell").returncode == 0
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: _plain(name, lines) for name, lines in found.items()}


def _plain(name: str, lines: list[str]) -> list[str]:
    counted = name.startswith("file /proc/") and any(name.endswith("/" + file) for file in _COUNTED)
    return [_NUMBERS.sub(" # ", line) for line in lines] if counted else lines


def _differs(known: set[str], now: str) -> bool:
    """Whether a line is another than those of jails that nobody watches, but for what differs between these."""
    masked = {_NUMBERS.sub(" # ", line) for line in known}
    if len(known) == 1:
        return now not in known
    return len(masked) == 1 and _NUMBERS.sub(" # ", now) not in masked


def _differences(plain: list[Survey], watched: Survey) -> list[str]:
    found = []
    for name in sorted({*watched, *(name for one in plain for name in one)}):
        known = [one.get(name, ["nothing"]) for one in plain]
        seen = watched.get(name, ["nothing"])
        if len({len(lines) for lines in known}) > 1:
            continue
        if len(seen) != len(known[0]):
            found.append(f"{name}: {seen}, not {known[0]}")
            continue
        for lines, now in zip(zip(*known, strict=True), seen, strict=True):
            if _differs(set(lines), now):
                found.append(f"{name}: {now!r}, not {lines[0]!r}")
    return found


def test_who_is_watched_cannot_tell(
    jail: Command, jexec: Command, debian_python: Path, lan: Namespace, kept: Path
) -> None:
    plain = [_survey(jail, jexec, debian_python) for _ in range(_PLAIN)]
    watched = _survey(jail, jexec, debian_python, *WATCHED)
    assert len(watched) > 1000
    assert sorted(path.name for path in kept.iterdir()) == ["log", "packets", "sessions"]
    found = _differences(plain, watched)
    for _ in range(3):
        if not found:
            break  # else it may be the moment's: what tells is there whenever somebody watches, and never else
        plain.append(_survey(jail, jexec, debian_python))
        again = _differences(plain, _survey(jail, jexec, debian_python, *WATCHED))
        found = sorted({*_differences(plain, watched)} & {*again})
    assert found == [], "\n".join(found)
