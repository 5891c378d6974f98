"""pytest in the machine tells what failed when it fails: a run takes an hour, and may be stopped before its end."""

from __future__ import annotations

import pytest


class _Teller:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\n== {report.when} of {report.nodeid}\n{report.longreprtext}")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest, where ``-p`` names this module."""
    config.pluginmanager.register(_Teller(config))
