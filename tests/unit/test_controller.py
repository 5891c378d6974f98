"""Where a controller is found, on hosts with cgroup v1, hybrid and v2: by hierarchies that are directories."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import share
from jailng.errors import JailError
from jailng.linux import cgroup, controller, hierarchies
from jailng.linux.libc import EBUSY


class Host:
    """A host's /sys/fs/cgroup."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(controller, "_TOPS", (str(top), "/nowhere"))
        monkeypatch.setattr(controller, "_found", {})
        monkeypatch.setattr(controller, "_offered", [])
        monkeypatch.setattr(hierarchies, "_attached", lambda name: [])

    def v1(self, *names: str) -> None:
        for name in names:
            (self.top / name).mkdir()
            (self.top / name / "tasks").touch()

    def v2(self, controllers: str, where: str = ".") -> Path:
        root = self.top / where
        root.mkdir(exist_ok=True)
        self.directory("", controllers, root)
        self.monkeypatch.setattr(cgroup, "_open_root", os.open(root, os.O_PATH | os.O_DIRECTORY))
        return root

    def directory(self, path: str, controllers: str, root: Path | None = None) -> None:
        place = (root or self.top) / path
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.controllers").write_text(controllers)
        for name in ("cgroup.subtree_control", "cgroup.procs"):
            (place / name).touch()
        if path:
            (place / "cgroup.type").write_text("domain\n")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(cgroup, "_open_root", None)
    yield Host(tmp_path, monkeypatch)
    if cgroup._open_root is not None:
        os.close(cgroup._open_root)


def found() -> dict[str, str | None]:
    return {name: controller.hierarchy(name) for name in controller.V1}


def test_v1_and_hybrid(host: Host) -> None:
    host.v1("pids", "cpu", "memory", "blkio", "cpuset")
    host.v2("hugetlb", "unified")
    assert found() == {name: str(host.top / old) for name, old in controller.V1.items()}
    assert share.beside() == ["pids", "cpu", "memory"]


def test_v2(host: Host) -> None:
    host.v2("cpuset cpu io memory pids")
    assert set(found().values()) == {""}
    assert share.beside() == []


def test_some_here_and_some_there(host: Host) -> None:
    host.v1("memory")
    host.v2("cpu pids", "unified")
    assert found() == {"pids": "", "cpu": "", "memory": str(host.top / "memory"), "io": None, "cpuset": None}
    assert share.beside() == ["memory"]


def test_a_hierarchy_that_is_mounted_elsewhere(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.v2("cpu")
    monkeypatch.setattr(hierarchies, "_attached", lambda name: [name] if name == "pids" else [])
    monkeypatch.setattr(hierarchies, "_mounted", lambda name: "/elsewhere/pids")
    assert controller.hierarchy("pids") == "/elsewhere/pids"
    assert controller.directory("pids", "jailng/7/members/12") == "/elsewhere/pids/jailng/7/12"
    assert controller.hierarchy("memory") is None


def test_paths() -> None:
    assert controller.below("io", "/x", "jailng/7/members/12/members/40") == "/x/jailng/7/12/40"
    assert controller.below("cpuset", "/x", "jailng/7/members/12") == "/x/jailng/7"
    assert controller.held("/proc/self/fd/5/jailng/7") == 5
    assert controller.held("/sys/fs/cgroup/pids/jailng/7") == -1


def test_v2_is_handed_down_from_the_root(host: Host) -> None:
    root = host.v2("cpu pids")
    host.directory("jailng", "")
    controller.hand_down("jailng/7", ["cpu", "pids"])
    for place in (root, root / "jailng"):
        assert (place / "cgroup.subtree_control").read_text() == "+cpu +pids"
    (root / "cgroup.subtree_control").write_text("cpu pids")
    controller.enable("", ["pids"])
    assert (root / "cgroup.subtree_control").read_text() == "cpu pids"


def test_a_container_s_root_is_not_spoilt(host: Host) -> None:
    root = host.v2("cpu pids")
    (root / "cgroup.type").write_text("domain\n")
    (root / "cgroup.procs").write_text("1\n77\n")
    with pytest.raises(OSError, match="cgroup / has processes of its own") as caught:
        controller.hand_down("jailng/7", ["pids"])
    assert caught.value.errno == EBUSY
    assert (root / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize("lenient", [False, True])
def test_without_a_controller_no_jail_is_started(host: Host, lenient: bool) -> None:
    """And what there is holds where one is."""
    root = host.v2("memory pids")
    host.directory("jailng", "")
    host.directory("jailng/7", "")
    for name in ("members", "init"):
        host.directory(f"jailng/7/{name}", "")
        (root / f"jailng/7/{name}/pids.max").touch()
    most = root / "jailng/7/members/pids.max"
    made = share.Allot("jailng/7", "jailng/7/members", 100, lenient)
    why = "ng.limits: this kernel hands out no cgroup controller cpu: nothing gives the jail its share"
    if lenient:
        made.apply({})
        assert (made.warnings([]), most.read_text()) == ([why], "100")
        return
    with pytest.raises(JailError) as caught:
        made.apply({})
    assert str(caught.value) == f"{why}: ng.lenient starts it all the same"
    assert (root / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize(
    ("there", "what"),
    [
        ("cpu", "pids: nothing limits the jail's processes (maxproc)"),
        ("", "pids: nothing limits the jail's processes (maxproc), or gives the jail its share"),
    ],
)
def test_what_is_not_there_is_named(host: Host, there: str, what: str) -> None:
    host.v2(there)
    with pytest.raises(JailError, match=re.escape(f"no cgroup controller {what}: ng.lenient")):
        share.Allot("jailng/7", "jailng/7/members", 100, False).apply({})


@pytest.mark.parametrize(("place", "weight"), [("0::/", "800"), ("0::/init.scope", "100"), ("0::/../..", "100")])
def test_all_jails_have_the_weight_of_a_process_on_each_processor_where_these_are_beside_them(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, weight: str
) -> None:
    """In cgroup2 without systemd, as with v1: the kernel parts a group's weight among the processors."""
    root = host.v2("cpu pids memory")
    host.directory("jailng", "")
    host.directory("jailng/7", "")
    for name in ("members", "init"):
        host.directory(f"jailng/7/{name}", "")
        (root / f"jailng/7/{name}/pids.max").touch()
    (root / "jailng/cpu.weight").write_text("100")
    (tmp_path / "pid 1").write_text(f"1:name=systemd:/x\n{place}\n")
    monkeypatch.setattr(share, "_HOSTS", str(tmp_path / "pid 1"))
    monkeypatch.setattr("posix.cpu_count", lambda: 8)
    share.Allot("jailng/7", "jailng/7/members", 100, False).apply({})
    assert (root / "jailng/cpu.weight").read_text() == weight
    assert (root / "jailng/cgroup.subtree_control").read_text() == "+pids +cpu +memory"


def test_v1_counts_pid_1(host: Host) -> None:
    host.v1("pids", "cpu", "memory")
    host.v2("", "unified")
    share.Allot("jailng/7", "jailng/7/members", 100, False)
    (host.top / "pids/jailng/7").mkdir(parents=True)
    (host.top / "pids/jailng/7/pids.max").touch()
    share.limit_processes("jailng/7", 100)
    assert (host.top / "pids/jailng/7/pids.max").read_text() == "101"
    share.limit_processes("jailng/7", share.UNLIMITED)
    assert (host.top / "pids/jailng/7/pids.max").read_text() == "max"
