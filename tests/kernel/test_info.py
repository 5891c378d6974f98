"""jailctl info: all of one jail, dead or alive."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from jailng.linux import ns
from tests.kernel.conftest import Command


def test_dead_or_alive(jail: Command, jailctl: Command, jexec: Command, small_root: Path, tmp_path: Path) -> None:
    """Text and JSON have the same facts; what a guest calls its processes cannot steer the terminal."""
    limits = "ng.limits=maxproc:deny=50"
    done = jail("-c", "name=cell", "jid=77", f"path={small_root}", "persist", "host.hostname=c.example", limits)
    assert done.returncode == 0, done.stderr
    strange = "sh -c 'sleep 600; true' \"$(printf 'x\\033[31m')\" >/dev/null 2>&1 </dev/null &"
    strange += "\nuntil pidof sleep; do :; done"
    assert jexec("cell", "/bin/busybox", "sh", "-c", strange).returncode == 0
    done = jailctl("info", "cell", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    until = time.monotonic() + 60
    while facts["use"]["maxproc"] != 2 and time.monotonic() < until:  # who has ended is counted until it is reaped
        facts = json.loads(jailctl("info", "cell", "--json").stdout)
    assert (facts["jid"], facts["name"], facts["state"], facts["hostname"]) == (77, "cell", "running", "c.example")
    assert facts["parameters"]["ng.limits"] == "maxproc:deny=50"
    assert facts["limits"] == ["jail:cell:maxproc:deny=50"]
    assert [one["uid"] for one in facts["members"]] == [0, 0]
    assert any("x\x1b[31m" in one["command"] for one in facts["members"])
    assert facts["use"]["maxproc"] == len(facts["members"]) == 2
    assert facts["uids"]["kind"] == "private" and facts["uids"]["count"] == 65536
    assert all(Path(place).is_dir() for place in facts["cgroups"].values()) and facts["cgroups"]
    done = jailctl("info", "77")
    assert "\x1b" not in done.stdout and "x\\x1b[31m" in done.stdout
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert ["state", "running"] in lines and ["init", f"pid {facts['init']}"] in lines
    assert ["limits", "jail:cell:maxproc:deny=50"] in lines
    # PID 1 is killed, and nobody has come upon it since.
    init = os.pidfd_open(facts["init"])
    signal.pidfd_send_signal(init, signal.SIGKILL)
    assert ns.ends_within(init, 60)
    os.close(init)
    facts = json.loads(jailctl("info", "cell", "--json").stdout)
    assert (facts["state"], facts["init"], facts["since"]) == ("ended", None, None) and "members" not in facts
    assert f"cgroup jailng/{facts['jid']}" in facts["undo"]
    assert "to undo" in jailctl("info", "77").stdout
    file = tmp_path / "jail.conf"
    file.write_text('web { path = "/nowhere"; ip4.addr = "198.51.100.10"; exec.start = "a", "b"; }\n')
    facts = json.loads(jailctl("info", "-f", str(file), "web", "--json").stdout)
    assert (facts["state"], facts["jid"], facts["path"]) == ("stopped", None, "/nowhere")
    assert facts["ip4"] == ["198.51.100.10"]
    assert jailctl("stop", "cell").returncode == 0
    assert jailctl("info", "cell").stderr == 'jailctl: jail "cell" not found\n'
    for words in ([], ["a", "b"], ["-x", "a"]):
        assert jailctl("info", *words).stderr.startswith("usage: jailctl info")
    done = jailctl("info", "-f", str(tmp_path / "none"), "web")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {tmp_path}/none: No such file or directory\n")
