"""What one jail has in a table of nf_tables that several jails share, added and taken out in one transaction."""

from __future__ import annotations

from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message, Netlink
    from jailng.linux.nftrules import Element
    from jailng.params.rules import Log

BEFORE_FILTER = -10  # a priority
_LOGS = (10, 20)  # lines in a second, and at once: what fills the host's disk is not for a jail, or others, to say


class Fragment:
    """Chains, whose names begin with the jail's, their rules, and the elements that lead packets there."""

    __slots__ = ("chains", "elements", "jid", "rules", "table")

    def __init__(self, table: str, jid: int) -> None:
        self.table = table
        self.jid = jid
        self.chains: list[str] = []
        self.rules: list[Message] = []
        self.elements: dict[str, list[Element]] = {}

    def chain(self, name: str) -> str:
        """Another chain; its name."""
        self.chains.append(name)
        return name

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        """A rule at the end of a chain."""
        made = nft.new_rule(self.table, chain, *expressions)
        self.rules.append(nfr.commented(made, comment) if comment else made)

    def log(self, chain: str, name: str, log: Log) -> None:
        """A rule that tells of packets as ``log`` says, not of all; ``name`` is the jail's."""
        prefix = f"jailng {name} {log.prefix}".rstrip() + ": "
        self.rule(chain, nfr.limit(_LOGS[0], 1, _LOGS[1], over=False), nfr.log(prefix, log.group))

    def element(self, map_: str, key: bytes, last: bytes = b"", chain: str = "") -> None:
        """An element of a map or set of the table's."""
        self.elements.setdefault(map_, []).append((key, last, chain))

    def has_ranges(self) -> bool:
        """Whether a key of it is a range of more than one."""
        return any(last not in (b"", key) for elements in self.elements.values() for key, last, _ in elements)

    def new_chains(self) -> list[Message]:
        """What adds its chains."""
        return [nfr.new_plain_chain(self.table, chain) for chain in self.chains]

    def new_rules(self) -> list[Message]:
        """What adds its rules, whose chains are there."""
        return self.rules

    def new_elements(self) -> list[Message]:
        """What adds its elements."""
        return [
            message
            for map_, elements in self.elements.items()
            for message in nfr.new_elements(self.table, map_, elements)
        ]

    def without_elements(self) -> list[Message]:
        """What takes its elements out; not those by the name of an interface that is another jail's as well."""
        made: list[Message] = []
        for map_, elements in self.elements.items():
            mine = [element for element in elements if element[2] or owner_of_interface(element[0]) == self.jid]
            made += nfr.delete_elements(self.table, map_, mine)
        return made


def chain_name(jid: int) -> str:
    """What the names of a jail's chains begin with."""
    return f"jail{jid}"


def owner(chain: str) -> int:
    """The jid of the jail whose chain that is; 0 if it is none's."""
    digits = chain.removeprefix("jail").partition("-")[0]
    return int(digits) if chain.startswith("jail") and digits.isdigit() else 0


def owner_of_interface(key: bytes) -> int:
    """The jid of the jail whose interface on the host a key begins with the name of; 0 if it is none's."""
    name = key[:16].rstrip(b"\0").decode("utf-8", "replace")
    digits = name.removeprefix("jng").partition("-")[0]
    return int(digits) if name.startswith("jng") and digits.isdigit() else 0


class Table:
    """A table as it is now: which chains it has, and what its maps lead to.

    ``maps`` are the names of those, True where a key begins with the name of an interface of a jail's. An element is
    whose that is, and whose the chain is that it leads to.
    """

    __slots__ = ("chains", "elements", "maps", "name", "there")

    def __init__(self, netlink: Netlink, name: str, chains: list[tuple[str, str]], maps: dict[str, bool]) -> None:
        self.name = name
        self.maps = maps
        self.chains = [chain for table, chain in chains if table == name]
        self.there = bool(self.chains)
        self.elements: dict[str, list[Element]] = {}
        for map_ in maps if self.there else ():
            found: list[Element] = []
            for _, body in netlink.ask(nft.get_elements(name, map_)):
                found += nfr.elements(body)
            self.elements[map_] = found

    def without(self, jids: set[int]) -> list[Message]:
        """What takes out all that these jails have."""
        made: list[Message] = []
        for map_, elements in self.elements.items():
            gone = [(key, last, "") for key, last, chain in elements if self.is_of(map_, key, chain, jids)]
            made += nfr.delete_elements(self.name, map_, gone)
        chains = [chain for chain in self.chains if owner(chain) in jids]
        made += [nfr.delete_rules(self.name, chain) for chain in chains]
        return made + [nfr.delete_chain(self.name, chain) for chain in chains]

    def is_of(self, map_: str, key: bytes, chain: str, jids: set[int]) -> bool:
        """Whether an element is one of these jails'."""
        return owner(chain) in jids or (self.maps[map_] and owner_of_interface(key) in jids)

    def others(self, jids: set[int]) -> bool:
        """Whether other jails than these have something in it."""
        return any(owner(chain) not in (0, *jids) for chain in self.chains)
