"""What tests of the kernel's own rules share: mounts and user namespaces. Skips where the machine
does not allow them.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

# Two users, neither of whom is root or the overflow uid.
OWNER, STRANGER = 12345, 23456

# Becomes the user `USER` in a user namespace that maps no one: all owners are shown as one.
IN_USER_NAMESPACE = """
import ctypes, os, sys
import shardahead, shardahead.command.cli
import locale  # which argparse asks for late: that user may have no way to the interpreter's folder
os.setgroups([])
os.setgid(int(os.environ["USER_ID"]))
os.setuid(int(os.environ["USER_ID"]))
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    print("null")
    sys.exit(0)
assert os.geteuid() == os.stat(sys.argv[1]).st_uid
"""


def command(*words: str | Path) -> None:
    """Runs it; skips with its last words where it fails."""
    done = subprocess.run([os.fspath(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{words[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def mounted(stack: ExitStack, point: Path, *options: str | Path) -> Path:
    """`point`, made where it is not there, with a mount that ends with the stack."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    point.mkdir(exist_ok=True)
    command("mount", *options, point)
    stack.callback(subprocess.run, ["umount", "-l", os.fspath(point)], check=False)
    return point
