"""The plugin that has three processes run the tests: each test once, and all results in one place."""

import os
import subprocess
import sys
from pathlib import Path

# A process waits until all have come to a test: on a busy machine one could do all by itself.
_TOGETHER = """
import os, pathlib, time, pytest

@pytest.fixture(autouse=True)
def together():
    come = pathlib.Path({place!r}, "come")
    come.mkdir(exist_ok=True)
    (come / os.environ.get("JAILNG_TESTS_BESIDE", "0")).touch()
    until = time.monotonic() + 60
    while len(os.listdir(come)) < 3 and time.monotonic() < until:
        time.sleep(0.01)
"""
_MODULE = """
import pathlib, pytest

@pytest.mark.parametrize("number", range(3))
def test_once(number):
    with open({log!r}, "a") as log:
        print({name!r}, number, pathlib.Path("/proc/self").readlink(), file=log)
"""


def _pytest(tests: Path, checkout: Path) -> subprocess.CompletedProcess[str]:
    (tests / "pytest.ini").write_text("[pytest]\n")
    (tests / "conftest.py").write_text(_TOGETHER.format(place=str(tests)))
    outer = {name: value for name, value in os.environ.items() if not name.startswith("JAILNG_TESTS_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.beside", "--rootdir", str(tests), str(tests)],
        capture_output=True, text=True, cwd=checkout, env={**outer, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def test_every_test_is_run_once_by_one_of_three_processes(tmp_path: Path, checkout: Path) -> None:
    log = tmp_path / "log"
    for number in range(8):
        name = f"test_{number}.py"
        (tmp_path / name).write_text(_MODULE.format(log=str(log), name=name))
    done = _pytest(tmp_path, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 passed" in done.stdout.splitlines()[-1]
    ran = [line.split() for line in log.read_text().splitlines()]
    assert sorted(line[:2] for line in ran) == [[f"test_{n}.py", str(m)] for n in range(8) for m in range(3)]
    assert len({line[2] for line in ran}) == 3


def test_a_failure_in_any_process_is_shown_and_fails_the_whole(tmp_path: Path, checkout: Path) -> None:
    for number in range(6):
        (tmp_path / f"test_{number}.py").write_text(f"def test_it():\n    assert 'of {number}' == ''\n")
    done = _pytest(tmp_path, checkout)
    assert done.returncode == 1
    assert "6 failed" in done.stdout.splitlines()[-1]
    assert all(f"of {number}" in done.stdout for number in range(6))


def test_a_process_that_dies_fails_the_whole(tmp_path: Path, checkout: Path) -> None:
    for number in range(6):
        (tmp_path / f"test_{number}.py").write_text(
            "import os\ndef test_it():\n    if 'JAILNG_TESTS_BESIDE' in os.environ:\n        os._exit(3)\n"
        )
    done = _pytest(tmp_path, checkout)
    assert done.returncode not in (0, 1)
    assert "ended with 3" in done.stdout + done.stderr
