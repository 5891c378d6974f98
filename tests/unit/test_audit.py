"""The table of the audit's probes, and the catalogue that they are of; what is said of a jail that lies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from jailng.audit import bundle, expected, kernel, planted, processes, report, resources
from jailng.audit.catalogue import ROWS, SECTIONS, matches, rows_of
from jailng.audit.probe import ABSENT, BROKEN, ESCAPED, EXPOSED, HELD, PROBES, SEEN
from jailng.params import table

FACTS = {"hostname": "ogoun", "blocks": "4711 4712", "ns uts": "1"}


def test_there_are_enough() -> None:
    assert len(PROBES) > 200
    assert len({one.kind for one in PROBES.values()}) > 10


def test_every_row_of_the_catalogue_has_a_probe_and_every_probe_a_row() -> None:
    assert list(ROWS) == list(range(1, 53)) and SECTIONS.keys() <= ROWS.keys()
    assert [name for name in PROBES if not rows_of(name)] == []
    for number, (_, patterns) in ROWS.items():
        for pattern in re.split(r"[|\n]", patterns):
            assert any(matches(name, pattern) for name in PROBES), (number, pattern)


def test_what_is_expected_is_of_probes_and_parameters_that_there_are() -> None:
    assert expected.KNOWN.keys() <= PROBES.keys()
    for parameter, patterns in expected.OPENED.items():
        name, _, value = parameter.partition("=")
        row = table.lookup(name)
        assert row is not None and (not value or row.kind not in ("jailsys", "choice") or value in row.words)
        for pattern in re.split(r"[|\n]", patterns):
            assert any(matches(name, pattern) for name in PROBES), (parameter, pattern)


def test_names_of_one_word_are_of_one_probe() -> None:
    assert len({report.Result(one, HELD, "").identity for one in PROBES.values()}) == len(PROBES)


def test_nothing_of_the_hosts_own_is_told() -> None:
    own = "hostname root boot id,command line,memory,disk name,links,uptime,base,cgroup,key name,dev device".split(",")
    assert not planted.TOLD & {*own, "hostname", "root", "boot id", "blocks", "started", "threads", "btime"}
    assert not any(name.startswith("ns ") for name in planted.TOLD)


def test_what_goes_inside_imports_nothing_of_jailng() -> None:
    for name in bundle.INSIDE:
        source = (bundle.HERE / f"{name}.py").read_text()
        assert not re.search(r"^(from|import) jailng", source, re.MULTILINE), name


def test_each_process_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are hundreds it would be no end: ten seconds are what an attempt has."""
    lists = []

    def pids() -> list[int]:
        lists.append(1)
        return [os.getpid()] * 50

    monkeypatch.setattr(processes, "_pids", pids)
    facts = {"victim": "nobody-has-this-in-his-command-line", "pids": str(os.getpid())}
    assert processes._everybody(facts)[0] == HELD
    assert len(lists) < 5


@pytest.mark.parametrize(
    ("name", "said", "given", "state", "why"),
    [
        ("files: chroot twice", (HELD, "no"), [], HELD, ""),
        ("files: chroot twice", (ESCAPED, "yes"), [], ESCAPED, ""),
        ("files: chroot twice", (ESCAPED, "yes"), ["path=/"], report.OPENED, "opened by path=/"),
        ("files: chroot twice", (ESCAPED, "yes"), ["allow.mlock"], ESCAPED, ""),
        ("files: chroot twice", (BROKEN, "?"), [], report.UNKNOWN, ""),
        ("files: chroot twice", None, [], report.UNKNOWN, ""),
        ("files: chroot twice", (SEEN, "/"), [], report.UNKNOWN, ""),
        ("leaks: the host's name", (SEEN, "ogoun cell"), None, EXPOSED, ""),
        ("leaks: the host's name", (SEEN, "cell"), [], HELD, ""),
        ("leaks: the file system's size", (SEEN, "4712"), [], EXPOSED, expected.KNOWN["leaks: the file system's size"]),
        ("leaks: the file system's size", (SEEN, "4713"), [], HELD, ""),
        ("leaks: the file system's size", (SEEN, ""), [], HELD, ""),
        ("leaks: activity in /proc/stat", (SEEN, "nonsense"), [], report.UNKNOWN, ""),
        ("calls: the next one that will be", (HELD, "no"), [], ABSENT, "not on this kernel"),
    ],
)
def test_what_follows_from_what_is_said(
    name: str, said: tuple[str, str] | None, given: list[str] | None, state: str, why: str
) -> None:
    results = report.judged({name: said} if said else {}, FACTS, given)
    (found,) = [one for one in results if one.probe.name == name]
    assert (found.state, found.why) == (state, why)


def test_what_is_said_cannot_steer_a_terminal() -> None:
    (found, *_) = report.judged({"files: chroot twice": (ESCAPED, "\x1b[2J\nheld")}, FACTS, [], "files: chroot twice")
    assert "\x1b" not in found.said and "\n" not in found.said


def test_the_status_is_of_the_worst() -> None:
    one = next(iter(PROBES.values()))
    results = [report.Result(one, state, "") for state in (HELD, ABSENT)]
    assert report.status(results) == 0
    for state, status in ((EXPOSED, 1), (report.OPENED, 1), (report.UNKNOWN, 1), (ESCAPED, 2)):
        assert report.status([*results, report.Result(one, state, "")]) == status


def test_the_parameters_of_a_jail_that_open_something() -> None:
    assert expected.given({"path": "/jail/a", "allow.mlock": "false"}) == []
    assert expected.given({"path": "/", "vnet": "new", "allow.mlock": "true", "ip4": "new"}) == [
        "path=/", "vnet", "allow.mlock",
    ]  # fmt: skip


def test_what_can_expose_nothing_here_is_said_to_be_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of cgroup v1 on a host with v2 alone, counters on one without a network, what only later kernels have."""
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(resources, "CGROUPS", (str(tmp_path),))
    assert kernel.lacks("cgroups: write tasks") and not kernel.lacks("cgroups: write cgroup.procs")
    assert kernel.lacks("proc: write /proc/version") and not kernel.lacks("proc: read /proc/version")
    for counted in kernel._COUNTED:
        for verdict in (HELD, EXPOSED):
            monkeypatch.setattr(PROBES[counted], "function", lambda facts, verdict=verdict: (verdict, "1"))
            assert kernel.lacks(counted) is (verdict == HELD)
    for release, lacks in (("6.12.118+deb13-cloud-amd64", True), ("6.18.2", False), ("7.0-rc1", False)):
        monkeypatch.setattr(os, "uname", lambda release=release: SimpleNamespace(release=release))
        assert kernel.lacks("files: EXT4_IOC_GET_TUNE_SB_PARAM") is lacks
