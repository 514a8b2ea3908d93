"""Looks through the built site: links, anchors, what a browser would fetch, lists that are none.

`python check_site.py FOLDER`. Links that leave the site are listed and not followed: nothing here
asks the network. Exit status 1 where something is wrong.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_LIST = re.compile(r"\n[-*] ")
FROM_ELSEWHERE = re.compile(r"@import|url\(\s*[\"']?(?:https?:)?//")


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.no_lists: list[str] = []
        self._paragraph: list[str] | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attributes}
        self.ids |= {of[name] for name in ("id", "name") if name in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        fetched = of.get(FETCHED.get(tag, ""))
        if fetched is not None and of.get("rel") not in ("next", "prev", "canonical"):
            self.fetched.append(fetched)
        if tag == "p":
            self._paragraph = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self._paragraph is not None:
            text = "".join(self._paragraph)
            if NO_LIST.search(text):
                self.no_lists.append(text)
            self._paragraph = None

    def handle_data(self, data: str) -> None:
        if self._paragraph is not None:
            self._paragraph.append(data)


def main(folder: Path) -> int:
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    problems: list[str] = []
    outside: set[str] = set()
    for path, page in pages.items():
        where = path.relative_to(folder)
        problems += [f"{where}: a list without an empty line before it: {t}" for t in page.no_lists]
        for link in [*page.links, *page.fetched]:
            target = urlsplit(link)
            if target.scheme in ("http", "https") or target.netloc:
                outside.add(link)
                if link in page.fetched:
                    problems.append(f"{where}: is fetched from elsewhere: {link}")
            elif target.scheme not in ("mailto", "data"):
                problems += [f"{where}: {text}" for text in _missing(folder, path, link, pages)]
    for sheet in folder.rglob("*.css"):
        if FROM_ELSEWHERE.search(sheet.read_text(encoding="utf-8")):
            problems.append(f"{sheet.relative_to(folder)}: fetches from elsewhere")
    print(f"{len(pages)} pages; {len(outside)} links leave the site, not followed:")
    print("".join(f"  {link}\n" for link in sorted(outside)), end="")
    for problem in problems:
        print(f"ERROR {problem}", file=sys.stderr)
    return 1 if problems else 0


def _missing(folder: Path, path: Path, link: str, pages: dict[Path, Page]) -> list[str]:
    target = urlsplit(link)
    found = path
    if target.path.startswith("/"):
        found = folder / unquote(target.path).lstrip("/")
    elif target.path:
        found = (path.parent / unquote(target.path)).resolve()
    if found.is_dir():
        found /= "index.html"
    if not found.is_file():
        return [f"a link to {link}, which is not there"]
    anchor = unquote(target.fragment)
    if anchor and found in pages and anchor not in pages[found].ids:
        return [f"a link to {link}, which has no such anchor"]
    return []


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
