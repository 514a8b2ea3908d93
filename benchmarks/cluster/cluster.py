"""Several nodes load one checkpoint from one storage, on this machine; README.md says how.

Exit status: 0 every node that was to be whole is, or nothing can be measured here and it says why;
1 not so; 2 wrong options. This process only waits: cluster_bed.py does the work.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "slowfs")]

from cluster_figures import needed_bytes  # noqa: E402
from cluster_memory import available_bytes  # noqa: E402
from cluster_options import parse_options  # noqa: E402
from slowfs import unavailable_reason  # noqa: E402

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
#: Of a namespace that ends with the command: nothing of it is left.
_TRIAL = (
    "ip link add trial0 type bridge && ip link add trial1 type veth peer name trial2 && "
    "tc qdisc add dev trial1 root tbf rate 1mbit burst 16384 limit 16384"
)
_PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
_PROCESS_BYTES = 400 << 20
_END_SECONDS = 20.0


def unable(options: argparse.Namespace) -> str:
    """Why nothing can be measured here, or nothing."""
    if os.geteuid() != 0:
        return "namespaces, mounts and rates need root"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({_PROGRAMS[name] for name in missing}))
        return f"no {' and no '.join(missing)} (apt-get install {packages})"
    if importlib.util.find_spec("torch") is None:
        return "no torch"
    if reason := unavailable_reason():
        return reason
    tried = subprocess.run(
        [*_NAMESPACES, "sh", "-c", _TRIAL], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        said = tried.stderr.strip().splitlines()
        return f"no network of namespaces: {said[-1] if said else tried.returncode}"
    needed = needed_bytes(options.nodes, options.size_mib << 20, _PROCESS_BYTES)
    if needed > (there := available_bytes()):
        return f"{needed >> 20} MiB of memory are needed, {there >> 20} MiB are there"
    return ""


def run_bed(folder: str, words: list[str]) -> int:
    """In namespaces that end with it; it ends with its standard input, so with this process."""
    bed = subprocess.Popen(
        [*_NAMESPACES, sys.executable, str(HERE / "cluster_bed.py"), folder, *words],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, and that ends the bed
    )
    assert bed.stdin is not None
    try:
        return bed.wait()
    finally:
        bed.stdin.close()
        try:
            bed.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            bed.kill()
            bed.wait()


def main() -> int:
    options = parse_options()
    if reason := unable(options):
        print(f"nothing was measured: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))
    # A mount there is of the bed's own namespace: for this one the folder stays empty.
    with tempfile.TemporaryDirectory(prefix="shardahead-cluster-") as folder:
        return run_bed(folder, sys.argv[1:])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(128 + signal.SIGINT)
