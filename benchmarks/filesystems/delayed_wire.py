"""A wire between two network namespaces, with a rate and a round trip: a process of its own.

    python delayed_wire.py PID RATE_MB_PER_S ROUND_TRIP_MS

Makes a tun device here, the server's end, and one in the network namespace of PID, the client's,
and carries packets between them: towards the client no faster than the rate, towards the server
after the round trip. Not every kernel has a queueing discipline that delays. Packets are of up to
64 KiB, so there are few. Says "ready" once both ends have their addresses, and ends with its
standard input.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

DEVICE = "tun0"
SERVER, CLIENT = "127.9.9.1", "127.9.9.2"  # of the loopback range: nothing could be routed away
_MTU_BYTES = 65000
_PACKETS_UNDERWAY = 4096
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
# Windows grow beyond what a round trip holds at the rate; none is forgotten between two loads.
_SETTINGS = (
    "net.ipv4.conf.all.route_localnet=1",
    "net.ipv4.tcp_rmem=4096 131072 6291456",
    "net.ipv4.tcp_wmem=4096 16384 4194304",
    "net.ipv4.tcp_slow_start_after_idle=0",
    "net.ipv4.tcp_congestion_control=reno",
)


def opened_tun() -> int:
    """A tun device in the namespace in which this thread is."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def enter_network(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    if libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), path)
    os.close(fd)


def set_up(address: str) -> None:
    """Addresses and routes of the namespace in which this thread is."""
    subprocess.run(["sysctl", "-qw", *_SETTINGS], check=True)
    for command in (
        "link set lo up",
        "addr del 127.0.0.1/8 dev lo",
        "addr add 127.0.0.1/32 dev lo",
        f"addr add {address}/24 scope global dev {DEVICE}",
        f"link set {DEVICE} mtu {_MTU_BYTES} txqueuelen 10000 up",
        f"route replace 127.9.9.0/24 dev {DEVICE} src {address}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def carry(source: int, target: int, due_of: Callable[[int, float], float]) -> None:
    """Starts two threads: one takes packets, the other hands each over when it is due.

    `due_of`: of a packet of so many bytes that came at that moment.
    """
    underway: queue.Queue[tuple[float, bytes]] = queue.Queue(_PACKETS_UNDERWAY)

    def take() -> None:
        while True:
            packet = os.read(source, 2**16)
            underway.put((due_of(len(packet), time.monotonic()), packet))

    def hand_over() -> None:
        while True:
            due, packet = underway.get()
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            os.write(target, packet)

    for task in (take, hand_over):
        threading.Thread(target=task, daemon=True).start()


def at_rate(bytes_per_s: float) -> Callable[[int, float], float]:
    """A packet is through when those before it are, and its own bytes."""
    free = 0.0

    def due_of(size_bytes: int, now: float) -> float:
        nonlocal free
        free = max(free, now) + size_bytes / bytes_per_s
        return free

    return due_of


def main() -> None:
    client, rate_mb_per_s, round_trip_ms = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    here = opened_tun()
    set_up(SERVER)
    enter_network(f"/proc/{client}/ns/net")
    there = opened_tun()
    set_up(CLIENT)
    carry(here, there, at_rate(rate_mb_per_s * 1e6))
    carry(there, here, lambda _, now: now + round_trip_ms / 1e3)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
