"""What the three commands of the hot path load, to the module: every one costs a part of a jail's milliseconds.

Where this fails because a module was added on purpose, add it to ``LOADED``, and say in the commit what it costs:
``python3 -IS -X importtime bin/jail --plan -c path=/ command=/bin/true``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.imports import FORBIDDEN, run

# With these arguments a command does all that it does before it touches the kernel.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "jail": ("--plan", "-c", "path=/", "command=/bin/true"),
    "jls": ("-j", "no-such-jail"),
    "jexec": ("no-such-jail", "/bin/true"),
}
_LIST = """
    __future__ _struct fcntl gc
    jailng jailng.start jailng.errors jailng.linux jailng.linux.libc jailng.linux.ns jailng.linux.processid
    jailng.params jailng.params.values jailng.core jailng.core.index jailng.core.registry jailng.cli
"""
_MAKE_OR_ENTER = f"""{_LIST}
    jailng.linux.caps jailng.linux.cgroup jailng.linux.controller jailng.linux.filekind jailng.linux.landlock
    jailng.linux.mount
    jailng.params.model jailng.params.table
    jailng.core.confinement jailng.core.jailinit jailng.core.privileges jailng.core.process jailng.core.program
    jailng.engine jailng.engine.command
    jailng.cli.getopt jailng.cli.printing
"""
LOADED = {
    "jail": f"""{_MAKE_OR_ENTER}
        jailng.core.blueprint jailng.core.boot jailng.core.builder jailng.core.conflicts jailng.core.create
        jailng.core.devfs
        jailng.core.devicecontrol jailng.core.reach
        jailng.core.operation jailng.core.origin jailng.core.own jailng.core.procfiles jailng.core.rootfs
        jailng.core.namespaces jailng.core.procfs
        jailng.core.share jailng.core.tunable jailng.engine.life jailng.engine.beginning jailng.cli.jail
        jailng.engine.plan""",  # the last for --plan
    "jls": f"{_LIST} jailng.core.get jailng.cli.jls",
    "jexec": f"""{_MAKE_OR_ENTER}
        jailng.linux.signals jailng.core.attach jailng.core.stdio jailng.core.waiting
        jailng.engine.inside jailng.cli.jexec""",
}

COMMANDS = sorted(ARGUMENTS)
_MOUNTING = {
    "_ctypes",
    "jailng.linux.content",
    "jailng.linux.foreign",
    "jailng.linux.hierarchies",
    "jailng.linux.mountfd",
}


def _script(checkout: Path, command: str) -> Path:
    if not (checkout / f"src/jailng/cli/{command}.py").exists():
        pytest.skip(f"jailng.cli.{command} is not written yet")
    return checkout / "bin" / command


def _loaded(checkout: Path, command: str) -> set[str]:
    if command != "jls" and os.geteuid() != 0:
        pytest.skip("the compiled filters are kept where only root may read them")
    script = _script(checkout, command)
    run(script, *ARGUMENTS[command])  # compiles what is not compiled yet
    done, loaded = run(script, *ARGUMENTS[command])
    assert done.returncode in (0, 1), done.stderr
    return loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_the_hot_path_loads_these_modules_and_no_other(checkout: Path, command: str) -> None:
    loaded, pinned = _loaded(checkout, command), set(LOADED[command].split())
    if " - cgroup" not in Path("/proc/self/mountinfo").read_text():
        loaded -= _MOUNTING  # a bare chroot: where nobody has mounted them, jailng does
    assert sorted(loaded - pinned) == [], "these are new"
    assert sorted(pinned - loaded) == [], "these are no longer loaded: take them out of the list"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_hot_path_loads_nothing_that_is_dear(checkout: Path, command: str) -> None:
    assert not _loaded(checkout, command) & FORBIDDEN


def test_a_dear_module_would_be_seen(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/python3 -IS\nimport posix\nif posix.fork() == 0:\n    import json\nposix._exit(0)\n")
    _, loaded = run(script)
    assert "json" in loaded
    script.write_text("#!/usr/bin/python3 -IS\nimport posix\n")
    _, loaded = run(script)
    assert not loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_an_entry_script_finds_its_checkout_through_links(checkout: Path, tmp_path: Path, command: str) -> None:
    """Wherever a link to it lies, and whatever lies beside the link."""
    script = _script(checkout, command)
    (tmp_path / "bin").mkdir()
    (tmp_path / "src/jailng").mkdir(parents=True)
    (tmp_path / "src/jailng/__init__.py").write_text("raise SystemExit('the wrong package')\n")
    (tmp_path / "bin/again").symlink_to(script)
    (tmp_path / "bin" / command).symlink_to("again")
    done, loaded = run(tmp_path / "bin" / command, *ARGUMENTS[command])
    assert f"jailng.cli.{command}" in loaded, done.stderr
