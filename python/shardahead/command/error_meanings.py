"""What an error of the system means for who loads a checkpoint, and what to do about it. Pure.

For errors of which the system's own words, "Input/output error", say neither. Any thread.
"""

from __future__ import annotations

import errno
import os

from shardahead.prefetch.report import Report, describe_failure

_FAILS = (
    "the storage fails there: the kernel's log (dmesg) or that of its server or mount says why; "
    "if it stays so, fetch the file again"
)
_DAMAGED = "the filesystem itself is damaged there: have it checked, and fetch the file again"
_SILENT = "its server does not answer, or the network to it is down: the same again once it does"
_ENDED = (
    "what serves this mount has ended: unmount it, with umount -l where it is busy, and mount it "
    "again"
)
_DENIED = (
    "it could be opened, and is denied all the same: access that has expired meanwhile, a ticket "
    "or a token, or a server to which this user is nobody (root_squash)"
)
_EXPIRED = "the access to this storage has expired: log in to it anew, with kinit say"
_MEANINGS = {
    **dict.fromkeys((errno.EIO, errno.EREMOTEIO, errno.ENODATA, errno.ENXIO, errno.ENODEV), _FAILS),
    **dict.fromkeys((errno.EUCLEAN, errno.EBADMSG), _DAMAGED),
    **dict.fromkeys((errno.ENOTCONN, errno.ECONNABORTED), _ENDED),
    **dict.fromkeys(
        (
            *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
            *(errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ESHUTDOWN),
        ),
        _SILENT,
    ),
    **dict.fromkeys((errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED), _EXPIRED),
    errno.ENOKEY: "the file is encrypted, and its key is not loaded here",
    errno.ESTALE: "the server has no such file any longer, it was replaced or the export was: "
    "the same again, and if that does not help mount anew",
    errno.ENOMEM: "memory is short here, or the limit of this cgroup is reached",
    errno.EMFILE: "this process may open no more files: raise that with ulimit -n",
    errno.ENFILE: "this node may open no more files: raise fs.file-max",
}


def meaning_of(error: BaseException) -> str:
    """In one line, without a full stop; "" where the error says enough, or is none of the system's,
    or its text is not the system's own.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    if error.strerror != os.strerror(error.errno):
        return ""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "" if getattr(error, "operation", "open") == "open" else _DENIED
    return _MEANINGS.get(error.errno, "")


def with_meaning(error: Exception) -> str:
    """The error in one line, and behind it what it means."""
    return _joined(describe_failure(error), meaning_of(error))


def why_incomplete(report: Report) -> str | None:
    """As the report says it, and behind it what its first error means."""
    reason = report.incomplete_reason()
    if reason is None or not report.errors:
        return reason
    return _joined(reason, meaning_of(report.errors[0]))


def meaning_in_document(errors: object) -> str:
    """Of the first of the `errors` of a report as JSON, which anybody may have written."""
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        return ""
    number, message = errors[0].get("errno"), errors[0].get("message")
    if type(number) is not int or not 0 < number < 2**31 or not isinstance(message, str):
        return ""
    error = OSError(number, message)
    vars(error)["operation"] = errors[0].get("operation")
    return meaning_of(error)


def _joined(text: str, meaning: str) -> str:
    return f"{text}; {meaning}" if meaning else text
