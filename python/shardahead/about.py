"""What is installed and on what it runs: for bug reports, and for who asks whether a kernel has
what the core makes use of. Any thread.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from typing import TypedDict

from shardahead import _core
from shardahead.version import __version__


class KernelInfo(TypedDict):
    """What the running kernel has of what the core uses where it is there.

    release: of Linux.
    cachestat: it tells at once what is resident (Linux 6.5); else mincore does.
    populate_read: MADV_POPULATE_READ, by which strategy "populate" works (Linux 5.14).
    mount_ids: it tells on which mount a file lies (STATX_MNT_ID, Linux 5.8).
    unique_mount_ids: by a number that no other mount gets later (Linux 6.8).
    process_vm_readv: ranks may share what they read from mounts that keep no pages.
    huge_pages: for mappings: "always", "madvise" or "never"; "" where the kernel has none. Strategy
        "populate" needs one of the first two.

    False is also what a filter of system calls refuses, as containers have one.
    """

    release: str
    cachestat: bool
    populate_read: bool
    mount_ids: bool
    unique_mount_ids: bool
    process_vm_readv: bool
    huge_pages: str


class BuildInfo(TypedDict):
    """What `build_info` gives.

    version: of Shardahead.
    compiler: that compiled the core, as "GCC 12.2.0".
    optimized: whether it did so with optimization.
    sanitizers: that are compiled in: of "address", "thread", "undefined".
    c_library: that it runs with, as "glibc 2.36".
    python: the implementation and version, as "CPython 3.11.2".
    free_threaded: whether this Python runs without the GIL.
    machine: the architecture, as "x86_64".
    page_bytes: the size of a page.
    kernel: see KernelInfo.
    """

    version: str
    compiler: str
    optimized: bool
    sanitizers: tuple[str, ...]
    c_library: str
    python: str
    free_threaded: bool
    machine: str
    page_bytes: int
    kernel: KernelInfo


def build_info() -> BuildInfo:
    """With what Shardahead was built, and what this kernel has of what it uses, asked now."""
    kernel = _core.kernel_features()
    return BuildInfo(
        version=__version__,
        compiler=_core.COMPILER,
        optimized=_core.OPTIMIZED,
        sanitizers=_core.SANITIZERS,
        c_library=_core.C_LIBRARY,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        free_threaded=not getattr(sys, "_is_gil_enabled", lambda: True)(),
        machine=platform.machine(),
        page_bytes=_core.PAGE_BYTES,
        kernel=KernelInfo(
            release=kernel.release,
            cachestat=kernel.cachestat,
            populate_read=kernel.populate_read,
            mount_ids=kernel.mount_ids,
            unique_mount_ids=kernel.unique_mount_ids,
            process_vm_readv=kernel.process_vm_readv,
            huge_pages=kernel.huge_pages,
        ),
    )


def version_text() -> str:
    """What `shardahead --version` prints. Its first line is the version and nothing else."""
    return "\n".join(_version_lines(build_info()))


def _version_lines(info: BuildInfo) -> Iterator[str]:
    yield f"shardahead {info['version']}"
    how = "optimized" if info["optimized"] else "not optimized"
    sanitizers = ", ".join(info["sanitizers"])
    yield f"core: {info['compiler']}, {how}{f', sanitizers {sanitizers}' if sanitizers else ''}"
    threaded = ", free-threaded" if info["free_threaded"] else ""
    yield f"runs with: {info['python']}{threaded}, {info['c_library']}"
    kernel = info["kernel"]
    page_kib = info["page_bytes"] // 1024
    yield f"kernel: Linux {kernel['release']}, {info['machine']}, pages of {page_kib} KiB"
    for name, has in (
        ("cachestat", kernel["cachestat"]),
        ("MADV_POPULATE_READ", kernel["populate_read"]),
        ("STATX_MNT_ID", kernel["mount_ids"]),
        ("STATX_MNT_ID_UNIQUE", kernel["unique_mount_ids"]),
        ("process_vm_readv", kernel["process_vm_readv"]),
    ):
        yield f"  {name}: {'yes' if has else 'no'}"
    yield f"  transparent huge pages: {kernel['huge_pages'] or 'none'}"
