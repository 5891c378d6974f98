from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from jailng.params import table
from jailng.params.table import Parameter, listed, lookup, names, negated, resolve
from jailng.params.values import parse, show

SOURCE = Path(__file__).parents[2] / "src"

# jail(8) of FreeBSD 15, DESCRIPTION: core, allow.*, module and pseudo-parameters.
MANUAL = """
jid name path ip4.addr ip4.saddrsel ip4 ip6.addr ip6.saddrsel ip6 vnet host.hostname host.domainname host.hostuuid
host.hostid host securelevel devfs_ruleset children.max children.cur enforce_statfs persist cpuset.id dying mac.label
parent osrelease osreldate meta env
allow.set_hostname allow.sysvipc allow.raw_sockets allow.chflags allow.mount allow.mount.devfs allow.quotas
allow.read_msgbuf allow.socket_af allow.mlock allow.nfsd allow.reserved_ports allow.unprivileged_parent_tampering
allow.unprivileged_proc_debug allow.suser allow.extattr allow.adjtime allow.settime allow.routing allow.setaudit
allow.mount.fdescfs allow.mount.fusefs allow.mount.nullfs allow.mount.procfs allow.mount.linprocfs
allow.mount.linsysfs allow.mount.tmpfs allow.mount.zfs allow.vmm allow.vmm_ppt linux linux.osname linux.osrelease
linux.oss_version sysvmsg sysvsem sysvshm zfs.mount_snapshot
exec.prepare exec.prestart exec.created exec.start command exec.poststart exec.prestop exec.stop exec.poststop
exec.release exec.clean exec.jail_user exec.system_jail_user exec.system_user exec.timeout exec.consolelog exec.fib
stop.timeout interface vnet.interface zfs.dataset ip_hostname mount mount.fstab mount.devfs mount.fdescfs mount.procfs
allow.dying depend
""".split()


def every() -> list[Parameter]:
    found = [lookup(name) for name in names()]
    return [parameter for parameter in found if parameter is not None]


def test_the_manual_s_parameters_and_ours_are_all_there() -> None:
    assert sorted(names()) == sorted(
        [
            *MANUAL,
            "allow.cgroup",
            "ng.uids",
            "ng.stack",
            "ng.root",
            "ng.sockets",
            "ng.self",
            "ng.lenient",
            "ng.rdr",
            "ng.egress",
            "ng.limits",
            "ng.slice",
            "ng.quota",
            "ng.init",
            "ng.watch",
            "ng.log",
        ]
    )


@pytest.mark.parametrize("parameter", every(), ids=lambda parameter: parameter.name)
def test_row_is_sound(parameter: Parameter) -> None:
    assert parameter.kind in ("bool", "int", "string", "ip4", "ip6", "jailsys", "list", "choice")
    assert parameter.live in ("live", "new", "restart")
    expected = {"bool": bool, "int": int, "string": str, "jailsys": str, "choice": str}
    assert type(parameter.default) is expected.get(parameter.kind, tuple)
    assert parameter.meaning
    assert parameter.linux
    assert "\n" not in parameter.meaning + parameter.linux
    assert not parameter.meaning.endswith(".")
    assert not parameter.linux.endswith(".")
    if parameter.kind in ("jailsys", "choice"):
        assert parameter.default in parameter.words
    if parameter.kind == "int":
        assert parameter.default in parameter.range
    if parameter.create_only:
        assert parameter.live == "restart"
    if parameter.kind not in ("list",):
        assert parse(parameter, show(parameter.default)) == parameter.default


def test_defaults_are_freebsd_s_but_for_those_that_say_so() -> None:
    on = {parameter.name for parameter in every() if parameter.default is True}
    assert on == {
        "ip4.saddrsel", "ip6.saddrsel", "allow.reserved_ports", "allow.unprivileged_proc_debug", "allow.suser",
        "mount.devfs", "mount.fdescfs", "mount.procfs", "ng.self",
    }  # fmt: skip
    for name in ("mount.devfs", "mount.fdescfs", "mount.procfs", "allow.set_hostname"):
        parameter = lookup(name)
        assert parameter is not None
        assert parameter.deviates


def test_create_only_is_freebsd_s_rdtun() -> None:
    frozen = {parameter.name for parameter in every() if parameter.create_only}
    assert frozen == {
        "jid",
        "path",
        "ip4",
        "ip6",
        "vnet",
        "osrelease",
        "osreldate",
        "ng.uids",
        "ng.stack",
        "ng.init",
        "ng.root",
        "ng.self",
    }


def test_read_only() -> None:
    fixed = {parameter.name for parameter in every() if parameter.read_only}
    assert fixed == {"parent", "dying", "children.cur", "cpuset.id"}


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("persist", ("persist", False, None)),
        ("nopersist", ("persist", True, None)),
        ("allow.nomount", ("allow.mount", True, None)),
        ("allow.mount.nodevfs", ("allow.mount.devfs", True, None)),
        ("exec.noclean", ("exec.clean", True, None)),
        ("meta.a.b", ("meta", False, "a.b")),
        ("env.noise", ("env", False, "noise")),
    ],
)
def test_resolve(name: str, means: tuple[str, bool, str | None]) -> None:
    found = resolve(name)
    assert found is not None
    assert (found[0].name, *found[1:]) == means


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "noallow.mount",
        "nopath",
        "noexec.clean",
        "exec.nostart",
        "meta.",
        "name.x",
        "no",
        "allow",
        "allow.no",
        "x",
    ],
)
def test_resolve_finds_nothing(name: str) -> None:
    assert resolve(name) is None


def test_negated() -> None:
    assert negated("persist") == "nopersist"
    assert negated("allow.mount.devfs") == "allow.mount.nodevfs"


def test_all_puts_plain_names_first() -> None:
    order = listed()
    plain = [name for name in order if "." not in name]
    assert order == plain + [name for name in order if "." in name]
    assert plain == sorted(plain)
    assert {"exec.start", "command", "interface", "linux", "zfs.mount_snapshot", "mac.label"}.isdisjoint(order)
    assert {"jid", "dying", "cpuset.id", "allow.chflags", "ng.uids"} <= set(order)


def test_objects_are_made_on_demand_and_once() -> None:
    assert lookup("persist") is lookup("persist")
    assert lookup("no such thing") is None


def test_the_table_costs_little_to_load() -> None:
    # Bytes that Python reads back of the compiled module: 0.1 ms for 22,000. The wall time is bench/'s to report.
    code = compile(Path(table.__file__).read_text(), "table.py", "exec")
    assert len(marshal.dumps(code)) < 32_000


def test_params_are_light_and_pure() -> None:
    script = (
        f"import sys; sys.path.append({str(SOURCE)!r}); before = set(sys.modules);"
        "import jailng.params.model as m; p = m.Parameters(); p.add('name', 'x'); p.add('persist'); p.settle();"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "__future__", "jailng", "jailng.errors", "jailng.params", "jailng.params.model", "jailng.params.table",
        "jailng.params.values",
    ]  # fmt: skip
