"""What the three commands of the hot path load, to the module: every one costs a part of a jail's milliseconds.

Where this fails because a module was added on purpose, add it to ``LOADED``, and say in the commit what it costs:
``python3 -IS -X importtime bin/jail --plan -c path=/ command=/bin/true``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.imports import FORBIDDEN, run

# Each command: arguments with which it does what it can do without root, and the modules that this takes.
ARGUMENTS = {
    "jail": ("--plan", "-c", "path=/", "command=/bin/true"),
    "jls": (),
    "jexec": ("no-such-jail", "/bin/true"),
}
LOADED: dict[str, str] = {
    "jail": "",
    "jls": "",
    "jexec": "",
}

COMMANDS = sorted(ARGUMENTS)


def _script(checkout: Path, command: str) -> Path:
    if not (checkout / f"src/jailng/cli/{command}.py").exists():
        pytest.skip(f"jailng.cli.{command} is not written yet")
    return checkout / "bin" / command


@pytest.mark.parametrize("command", COMMANDS)
def test_the_hot_path_loads_these_modules_and_no_other(checkout: Path, command: str) -> None:
    done, loaded = run(_script(checkout, command), *ARGUMENTS[command])
    assert done.returncode in (0, 1), done.stderr
    assert sorted(loaded) == sorted(LOADED[command].split()), f"{command} loads: {' '.join(sorted(loaded))}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_hot_path_loads_nothing_that_is_dear(checkout: Path, command: str) -> None:
    _, loaded = run(_script(checkout, command), *ARGUMENTS[command])
    assert not loaded & FORBIDDEN


def test_a_dear_module_would_be_seen(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/python3 -IS\nimport posix\nif posix.fork() == 0:\n    import json\nposix._exit(0)\n")
    _, loaded = run(script)
    script.write_text("#!/usr/bin/python3 -IS\nimport posix\n")
    _, nothing = run(script)
    assert "json" in loaded
    assert not nothing - {"posix"}


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
