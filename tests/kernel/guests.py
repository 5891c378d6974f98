"""Roots that boot: Debian with systemd, with SysV's init, with OpenRC; sshd, cron and a web server in each."""

from __future__ import annotations

from tests.kernel import debian

_SERVICES = ("cron", "nginx", "openssh-server")
_EVERYWHERE = (*_SERVICES, "iproute2", "login", "passwd", "procps", "util-linux")
SYSTEMD = debian.Recipe((*_EVERYWHERE, "dbus", "systemd-sysv"))
SYSVINIT = debian.Recipe((*_EVERYWHERE, "initscripts", "sysvinit-core"))
OPENRC = debian.Recipe((*_EVERYWHERE, "openrc", "sysvinit-core"))
