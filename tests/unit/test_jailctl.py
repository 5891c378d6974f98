"""jailctl's verbs: each has a usage, a place in the manual, and --json if it lists something."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from jailng.cli.jailctl import _MODULES, VERBS, main
from jailng.conf.config import Jail
from jailng.ctl import state
from jailng.errors import JailError

MANUAL = (Path(__file__).resolve().parents[2] / "man/jailctl.8").read_text()
SYNOPSIS, DESCRIPTION = MANUAL.split(".Sh DESCRIPTION", 1)
OTHERS = ("rc", "rcipnat", "rcrctl")  # their words are rc.subr(8)'s
LISTINGS = (
    "audit", "doctor", "drops", "egress", "info", "list", "log", "logs", "packets", "ps", "rdr", "sessions", "sockstat",
    "sysctl", "top",
)  # fmt: skip


def usage(verb: str) -> str:
    return str(importlib.import_module(f"jailng.ctl.{_MODULES.get(verb, verb)}").USAGE)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - set(OTHERS)))
def test_a_verb_has_a_usage_that_names_it(verb: str) -> None:
    assert re.match(rf"usage: jailctl {verb}\b", usage(verb))
    assert all(line.startswith("       ") for line in usage(verb).splitlines()[1:])


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_in_the_manual(verb: str) -> None:
    assert re.search(rf"^\.Cm (\w+ \| )*{verb}\b", SYNOPSIS, re.MULTILINE)
    assert re.search(rf"^\.Ss jailctl (\w+, )*{verb}\b", DESCRIPTION, re.MULTILINE)


@pytest.mark.parametrize("verb", LISTINGS)
def test_a_listing_has_json(verb: str) -> None:
    assert "--json" in usage(verb)


def test_h_alone_asks_for_the_usage(capfd: pytest.CaptureFixture[str]) -> None:
    """With more behind it it is the verb's own: sysctl's -h."""
    for words in (["cp", "-h"], ["cp", "--help"], ["cp", "--help", "more"], ["sysctl", "-h"]):
        assert main(words) == 0
        assert capfd.readouterr().out == usage(words[0]) + "\n"
    assert main(["sysctl", "-h", "security.jail.jail_max_af_ips"]) == 0
    assert capfd.readouterr().out == "security.jail.jail_max_af_ips: 255\n"


def test_help_of_a_verb(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "cp"]) == 0
    assert capfd.readouterr().out == usage("cp") + "\n"
    assert main(["help", "nonsense"]) == 1
    assert capfd.readouterr().err == "jailctl: nonsense: no such verb: jailctl help has them all\n"
    assert main(["help"]) == 0
    assert capfd.readouterr().out.startswith("usage: jailctl verb [argument ...]\n")


@pytest.mark.parametrize(
    ("words", "status"),
    [("drops", 1), ("log x", 1), ("log verify x", 2), ("packets x", 1), ("replay x", 1), ("sessions", 1),
     ("watch --json x", 1)],
)  # fmt: skip
def test_what_is_root_s(
    words: str, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Others were told that there is nothing, and packets listened to nothing, for ever."""
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    verb = words.split()[0]
    assert main(words.split()) == status
    assert capfd.readouterr().err == f"jailctl: {verb}: Operation not permitted\n"
    assert main([verb, "--help"]) == 0


@pytest.mark.parametrize("verb", ["info", "list", "logs"])
def test_a_configuration_that_cannot_be_read_may_have_the_jail(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str | None) -> list[Jail]:
        raise JailError("/etc/jail.conf: unexpected EOF")

    monkeypatch.setattr(state, "configured", broken)
    assert main([verb, "no-such-jail"]) == 1
    assert capfd.readouterr().err == 'jailctl: jail "no-such-jail" not found; /etc/jail.conf: unexpected EOF\n'
