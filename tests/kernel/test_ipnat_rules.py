"""Rules of ipnat(5) into the kernel and out of it again: what ``ipnat -l`` shows is what was read, in its order."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.ruleset import compile_rules
from jailng.nat.translation import Loaded
from tests.kernel.conftest import Command
from tests.unit.test_nat_agreement import few_names, rules  # noqa: F401  # a fixture: no name server is asked
from tests.unit.test_nat_examples import ACCEPTED


def carried(texts: list[str]) -> list[str]:
    """Those of some rules that can be read and that Linux carries, each once, as they are printed."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            (rule,) = parse("f", text.encode()).rules
            shown = printed(rule, resolve=False)
            compile_rules("f", [(Loaded(1, rule), shown)])
            found[shown] = None
        except JailError:
            continue
    return list(found)


def listed(ipnat: Command) -> list[str]:
    done = ipnat("-lR")
    assert (done.stderr, done.returncode) == ("", 0)
    head, _, rest = done.stdout.partition("\n")
    assert head == "List of active MAP/Redirect filters:"
    return rest.partition("\n\nList of active sessions:\n")[0].split("\n")


def loaded(ipnat: Command, lines: list[str]) -> None:
    done = ipnat("-C", "-f", "-", stdin="\n".join(lines) + "\n", timeout=300)
    said = [line for line in done.stderr.splitlines() if ": Linux leads nothing there unless " not in line]
    assert (said, done.returncode) == ([], 0), lines


def test_freebsds_examples_all_at_once(ipnat: Command) -> None:
    lines = carried([text for text, _ in ACCEPTED])
    assert len(lines) > 30
    loaded(ipnat, lines)
    assert listed(ipnat) == lines
    assert ipnat("-C").returncode == 0


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(rules(), min_size=20, max_size=40))
def test_rules_that_are_made_up(ipnat: Command, texts: list[str]) -> None:
    lines = carried(texts)
    if lines:
        loaded(ipnat, lines)
        assert listed(ipnat) == lines
        # What is listed is rules; loaded, they are listed again.
        loaded(ipnat, listed(ipnat))
        assert listed(ipnat) == lines
    assert ipnat("-C").returncode == 0
