"""A rule of ng.egress: what may leave a jail. The first rule that fits counts; what fits none is dropped.

    pass|drop [tcp|udp|tcp,udp|icmp] [to PLACE[,...]] [port PORT[-PORT][,...]] [rate N/UNIT [burst N]] [log ...]

PLACE is any (all but the host itself), world (neither the host, nor jails, nor a LAN), jails, lan, host, a network or
an address. An address counts whoever has it; the host itself is meant by ``host`` and by its address alone.
A preset stands for rules: see ``PRESETS``.
"""

from __future__ import annotations

from jailng.params.rules import TRANSPORTS, Words, show_network, show_ports
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.params.rules import Log, Network, Ports

PRESETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "honeypot": (
        "pass tcp,udp to world port 53 rate 10/second burst 20",
        "pass tcp to world port 80,443 rate 5/second burst 20",
    ),
}
PLACES = ("any", "world", "jails", "lan", "host")
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_ACTIONS = ("pass", "drop")
_PROTOCOLS = {**TRANSPORTS, "icmp": ("icmp",)}
_MOST = 10**6


class Rule:
    """``protocols`` and ``ports`` are empty where any will do. A preset has its name in ``preset`` and no more.

    ``rate`` is how many flows may begin in one ``unit`` (0: any number), and ``burst`` how many at once.
    """

    __slots__ = ("burst", "log", "passes", "places", "ports", "preset", "protocols", "rate", "unit")

    def __init__(self, passes: bool, preset: str = "") -> None:
        self.passes = passes
        self.preset = preset
        self.protocols: tuple[str, ...] = ()
        self.places: list[str | Network] = []
        self.ports: list[Ports] = []
        self.rate = self.burst = 0
        self.unit = "second"
        self.log: Log | None = None

    @property
    def text(self) -> str:
        """All of it in one form."""
        if self.preset:
            return self.preset
        parts = ["pass" if self.passes else "drop", *([",".join(self.protocols)] if self.protocols else [])]
        places = [place if isinstance(place, str) else show_network(place) for place in self.places]
        parts.append(f"to {','.join(places)}")
        if self.ports:
            parts.append(f"port {','.join([show_ports(ports) for ports in self.ports])}")
        if self.rate:
            parts.append(f"rate {self.rate}/{self.unit} burst {self.burst}")
        if self.log is not None:
            parts.append(self.log.text)
        return " ".join(parts)


def split(text: str) -> list[str]:
    """The rules of a list: one begins where ``pass``, ``drop`` or a preset follows a comma."""
    rules: list[str] = []
    for part in text.split(","):
        word = part.split()[:1]
        if not rules or not word or word[0] in _ACTIONS or word[0] in PRESETS:
            rules.append(part)
        else:
            rules[-1] += f",{part}"
    return [rule for rule in rules if rule.strip()]


def read(texts: Iterable[str]) -> list[Rule]:
    """The rules of a list whose elements may be lists themselves. Raises JailError."""
    return [parse(rule) for text in texts for rule in split(text)]


def parse(text: str) -> Rule:
    """Read one rule, or the name of a preset. Raises JailError with the rule in it."""
    words = Words("ng.egress", text)
    if words.next in PRESETS:
        made = Rule(False, words.take(""))
        if words.left:
            raise words.wrong("a preset stands alone; rules follow after a comma")
        return made
    action = words.take("pass or drop")
    if action not in _ACTIONS:
        raise words.wrong(f'not pass, drop, {" or ".join(PRESETS)}: "{visible(action)}"')
    made = Rule(action == "pass")
    if words.next and words.next not in ("to", "port", "rate", "log"):
        protocol = ",".join(words.listed("the protocol"))
        if protocol not in _PROTOCOLS:
            raise words.wrong(f'not tcp, udp, tcp,udp or icmp: "{visible(protocol)}"')
        made.protocols = _PROTOCOLS[protocol]
    made.places = [_place(words, one) for one in words.listed("the destination")] if words.takes("to") else ["any"]
    if words.takes("port"):
        if not made.protocols or made.protocols == ("icmp",):
            raise words.wrong("ports are those of tcp or udp, which has to be named")
        made.ports = [words.ports(one) for one in words.listed("the port")]
    if words.takes("rate"):
        _read_rate(words, made)
    made.log = words.log()
    return made


def _place(words: Words, text: str) -> str | Network:
    return text if text in PLACES else words.network(text)


def _read_rate(words: Words, made: Rule) -> None:
    if not made.passes:
        raise words.wrong("what is dropped has no rate")
    number, _, unit = words.take("the rate").partition("/")
    made.rate = words.number(number, "a rate", _MOST, 1)
    if unit not in SECONDS:
        raise words.wrong(f'not {", ".join(SECONDS)}: "{visible(unit)}"')
    made.unit = unit
    made.burst = words.number(words.take("the burst"), "a burst", _MOST, 1) if words.takes("burst") else made.rate


def expanded(rules: list[Rule]) -> list[Rule]:
    """The rules, presets replaced by those that they stand for."""
    found: list[Rule] = []
    for rule in rules:
        found += [parse(text) for text in PRESETS[rule.preset]] if rule.preset else [rule]
    return found
