"""Filesystems whose server is at the other end of a wire."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from delayed_wire import SERVER
from kinds import Behind, Client, Kind
from s3_server import BUCKET
from stage import AT, DATA, HERE, Backend, Stage

_SSH_PORT, _PORT = 2222, 8080
_KEYS = "/tmp/ssh"
_ANYONE_OBSCURED = "6T6DW2tLA9MWCBSVK_klGGGpviL_4A"  # as `rclone obscure anyone` says it
_S3_KEY, _S3_SECRET = "shardahead", "a-secret-of-this-run"


def _served(port: int, *words: str) -> Behind:
    """A server of one program."""

    @contextmanager
    def behind(stage: Stage) -> Iterator[Backend]:
        with stage.wire() as wire, stage.server(words, port):
            yield wire

    return behind


def _mounted(*words: str) -> Client:
    """A client of one program."""
    return lambda stage: stage.mounted(words, far=True)


@contextmanager
def ssh_server(stage: Stage) -> Iterator[Backend]:
    stage.fresh("/run/sshd")
    stage.fresh(_KEYS)
    for name in ("host", "user"):
        stage.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{_KEYS}/{name}")
    settings = {
        "ListenAddress": SERVER,
        "AuthorizedKeysFile": f"{_KEYS}/user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "Subsystem": "sftp internal-sftp",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    line = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", str(_SSH_PORT)]
    line += ["-h", f"{_KEYS}/host", *options]
    with stage.wire() as wire, stage.server(line, _SSH_PORT):
        yield wire


def sshfs(*options: str, at: str = AT) -> Client:
    settings = ",".join(
        (
            *("ro", "allow_other", f"IdentityFile={_KEYS}/user"),
            *("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"),
            *options,
        )
    )
    line = ["sshfs", "-f", "-p", str(_SSH_PORT), "-o", settings, f"root@{SERVER}:{DATA}", at]
    return lambda stage: stage.mounted(line, far=True, at=at)


def _rclone(remote: str, *options: str, cache: bool = False) -> Client:
    line = ["rclone", "mount", "--config", "/dev/null", "--read-only", "--allow-other"]

    @contextmanager
    def client(stage: Stage) -> Iterator[None]:
        folder = stage.fresh("/tmp/rclone-cache")
        caching = ["--vfs-cache-mode", "full"] if cache else []
        with stage.mounted(
            [*line, "--cache-dir", folder, *caching, *options, remote, AT], far=True
        ):
            yield

    return client


def _rclone_serves(protocol: str, *options: str) -> Behind:
    return _served(
        _PORT,
        *("rclone", "serve", protocol, "--config", "/dev/null"),
        *("--addr", f"{SERVER}:{_PORT}", *options),
    )


_S3 = (
    f":s3,provider=Other,access_key_id={_S3_KEY},secret_access_key={_S3_SECRET},"
    f'endpoint="http://{SERVER}:{_PORT}":{BUCKET}'
)
_SFTP_SERVER = _rclone_serves("sftp", "--no-auth", DATA)
# The server lets anyone in; without a password the client would ask an agent for keys.
_SFTP = f":sftp,host={SERVER},port={_PORT},user=anyone,pass={_ANYONE_OBSCURED}:"
_WEBDAV_SERVER = _rclone_serves("webdav", DATA)
_WEBDAV = f':webdav,url="http://{SERVER}:{_PORT}":'


@contextmanager
def _s3_server(stage: Stage) -> Iterator[Backend]:
    """This folder's own."""
    line = [sys.executable, str(HERE / "s3_server.py"), str(stage.data), SERVER, str(_PORT)]
    with stage.wire() as wire, stage.server(line, _PORT, packaged=False):
        yield wire


def _s3fs(*options: str) -> Client:
    settings = ",".join(
        (
            *("ro", "allow_other", "passwd_file=/tmp/s3fs-keys"),
            *(f"url=http://{SERVER}:{_PORT}", "use_path_request_style"),
            *options,
        )
    )

    @contextmanager
    def client(stage: Stage) -> Iterator[None]:
        keys = stage.outside("/tmp/s3fs-keys")
        keys.write_text(f"{_S3_KEY}:{_S3_SECRET}\n")
        keys.chmod(0o600)
        with stage.mounted(["s3fs", BUCKET, AT, "-f", "-o", settings], far=True):
            yield

    return client


SSH_PACKAGES = ("sshfs", "openssh-server", "openssh-client")
_RCLONE = ("rclone",)

KINDS = (
    Kind("sshfs", SSH_PACKAGES, ssh_server, sshfs(), wire=True),
    Kind("sshfs-kernel_cache", SSH_PACKAGES, ssh_server, sshfs("kernel_cache"), wire=True),
    Kind("sshfs-direct_io", SSH_PACKAGES, ssh_server, sshfs("direct_io"), wire=True),
    Kind("rclone-s3", _RCLONE, _s3_server, _rclone(_S3), wire=True),
    Kind(
        "rclone-s3-streams",
        _RCLONE,
        _s3_server,
        _rclone(_S3, "--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "4M"),
        wire=True,
    ),
    Kind("rclone-s3-full", _RCLONE, _s3_server, _rclone(_S3, cache=True), wire=True),
    Kind("rclone-sftp", _RCLONE, _SFTP_SERVER, _rclone(_SFTP), wire=True),
    Kind("rclone-sftp-full", _RCLONE, _SFTP_SERVER, _rclone(_SFTP, cache=True), wire=True),
    Kind("rclone-webdav", _RCLONE, _WEBDAV_SERVER, _rclone(_WEBDAV), wire=True),
    Kind("rclone-webdav-full", _RCLONE, _WEBDAV_SERVER, _rclone(_WEBDAV, cache=True), wire=True),
    Kind("s3fs", ("s3fs",), _s3_server, _s3fs(), wire=True),
    Kind("s3fs-kernel_cache", ("s3fs",), _s3_server, _s3fs("kernel_cache"), wire=True),
    Kind(
        "httpdirfs",
        ("httpdirfs", *_RCLONE),
        _rclone_serves("http", DATA),
        _mounted("httpdirfs", "-f", "-o", "allow_other", f"http://{SERVER}:{_PORT}", AT),
        wire=True,
    ),
)
