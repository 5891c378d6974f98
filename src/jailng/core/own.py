"""What a jail may know of itself: a file in its /dev, made with it, written anew by ``jail -m``, read inside.

The file lies in the jail's tree, so root inside can write to it or take it away, and then misleads nobody but itself:
nothing that decides anything reads it. What is done with the file once it is there is ``core.ownfile``.
"""

from __future__ import annotations

import posix

from jailng.params.values import LIMITS, escape, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.program import Program
    from jailng.params.model import Parameters

FOLDER, FILE = b".jailng", b"self"
DIRECTORY = "/dev/.jailng"
PATH = f"{DIRECTORY}/self"
CREATE = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# With all of allow.*: not what the host calls the jail and where it has it, nor meta, which is the host's alone.
_TOLD = (
    "securelevel children.max enforce_statfs devfs_ruleset env vnet ip4 ip6 host host.hostname host.domainname "
    "host.hostuuid host.hostid osrelease osreldate sysvmsg sysvsem sysvshm"
).split()


def text(params: Parameters) -> bytes:
    """The content of the file, a line ``name=value`` each, defaults among them, and the host's ``LIMITS``."""
    from jailng.params.table import names  # whoever has Parameters has it; for ``jailed`` alone it would be dear

    allowed = [name for name in names() if name.startswith("allow.") and name != "allow.dying"]
    lines = [f"{name}={escape(show(params[name]))}\n" for name in _TOLD]
    lines += [f"{name}={'true' if params.flag(name) else 'false'}\n" for name in allowed]
    lines += [f"{name}={limit}\n" for name, limit in LIMITS.items()]
    return "".join(lines).encode("utf-8", "surrogateescape")


def lay_down(way: Program, dev: int, new: int, content: bytes) -> None:
    """Have the builder make the file, whose directory is there, in a /dev that is nowhere yet.

    It keeps the file as ``new`` for a moment.
    """
    from jailng.core.program import kept  # who has a program has this; for ``jailed`` alone it would be dear

    label = f"jail_set: {PATH}"
    way.must("openat", dev, way.text(FOLDER + b"/" + FILE), CREATE, 0o644, keep=new, label=label)
    way.must("write", kept(new), way.data(content), len(content), label=label)
    way.must("close", kept(new))
