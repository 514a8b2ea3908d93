"""Packages of Debian's unstable suite, unpacked into a folder that is a root of its own.

Nothing is installed on this machine, and no script of a package is run. What was unpacked stands
in the folder's own list of packages, so that apt brings only what is missing. Not for several
processes at a time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from delayed_wire import CLIENT, SERVER

SUITE = "sid"
# What every root has: mounts of FUSE, and a shell for programs that call one.
_ALWAYS = ("dash", "fuse3")
_MERGED = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib/dpkg/updates")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": f"127.0.0.1 localhost\n{SERVER} server\n{CLIENT} client\n",
    "etc/nsswitch.conf": "hosts: files\n",
    "etc/fuse.conf": "user_allow_other\n",
}
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class PackagesError(RuntimeError):
    """No root could be made; the text says why."""


class PackageRoot:
    """The folder `path`: a file tree to chroot into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._apt = path.parent / "apt"
        self._status = path / "var/lib/dpkg/status"

    def bring(self, packages: Iterable[str]) -> dict[str, str]:
        """Unpacks them with what they need. Those that cannot be had, each with the reason."""
        self._lay_out()
        wanted = {*packages}
        missing = sorted((wanted | {*_ALWAYS}) - self.versions().keys()) if wanted else []
        if not missing:
            return {}
        self._look_for_apt()
        self._run("apt-get", "-qq", "update")
        refused: dict[str, str] = {}
        for group in (missing, *((one,) for one in missing)):
            left = [name for name in group if name not in self.versions()]
            try:
                if left:
                    self._unpack(left)
            except PackagesError as error:  # then one by one, to see which it is
                if len(group) == 1:
                    refused[group[0]] = str(error)
        return refused

    def versions(self) -> dict[str, str]:
        """Of all packages that were unpacked."""
        if not self._status.exists():
            return {}
        found = {}
        for stanza in self._status.read_text().split("\n\n"):
            lines = [line.partition(": ") for line in stanza.splitlines()]
            fields = {name: value for name, _, value in lines}
            if "Package" in fields:
                found[fields["Package"]] = fields["Version"]
        return found

    def _lay_out(self) -> None:
        for name in _FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)
        for name in _MERGED:
            (self.path / "usr" / name).mkdir(parents=True, exist_ok=True)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"usr/{name}")
        for name, text in _FILES.items():
            (self.path / name).write_text(text)
        if not (self.path / "etc/mtab").is_symlink():
            (self.path / "etc/mtab").symlink_to("../proc/self/mounts")
        self._status.touch()

    def _look_for_apt(self) -> None:
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                raise PackagesError(f"the packages are those of Debian: no {program} here")
        for name in ("lists/partial", "archives/partial"):
            (self._apt / name).mkdir(parents=True, exist_ok=True)
        source = f"deb [signed-by={_KEYRING}] {_mirror()} {SUITE} main\n"
        (self._apt / "sources.list").write_text(source)

    def _unpack(self, packages: Sequence[str]) -> None:
        self._run(
            *("apt-get", "-qq", "--yes", "--no-install-recommends", "--download-only"),
            *("install", *packages),
        )
        for archive in sorted((self._apt / "archives").glob("*.deb")):
            _checked("dpkg-deb", "--extract", str(archive), str(self.path))
            fields = _checked("dpkg-deb", "--field", str(archive))
            with open(self._status, "a") as status:
                status.write(f"{fields.rstrip()}\nStatus: install ok installed\n\n")
            archive.unlink()

    def _run(self, program: str, *arguments: str) -> None:
        settings = {
            "Dir::State": self._apt,
            "Dir::State::lists": self._apt / "lists",
            "Dir::State::status": self._status,
            "Dir::Cache": self._apt,
            "Dir::Etc::sourcelist": self._apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Sandbox::User": "root",
        }
        options = [f"--option={name}={value}" for name, value in settings.items()]
        _checked(program, *options, *arguments)


def _mirror() -> str:
    """The one that this machine takes its own packages from."""
    listed = _checked("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)")
    for line in listed.splitlines():
        origin, _, address = line.partition(" ")
        if origin == "Debian" and "security" not in address:
            return address
    raise PackagesError("the packages are those of Debian: apt-get here has others")


def _checked(*command: str) -> str:
    """What it printed. Raises with its last words where it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PackagesError(f"{command[0]}: {said[-1] if said else done.returncode}")
    return done.stdout
