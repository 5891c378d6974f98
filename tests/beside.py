"""A pytest plugin: two more processes run tests beside the first, which shows the results of all as its own.

A machine has two processors, and a test mostly waits, for one command after the other. The kernel tests cannot have
threads (tests/kernel/stage.py), nor what distributes tests by means of them. So ``-p tests.beside`` starts the same
pytest twice more: each begins with a module of its own, and takes from there on, and round, what nobody has taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from pathlib import Path

import pytest

_PROCESSES = 3  # two of them keep two processors three quarters busy
_NUMBER = "JAILNG_TESTS_BESIDE"  # in one that was started: which of them it is, from 1
_PLACE = "JAILNG_TESTS_PLACE"  # there too: the directory where all say what they have taken


class _Other:
    """Another process, as the first sees it."""

    def __init__(self, config: pytest.Config, place: Path, number: int) -> None:
        self.config = config
        self.output = place / f"output-{number}"
        _reports(place, number).touch()
        self.reports = _reports(place, number).open()
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *config.invocation_params.args],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, _NUMBER: str(number), _PLACE: str(place)},
            )  # fmt: skip

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
            raise pytest.UsageError(f"the tests beside ended with {status}:\n{self.output.read_text()}")

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
    if _NUMBER in os.environ:
        _run(_taken(modules, Path(os.environ[_PLACE]), int(os.environ[_NUMBER])), session)
        return True
    # Not in /tmp, where a test may have mounted something when its report is written.
    with tempfile.TemporaryDirectory(prefix="jailng-tests-", dir="/var/tmp") as made, ExitStack() as ended:
        others = []
        for number in range(1, _PROCESSES):
            others.append(_Other(session.config, Path(made), number))
            ended.callback(others[-1].end)
        _run(_taken(modules, Path(made), 0), session, others)
        for other in others:
            other.finish()
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In another process: tell the first."""
    if _NUMBER in os.environ:
        with _reports(Path(os.environ[_PLACE]), int(os.environ[_NUMBER])).open("a") as file:
            file.write(json.dumps(_serialized(report)) + "\n")


_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    """Reports are written by hooks of the configuration, which the hook of a report is not handed."""
    _config.append(config)


def _serialized(report: pytest.TestReport) -> object:
    return _config[-1].hook.pytest_report_to_serializable(config=_config[-1], report=report)


def _reports(place: Path, number: int) -> Path:
    return place / f"reports-{number}"


def _taken(modules: list[list[pytest.Item]], place: Path, number: int) -> Iterator[list[pytest.Item]]:
    first = len(modules) * number // _PROCESSES
    for items in modules[first:] + modules[:first]:
        name = items[0].nodeid.partition("::")[0].replace("/", ":")
        with suppress(FileExistsError):
            (place / name).mkdir()
            yield items


def _run(modules: Iterator[list[pytest.Item]], session: pytest.Session, others: Sequence[_Other] = ()) -> None:
    """What a module's fixtures are torn down for is the next test, so the next module is taken while one still runs."""
    items = next(modules, [])
    while items:
        following = next(modules, [])
        after = [*items[1:], *following[:1], None]
        for item, nextitem in zip(items, after, strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            for other in others:
                other.show()
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        items = following
