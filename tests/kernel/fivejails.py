"""Five jails that depend on each other, with a service in each, and what they write down of their lives.

They are for a machine that starts them: one that boots in a container (test_boot.py), or in qemu (tests/vm).
"""

from __future__ import annotations

from pathlib import Path

from tests.kernel import debian

NAMES = ("db", "cache", "app", "www", "mail")
# The other way round than they depend on each other.
_CONFIGURATION = """
path = "/jail/$name";
host.hostname = "$name";
exec.start = "/bin/sh /etc/rc";
exec.stop = "/bin/sh /etc/rc.shutdown";
mount = "/jail/log $path/log nullfs rw";
mail { depend = www; }
www { depend = app; }
app { depend = db, cache; }
cache { depend = db; }
db { }
"""
# At boot there may be a console, and what is no daemon would end with the terminal that /etc/rc has.
_RC = """
mkfifo /run/up /run/down
setsid /bin/sh /etc/service >/dev/null 2>&1 </dev/null &
echo $! >/run/service.pid
read answer </run/up
echo "$(hostname): started" >>/log/order
"""
# A service that takes its time to end, and tells how it does.
_SERVICE = """
trap 'echo "$(hostname): service ends" >>/log/order; echo ended 1<>/run/down; exit' TERM
echo ready >/run/up
while :; do sleep 1000 & wait; done
"""
_RC_SHUTDOWN = """
exec 3<>/run/down
kill -TERM $(cat /run/service.pid)
read answer <&3
echo "$(hostname): shut down" >>/log/order
"""
STARTED = [f"{name}: started" for name in NAMES]
ENDED = [f"{name}: {what}" for name in reversed(NAMES) for what in ("service ends", "shut down")]


def make_roots(top: Path) -> None:
    """Below /jail of the machine whose root is ``top``; that is there, and nobody's but root's."""
    (top / "jail/log").mkdir()
    for name in NAMES:
        root = debian.small(top / "jail" / name)
        (root / "log").mkdir()
        for script, text in (("rc", _RC), ("service", _SERVICE), ("rc.shutdown", _RC_SHUTDOWN)):
            (root / "etc" / script).write_text(text)


def configure(top: Path) -> None:
    """Have them started with the machine."""
    (top / "etc/jail.conf").write_text(_CONFIGURATION)
    (top / "etc/default/jail").write_text('jail_enable="YES"\n')


def log(top: Path) -> list[str]:
    """What they have written, in order."""
    file = top / "jail/log/order"
    return file.read_text().splitlines() if file.exists() else []
