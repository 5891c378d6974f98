"""What jailng takes of Debian's packages: its own brings them, and where it was installed without, nobody has."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from jailng.ctl.diagnosis import Finding, Jails

# Module, package, what there is not without it.
_MODULES = (
    ("seccomp", "python3-seccomp", "no jail is made but with a filter that is in /var/cache/jailng already"),
    ("nftables", "python3-nftables", "no ipnat(8), no jailctl drops, and no check here of the firewall"),
)


def check(_: Jails) -> Iterator[Finding]:
    """Those that cannot be loaded."""
    for module, package, without in _MODULES:
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            yield Finding(f"{package}: {error}: without it {without}", (f"apt-get install {package}",))
