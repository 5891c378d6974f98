"""A pytest plugin: a second process runs tests beside the first, which shows the results of both as its own.

A machine has two processors, and a test mostly waits for one command after the other. The kernel tests cannot have
threads (tests/kernel/stage.py), nor what distributes tests by means of them. So ``-p tests.beside`` starts the same
pytest once more: the one begins with the first module, the other with the last, and each takes what nobody has taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pytest

_PLACE = "JAILNG_TESTS_BESIDE"  # in the second process: the directory where both say what they have taken
_REPORTS = "reports"
_OUTPUT = "output"


class _Second:
    """The other process, as the first sees it."""

    def __init__(self, config: pytest.Config, place: Path) -> None:
        self.config = config
        self.place = place
        (place / _REPORTS).touch()
        self.reports = (place / _REPORTS).open()
        argv = [sys.executable, "-m", "pytest", *config.invocation_params.args]
        with (place / _OUTPUT).open("w") as output:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, _PLACE: str(place)}
            )

    def show(self) -> None:
        """Report what it has reported since."""
        while True:
            at = self.reports.tell()
            line = self.reports.readline()
            if not line.endswith("\n"):
                self.reports.seek(at)
                return
            hook = self.config.hook
            data = json.loads(line)
            if data["outcome"] == "skipped" and isinstance(data["longrepr"], list):
                data["longrepr"] = tuple(data["longrepr"])  # path, line, reason; JSON knows lists alone
            report = hook.pytest_report_from_serializable(config=self.config, data=data)
            hook.pytest_runtest_logreport(report=report)

    def finish(self) -> None:
        """Wait for its end. Raises pytest.UsageError where that was none of tests that ran."""
        status = self.process.wait()
        self.show()
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise pytest.UsageError(f"the tests beside ended with {status}:\n{(self.place / _OUTPUT).read_text()}")

    def end(self) -> None:
        """Be rid of it, whatever it does."""
        self.reports.close()
        self.process.kill()
        self.process.wait()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run what nobody has taken, module by module."""
    if session.testsfailed or session.config.option.collectonly:
        return None
    modules = [list(items) for _, items in groupby(session.items, key=lambda item: item.nodeid.partition("::")[0])]
    place = os.environ.get(_PLACE)
    if place:
        _run(_taken(modules[::-1], Path(place)), session)
        return True
    # Not in /tmp, where a test may have mounted something when its report is written.
    with tempfile.TemporaryDirectory(prefix="jailng-tests-", dir="/var/tmp") as made:
        second = _Second(session.config, Path(made))
        try:
            _run(_taken(modules, Path(made)), session, second)
            second.finish()
        finally:
            second.end()
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the second process: tell the first."""
    place = os.environ.get(_PLACE)
    if place:
        with Path(place, _REPORTS).open("a") as file:
            file.write(json.dumps(_serialized(report)) + "\n")


_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    """Reports are written by hooks of the configuration, which the hook of a report is not handed."""
    _config.append(config)


def _serialized(report: pytest.TestReport) -> object:
    return _config[-1].hook.pytest_report_to_serializable(config=_config[-1], report=report)


def _taken(modules: list[list[pytest.Item]], place: Path) -> Iterator[list[pytest.Item]]:
    for items in modules:
        name = items[0].nodeid.partition("::")[0].replace("/", ":")
        with suppress(FileExistsError):
            (place / name).mkdir()
            yield items


def _run(modules: Iterator[list[pytest.Item]], session: pytest.Session, second: _Second | None = None) -> None:
    """What a module's fixtures are torn down for is the next test, so the next module is taken while one still runs."""
    items = next(modules, [])
    while items:
        following = next(modules, [])
        after = [*items[1:], *following[:1], None]
        for item, nextitem in zip(items, after, strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            if second is not None:
                second.show()
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        items = following
