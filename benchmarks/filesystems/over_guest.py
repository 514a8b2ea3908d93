"""Filesystems whose client is another kernel's, which benchmarks/guest starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from delayed_wire import SERVER
from kinds import Behind, Client, Kind
from stage import DATA, Backend, Stage, command, unmount

_SMB_PORT, _9P_PORT = 445, 564
_SMB = "/tmp/smb"
_SMB_CONFIG = f"""[global]
 smb ports = {_SMB_PORT}
 disable netbios = yes
 server role = standalone server
 passdb backend = tdbsam:{_SMB}/private/users.tdb
 private dir = {_SMB}/private
 lock directory = {_SMB}/lock
 state directory = {_SMB}/state
 cache directory = {_SMB}/cache
 pid directory = {_SMB}/pid
 ncalrpc dir = {_SMB}/ncalrpc
 log file = {_SMB}/log
 load printers = no
[checkpoint]
 path = {DATA}
 read only = yes
 guest ok = yes
 force user = root
"""
_CIFS_MODULES = (
    *("cifs", "nls_utf8", "gcm", "ccm", "cmac", "hmac", "sha512", "ctr", "ecb", "md4"),
    *("crypto_null", "geniv", "seqiv"),
)
_9P_MODULES = ("9pnet", "9pnet_fd", "9p")


@contextmanager
def _smb_server(stage: Stage) -> Iterator[Backend]:
    for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
        stage.fresh(f"{_SMB}/{name}")
    stage.outside(f"{_SMB}/smb.conf").write_text(_SMB_CONFIG)
    config = ("-s", f"{_SMB}/smb.conf")
    stage.run("smbpasswd", "-c", f"{_SMB}/smb.conf", "-s", "-a", "root", told="pass\npass\n")
    line = ["smbd", "--foreground", "--no-process-group", "--debug-stdout", *config]
    with stage.server(line, _SMB_PORT):
        yield stage.tap()


def _served(port: int, *words: str) -> Behind:
    @contextmanager
    def behind(stage: Stage) -> Iterator[Backend]:
        with stage.server(words, port):
            yield stage.tap()

    return behind


def _by_kernel(kind: str, source: str, *options: str) -> Client:
    @contextmanager
    def client(stage: Stage) -> Iterator[None]:
        given = ",".join(("ro", *options))
        command("mount", "-i", "-t", kind, "-o", given, source, stage.mountpoint)
        try:
            yield
        finally:
            unmount(stage.mountpoint)

    return client


def _cifs(*options: str) -> Client:
    login = ("username=root", "password=pass", f"ip={SERVER}", "vers=3.1.1")
    return _by_kernel("cifs", f"//{SERVER}/checkpoint", *login, *options)


def _9p(*options: str) -> Client:
    transport = ("trans=tcp", f"port={_9P_PORT}", "version=9p2000.L", f"aname={DATA}")
    user = ("uname=root", "access=any", "msize=1048576")
    return _by_kernel("9p", SERVER, *transport, *user, *options)


# Whoever asks is root there: the shards are readable to their owner alone.
_9P_SERVER = _served(
    _9P_PORT, "diod", "-f", "-n", "-S", "-U", "root", "-l", f"{SERVER}:{_9P_PORT}", "-e", DATA
)


def _smb_kind(name: str, *options: str) -> Kind:
    return Kind(name, ("samba",), _smb_server, _cifs(*options), modules=_CIFS_MODULES)


def _9p_kind(name: str, *options: str) -> Kind:
    return Kind(name, ("diod",), _9P_SERVER, _9p(*options), modules=_9P_MODULES)


KINDS = (
    _smb_kind("cifs"),
    _smb_kind("cifs-cache_ro", "cache=ro"),
    _smb_kind("cifs-cache_none", "cache=none"),
    _9p_kind("9p"),
    _9p_kind("9p-cache_loose", "cache=loose"),
    _9p_kind("9p-cache_loose-ignoreqv", "cache=loose", "ignoreqv"),
    _9p_kind("9p-cache_readahead-ignoreqv", "cache=readahead", "ignoreqv"),
)
