"""What ``jailctl doctor`` finds, and the network of the host's jails as their records tell of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from jailng.core import origin, privileges, registry
from jailng.core.joining import is_loopback
from jailng.core.registry import Record
from jailng.params.model import Parameters


@dataclass(frozen=True)
class Finding:
    """One thing that was found: what is so, what follows from it, and the commands that mend it.

    Without ``wrong`` it is only worth knowing.
    """

    what: str
    remedy: tuple[str, ...] = ()
    wrong: bool = True


def word(name: str) -> str:
    """The name of a jail in a command: root inside chooses those of its jails, and a shell may read what is shown."""
    return shlex.quote(name)


@dataclass(frozen=True)
class Way:
    """How a jail is reached: an interface of the host's, and pairs of the interface that has an address, and that.

    The interface is "" where it is a loopback.
    """

    link: str
    carried: tuple[tuple[str, str], ...]

    @property
    def interfaces(self) -> dict[int, set[str]]:
        """The host's interfaces towards a LAN, by family."""
        found: dict[int, set[str]] = {}
        for interface, address in self.carried:
            if interface:
                found.setdefault(6 if ":" in address else 4, set()).add(interface)
        return found


@dataclass(frozen=True)
class Networked:
    """A running jail with addresses and a network namespace for them."""

    record: Record
    ways: tuple[Way, ...]
    switches: frozenset[str]
    nowhere: tuple[str, ...]

    @property
    def name(self) -> str:
        """The jail's name."""
        return self.record.name

    @property
    def again(self) -> str:
        """The command that starts it anew."""
        return f"jail -rc {word(self.name)}"

    @property
    def policed(self) -> bool:
        """Whether there are rules for it on the host: ng.rdr or ng.egress, its own or of a jail above."""
        return any(line.startswith("policy ") for line in self.record.undo)


@dataclass
class Jails:
    """The jails of this network namespace: those that run, and what the records of the others still tell of."""

    running: list[Networked] = field(default_factory=list)
    sharing: list[Record] = field(default_factory=list)  # these have addresses of the host's stack (ng.stack=shared)
    ended: list[Record] = field(default_factory=list)

    @property
    def switches(self) -> frozenset[str]:
        """Those that any of them needs."""
        return frozenset().union(*[jail.switches for jail in self.running])


def jails() -> Jails:
    """As the registry has them now."""
    found = Jails()
    for jid in registry.jids():
        record = registry.load(jid)
        if record is None or not record.current or not origin.is_here(record):
            continue
        if not record.alive():
            found.ended.append(record)
        elif (known := _networked(record)) is not None:
            found.running.append(known)
        elif privileges.share_stack(Parameters.from_texts(record.params, known=True)):
            found.sharing.append(record)
    return found


def _networked(record: Record) -> Networked | None:
    params = Parameters.from_texts(record.params, known=True)
    given = [address.bare for name in ("ip4.addr", "ip6.addr") for address in params.addresses(name)]
    if not given or privileges.share_network(params) or privileges.share_stack(params) or privileges.has_vnet(params):
        return None
    ways, switches = [], set()
    for line in record.undo:
        kind, *words = line.split(" ")
        if kind == "firewall":
            switches |= set(words[1:])
        elif kind in ("addresses", "joined"):
            link, *carried = words[kind == "joined" :]
            parts = [word.rpartition("|") for word in carried]
            ways.append(Way(link, tuple([(interface, address) for interface, _, address in parts])))
    reached = {address for way in ways for _, address in way.carried}
    nowhere = [address for address in given if address not in reached and not is_loopback(address)]
    return Networked(record, tuple(ways), frozenset(switches), tuple(nowhere))
