"""The network of the nodes: a namespace each, a pair of devices to one bridge, and a rate on both
ends of the pair. All of it lies in the namespace of who calls, and ends with that. One thread.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster_figures import link_bytes_of_burst

DEVICE = "eth0"
_BRIDGE = "nodes"
_UP_SECONDS = 10.0


class Network:
    """Of `nodes` nodes. `rate_mb_per_s`: of each link in each direction, 0: no limit. `sys_folder`:
    an empty folder, for the kernel's own figures.
    """

    def __init__(self, nodes: int, rate_mb_per_s: float, sys_folder: Path) -> None:
        self.nodes = nodes
        self._rate_mb_per_s = rate_mb_per_s
        self._statistics = sys_folder / "class" / "net"
        self._sys_folder = sys_folder
        self._holders: list[int] = []  # of each node a process in its namespace

    def address(self, node: int) -> str:
        return f"10.77.0.{node + 1}"

    def inside(self, node: int) -> list[str]:
        """What makes a command one of this node."""
        return ["nsenter", f"--net=/proc/{self._holders[node]}/ns/net", "--"]

    def carried(self, node: int) -> tuple[int, int]:
        """Bytes that went into the node, and out of it, over its link."""
        # The other end is looked at: what it has sent has come in.
        folder = self._statistics / _port(node) / "statistics"
        into, out = ((folder / name).read_text() for name in ("tx_bytes", "rx_bytes"))
        return int(into), int(out)

    @contextmanager
    def up(self) -> Iterator[Network]:
        # A new one shows the devices of this namespace, the machine's own those of another.
        _command("mount", "-t", "sysfs", "sysfs", str(self._sys_folder))
        _command("ip", "link", "set", "lo", "up")
        _command("ip", "link", "add", _BRIDGE, "type", "bridge")
        _command("ip", "link", "set", _BRIDGE, "up")
        with ExitStack() as stack:
            for node in range(self.nodes):
                self._holders.append(stack.enter_context(_namespace()))
                self._connect(node)
            yield self

    def _connect(self, node: int) -> None:
        port, holder = _port(node), str(self._holders[node])
        _command(*f"ip link add {port} type veth peer name {DEVICE} netns {holder}".split())
        _command("ip", "link", "set", port, "master", _BRIDGE, "up")
        for words in (
            f"ip address add {self.address(node)}/24 dev {DEVICE}",
            f"ip link set {DEVICE} up",
            "ip link set lo up",
        ):
            _command(*self.inside(node), *words.split())
        if self._rate_mb_per_s:
            _command(*self.inside(node), *self._limited(DEVICE))
            _command(*self._limited(port))

    def _limited(self, device: str) -> list[str]:
        burst, waiting = link_bytes_of_burst(self._rate_mb_per_s)
        rate = f"{int(self._rate_mb_per_s * 8e6)}bit"
        shaped = f"tbf rate {rate} burst {burst} limit {burst + waiting}"
        return ["tc", "qdisc", "add", "dev", device, "root", *shaped.split()]


def _port(node: int) -> str:
    """The bridge's end of its pair."""
    return f"node{node}"


@contextmanager
def _namespace() -> Iterator[int]:
    """A process in a network namespace of its own."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _UP_SECONDS
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if holder.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("there is no network namespace to be had")
            time.sleep(0.005)
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{' '.join(words)}: {said[-1] if said else done.returncode}")
