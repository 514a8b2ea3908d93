"""Serves a folder as a bucket of S3, read-only: what clients ask to list it and to read from it.

    python s3_server.py FOLDER ADDRESS PORT

Debian has no small server of S3. Signatures are not looked at: it is for namespaces of its own.
"""

from __future__ import annotations

import hashlib
import os
import sys
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import gmtime, strftime
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def range_of(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte of `bytes=A-B`, `bytes=A-` or `bytes=-N`; None where all is wanted."""
    if not header or not header.startswith("bytes="):
        return None
    begin, _, end = header.removeprefix("bytes=").partition("-")
    if not begin:
        return max(0, size_bytes - int(end)), size_bytes - 1
    return int(begin), min(int(end), size_bytes - 1) if end else size_bytes - 1


def listing(folder: Path, prefix: str) -> str:
    """The answer to ListObjects, of both versions: a folder without folders, in one answer."""
    entries = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(prefix):
            continue
        status = path.stat()
        when = strftime("%Y-%m-%dT%H:%M:%S.000Z", gmtime(status.st_mtime))
        entries.append(
            f"<Contents><Key>{escape(path.name)}</Key><LastModified>{when}</LastModified>"
            f"<ETag>{escape(_etag(path))}</ETag><Size>{status.st_size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    return (
        f"<ListBucketResult {_NAMESPACE}><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
        f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
        f"{''.join(entries)}</ListBucketResult>"
    )


def _etag(path: Path) -> str:
    """Changes with the file. Without the end, which says that it came in parts, clients would take
    it for the MD5 of the contents, and refuse these."""
    status = path.stat()
    text = f"{path.name} {status.st_size} {status.st_mtime_ns}"
    return f'"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}-1"'


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        asked = urlsplit(self.path)
        bucket, _, key = unquote(asked.path).lstrip("/").partition("/")
        questions = parse_qs(asked.query, keep_blank_values=True)
        if key:
            self._object(key, body=body)
        elif bucket and "location" in questions:
            self._text(f"<LocationConstraint {_NAMESPACE}/>", body=body)
        elif bucket:
            self._text(listing(self.folder, questions.get("prefix", [""])[0]), body=body)
        else:
            one = f"<Bucket><Name>{BUCKET}</Name></Bucket>"
            self._text(
                f"<ListAllMyBucketsResult {_NAMESPACE}><Buckets>{one}</Buckets>"
                "</ListAllMyBucketsResult>",
                body=body,
            )

    def _text(self, text: str, *, body: bool, status: int = 200) -> None:
        raw = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        self._begin(status, len(raw), {"Content-Type": "application/xml"})
        if body:
            self.wfile.write(raw)

    def _object(self, key: str, *, body: bool) -> None:
        path = self.folder / key
        if "/" in key or not path.is_file():
            self._text("<Error><Code>NoSuchKey</Code></Error>", body=body, status=404)
            return
        status = path.stat()
        headers = {
            "Content-Type": "application/octet-stream",
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "ETag": _etag(path),
            "Accept-Ranges": "bytes",
        }
        wanted = range_of(self.headers.get("Range"), status.st_size)
        first, last = wanted or (0, status.st_size - 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{status.st_size}"
        self._begin(206 if wanted else 200, last + 1 - first, headers)
        if body:
            self._send(path, first, last + 1)

    def _begin(self, status: int, size_bytes: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()

    def _send(self, path: Path, offset: int, end: int) -> None:
        self.wfile.flush()
        with open(path, "rb", buffering=0) as file:
            while offset < end:
                try:
                    offset += os.sendfile(
                        self.connection.fileno(), file.fileno(), offset, end - offset
                    )
                except OSError:  # the client wants no more
                    self.close_connection = True
                    return

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()


if __name__ == "__main__":
    main()
