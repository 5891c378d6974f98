"""What a program that uses mitogen does: ``mitogen_client.py [USER]``, run by the Python of .venv-clients."""

import getpass
import hashlib
import json
import os
import subprocess
import sys

import mitogen  # type: ignore[import-not-found]
import mitogen.core  # type: ignore[import-not-found]


def about():  # type: ignore[no-untyped-def]
    """Sent into the jail, as are the modules that it imports."""
    return [os.uname().nodename, os.getuid(), os.getcwd(), getpass.getuser()]


def run(script):  # type: ignore[no-untyped-def]
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True)
    return [done.returncode, done.stdout.decode(), done.stderr.decode()]


def keep(path, data):  # type: ignore[no-untyped-def]
    with open(path, "wb") as file:
        file.write(data)


def fetch(path):  # type: ignore[no-untyped-def]
    with open(path, "rb") as file:
        return mitogen.core.Blob(file.read())


@mitogen.main()
def main(router):  # type: ignore[no-untyped-def]
    user = sys.argv[1] if len(sys.argv) > 1 else None
    cell = router.jail(container="cell", username=user, python_path="/usr/bin/python3")
    sent = bytes(range(256)) * 4096
    cell.call(keep, "/tmp/sent", mitogen.core.Blob(sent))
    back = bytes(cell.call(fetch, "/tmp/sent"))
    error = None
    try:
        cell.call(fetch, "/nowhere")
    except mitogen.core.CallError as caught:
        error = str(caught).partition("\n")[0]
    told = {
        "about": cell.call(about),
        "run": cell.call(run, "echo out; echo err >&2; exit 7"),
        "same": hashlib.sha256(back).digest() == hashlib.sha256(sent).digest(),
        "error": error,
    }
    print(json.dumps(told))
