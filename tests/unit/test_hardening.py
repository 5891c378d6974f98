"""jailctl doctor: what it says of settings of the host's."""

import pytest

from jailng.ctl import hardening
from jailng.ctl.diagnosis import Jails

SOUND = {
    "/proc/sys/kernel/core_pattern": "core",
    "/proc/sys/fs/protected_symlinks": "1",
    "/proc/sys/fs/protected_hardlinks": "1",
    "/proc/sys/fs/protected_fifos": "1",
    "/proc/sys/fs/protected_regular": "2",
    "/proc/sys/dev/tty/legacy_tiocsti": "0",
    "/proc/sys/kernel/unprivileged_bpf_disabled": "2",
    "/sys/devices/system/cpu/smt/active": "0",
    "/sys/kernel/mm/ksm/run": "0",
    "/proc/sys/vm/panic_on_oom": "0",
}


@pytest.mark.parametrize(
    "path, content, words",
    [
        ("/proc/sys/kernel/core_pattern", "|/usr/lib/handler %p", "/usr/lib/handler"),
        ("/proc/sys/kernel/core_pattern", "@/run/cores.socket", "no limit keeps a jail's cores from a socket"),
        ("/proc/sys/fs/protected_symlinks", "0", "fs.protected_symlinks is 0"),
        ("/proc/sys/fs/protected_regular", "0", "fs.protected_regular is 0"),
        ("/proc/sys/dev/tty/legacy_tiocsti", "1", "dev.tty.legacy_tiocsti is 1"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "0", "kernel.unprivileged_bpf_disabled is 0"),
        ("/sys/devices/system/cpu/smt/active", "1", "two threads of a core"),
        ("/sys/kernel/mm/ksm/run", "1", "KSM"),
        ("/proc/sys/vm/panic_on_oom", "1", "stops the machine"),
    ],
)
def test_a_setting_that_weakens_is_named(path: str, content: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dict(SOUND)
    monkeypatch.setattr(hardening, "_read", lambda name: settings.get(name, ""))
    assert list(hardening.check(Jails())) == []
    settings[path] = content
    (found,) = hardening.check(Jails())
    assert words in found.what
