"""What the site needs beyond Markdown; called by MkDocs (mkdocs.yml).

Pages that lie at the root of the repository become pages of the site; links that leave docs/ lead
to those pages or become plain text, and are an error where nothing is there; a link that is called
by the name of its file gets the title of its page; pictures are put into their page, so that they
follow its colours. One thread.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"[a-z]+:|#")
PICTURE = re.compile(r'<img alt="([^"]*)" src="([^"]*\.svg)" ?/?>')
CELL = re.compile(r"<td.*?</td>", re.DOTALL)
CODE = re.compile(r"(?<=<code>)[^<]*(?=</code>)")
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

logger = logging.getLogger("mkdocs.hooks.shardahead")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / name)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    parts = FENCE.split(markdown)  # every second one is a block of code
    parts[::2] = [_with_links_of_the_site(part, page.file.src_uri) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    html = CELL.sub(lambda cell: CODE.sub(_code_of_a_cell, cell[0]), html)
    return PICTURE.sub(lambda match: _picture(match[1], match[2], page.file.src_uri), html)


def _with_links_of_the_site(text: str, page: str) -> str:
    return LINK.sub(lambda match: _link(match, page), text)


def _link(match: re.Match[str], page: str) -> str:
    mark, text, target = match.groups()
    if ELSEWHERE.match(target):
        return match[0]
    path, _, anchor = target.partition("#")
    found = os.path.normpath(_folder_of(page) / path)
    name = os.path.relpath(found, REPOSITORY)
    if not os.path.exists(found) or name.startswith(".."):
        logger.warning("%s: a link to %s, which is not there", page, target)
        return match[0]
    if name in ROOT_PAGES:
        uri = ROOT_PAGES[name]
    elif name.startswith("docs/") and os.path.isfile(found):
        uri = os.path.relpath(found, DOCS)
    else:
        return text  # of the repository, which the site has not
    here = os.path.relpath(uri, os.path.dirname(page) or ".")
    if text.removeprefix("docs/") == os.path.basename(found):
        title = TITLE.search(Path(found).read_text(encoding="utf-8"))
        text = title[1] if title else text
    return f"{mark}[{text}]({here}{'#' + anchor if anchor else ''})"


def _folder_of(page: str) -> Path:
    return REPOSITORY if page in ROOT_PAGES.values() else (DOCS / page).parent


def _code_of_a_cell(code: re.Match[str]) -> str:
    """GitHub wants a pipe in a table escaped, also in code; Python-Markdown keeps the backslash. A
    path may be broken behind its slashes.
    """
    return re.sub(r"([/_])(?=\w)", r"\1<wbr>", code[0].replace("\\|", "|"))


def _picture(text: str, source: str, page: str) -> str:
    drawn = (DOCS / os.path.dirname(page) / source).read_text(encoding="utf-8")
    drawn = drawn[drawn.index("<svg") :]
    # A blank line would end a block of HTML; there is none to end here.
    return f'<span class="picture" role="img" aria-label="{text}">{drawn}</span>'
