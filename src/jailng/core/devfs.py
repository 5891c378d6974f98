"""What is in a jail's /dev where nobody has asked for anything else.

Other rule sets than the usual one are worked out by core/rulesets.py. The directories ``pts``, ``shm`` and ``mqueue``
each have a mount on them, whatever the rules say; core/rootfs.py makes it all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # name, mode with the type (st_mode), major, minor, owner's uid and gid inside
    Node = tuple[str, int, int, int, int, int]
    Link = tuple[str, str]

    from jailng.params.model import Parameters

RULES = "/etc/devfs.rules"
JAIL_RULESET, VNET_RULESET = 4, 5  # what jail(8) takes for devfs_ruleset = 0

# Documentation/admin-guide/devices.txt
DEVICES: tuple[Node, ...] = (
    ("null", 0o020666, 1, 3, 0, 0),
    ("zero", 0o020666, 1, 5, 0, 0),
    ("full", 0o020666, 1, 7, 0, 0),
    ("random", 0o020666, 1, 8, 0, 0),
    ("urandom", 0o020666, 1, 9, 0, 0),
    ("tty", 0o020666, 5, 0, 0, 0),
)
LINKS: tuple[Link, ...] = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# Devices that a rule set shows only to a jail with this parameter as well.
GATED = {"kvm": "allow.vmm", "fuse": "allow.mount.fusefs"}


def ruleset(params: Parameters) -> int:
    """The number of the rule set by which the jail's /dev is made."""
    return params.number("devfs_ruleset") or (VNET_RULESET if params["vnet"] == "new" else JAIL_RULESET)


def shown(ruleset: int = 0) -> tuple[list[Node], list[Link]]:
    """The device nodes and the symbolic links (name, target) of a /dev under one of FreeBSD's rule sets.

    0 means 4, as for jail(8). Raises JailError for a rule set that there is not.
    """
    if ruleset in (0, JAIL_RULESET, VNET_RULESET):
        return list(DEVICES), list(LINKS)  # what the rules come to: tests/unit/test_devfs.py holds the two together
    from jailng.core import rulesets

    return rulesets.shown(ruleset)
