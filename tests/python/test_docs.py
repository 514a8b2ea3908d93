"""What the documents promise has tests that are there: each row and each promise names them.

Reads the documents and the folders of tests, and runs nothing.
"""

import re
from pathlib import Path

import pytest

from shardahead.checkpoint import pt_archive, safetensors_header, shards
from shardahead.weights import pt_file

REPOSITORY = Path(__file__).resolve().parents[2]

TEST_FILE = re.compile(
    r"`(tests/(?:(?:python|integrations)/test_\w+\.py|cpp/\w+_test\.cpp|fuzz/fuzz_\w+\.\w+|\w+\.py))`"
)
ANY_PATH = re.compile(r"\b(?:tests|csrc|python|benchmarks|docs)/[\w./-]*\w\.(?:py|cpp|h|md)\b")
A_NAME = re.compile(r"-k [\"'(]*(\w+)|-R [\"'(]*(\w+)")

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md")),
]


def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def rows() -> dict[str, str]:
    """Of the table of faults: what goes wrong, and the cell of its tests."""
    found = {}
    lines = [line for line in text_of("docs/reliability.md").splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in lines[0].split("|")][1:-1][3] == "test"
    for line in lines[2:]:
        fault, _injected, _promised, test, _seen = re.split(r"(?<!\\)\|", line)[1:-1]
        found[fault.strip()] = test
    return found


def promises() -> dict[str, str]:
    """Of SECURITY.md: each promise by its words in bold, and all that is said of it."""
    promised = text_of("SECURITY.md").split("## What is promised\n")[1].split("\n## ")[0]
    found = {}
    for paragraph in promised.strip().split("\n\n"):
        match = re.match(r"\*\*(.+?)\*\*", paragraph, re.DOTALL)
        assert match, f"a promise begins in bold: {paragraph}"
        found[" ".join(match.group(1).split())] = paragraph
    return found


PROMISES = {**rows(), **promises()}


def test_all_rows_and_promises_are_found() -> None:
    assert len(rows()) > 40
    assert len(promises()) > 5


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_names_a_test(promise: str) -> None:
    named = TEST_FILE.findall(PROMISES[promise])
    assert named, "no test is named"
    for path in named:
        assert (REPOSITORY / path).is_file(), f"{path} is not there"


SAMPLE_VERSION = re.compile(r"\bshardahead(?:-bench)? (\d+\.\d+\.\d+\w*)")


def test_samples_of_output_are_of_this_version() -> None:
    pyproject = text_of("pyproject.toml")
    (version,) = re.findall(r'^version = "([^"]+)"$', pyproject, re.MULTILINE)
    samples = {document: SAMPLE_VERSION.findall(text_of(document)) for document in DOCUMENTS}
    assert sum(map(len, samples.values())) >= 3
    assert {name: found for name, found in samples.items() if {*found} - {version}} == {}


LINK = re.compile(r"\]\(([^()\s]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    """As they are read in the repository; `make docs` looks at them as they are on the site."""
    folder = (REPOSITORY / document).parent
    links = [link.partition("#")[0] for link in LINK.findall(text_of(document))]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (folder / link).exists()] == []
    for path, _, anchor in (link.partition("#") for link in LINK.findall(text_of(document))):
        if anchor and not re.match(r"[a-z]+:", path):
            page = folder / path if path else REPOSITORY / document
            assert anchor in anchors_of(page.read_text(encoding="utf-8")), f"{path}#{anchor}"


def anchors_of(text: str) -> set[str]:
    """Of the headings, as forges and the site make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def test_the_readme_is_narrow_and_short() -> None:
    lines = text_of("README.md").splitlines()
    assert [line for line in lines if len(line) > 100] == []
    figures = text_of("README.md").split("## Figures\n")[1].split("\n## ")[0]
    rows = [line for line in figures.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert text_of("README.md").count("![") == 1


def test_figures_of_the_readme_are_those_of_their_page() -> None:
    """Each figure of a row is in one row of the page."""
    figures = text_of("README.md").split("## Figures\n")[1].split("\n## ")[0]
    page = [line for line in text_of("docs/figures.md").splitlines() if line.startswith("| ")]
    for row in [line for line in figures.splitlines() if line.startswith("| ")][1:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        begin = cells[0].removesuffix(", slices")
        found = [line for line in page if line.startswith(f"| {begin}")]
        assert any(all(cell in line for cell in cells[1:]) for line in found), row


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_tests_that_a_document_names_are_there(document: str) -> None:
    text = text_of(document)
    missing = {path for path in ANY_PATH.findall(text) if not (REPOSITORY / path).exists()}
    assert not missing
    stems = [path.stem for path in (REPOSITORY / "tests").rglob("*.*")]
    for names in A_NAME.findall(text):
        assert any(name in stem for name in names if name for stem in stems), names


def test_the_limits_of_hostile_files_are_those_of_the_code() -> None:
    text = " ".join(text_of("SECURITY.md").split())
    for limit, unit in (
        (safetensors_header.MAX_HEADER_BYTES, "bytes"),
        (safetensors_header.MAX_TENSORS, "tensors"),
        (safetensors_header.MAX_VALUES, "values"),
        (safetensors_header.MAX_DEPTH, "levels"),
    ):
        assert f"{limit:,} {unit}" in text
    assert f"an index {shards.MAX_INDEX_BYTES >> 20} MiB" in text
    text = " ".join(text_of("docs/reliability.md").split())
    directory = pt_archive.MAX_DIRECTORY_BYTES >> 20
    assert pt_archive.MAX_RECORDS == 2**20
    assert f"2^20 records and a directory of {directory} MiB" in text
    unpacked = (
        f"{pt_archive.MAX_UNPACKED_BYTES >> 20} MiB and {pt_archive.MAX_UNPACKED_RATIO} times"
    )
    assert f"unpacked {unpacked} the file" in text
    each = f"{pt_archive.MAX_PICKLE_BYTES_PER_RECORD} bytes for each record"
    assert f"the pickle {pt_archive.MAX_PICKLE_BYTES >> 20} MiB and {each}" in text
    each = f"{pt_archive.MAX_OBJECT_BYTES_PER_RECORD >> 10} KiB for each record"
    assert f"{pt_archive.MAX_OBJECT_BYTES >> 20} MiB and {each}" in text
    old = f"{pt_file.MAX_OLD_PICKLE_BYTES >> 20} MiB of pickles, "
    assert old + f"{pt_file.MAX_OLD_OBJECT_BYTES >> 20} MiB of objects" in text


NAMED_IN = re.compile(r"`([a-z_]+/[a-z_]+\.(?:h|cpp|py))`\s+`([\w.:]+)`")
METHOD = re.compile(r"`([A-Z]\w+)::(\w+)`")


def test_the_walk_through_the_rooms_names_what_is_there() -> None:
    text = text_of("docs/architecture.md")
    named = NAMED_IN.findall(text)
    assert len(named) > 20
    missing = []
    for path, name in named:
        folder = REPOSITORY / ("python/shardahead" if path.endswith(".py") else "csrc")
        word = re.split(r"::|\.", name)[-1]
        if not re.search(rf"\b{word}\b", (folder / path).read_text(encoding="utf-8")):
            missing.append(f"{path}: {name}")
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "csrc").rglob("*.[hc]*")]
    for type_name, method in set(METHOD.findall(text)):
        declares = re.compile(rf"\b(?:class|struct) {type_name}\b.*\b{method}\(", re.DOTALL)
        if not any(declares.search(source) for source in sources):
            missing.append(f"{type_name}::{method}")
    assert not missing


def test_all_that_is_public_is_on_the_page_of_the_package() -> None:
    """But for names of types, which the signatures have, and the version."""
    import shardahead

    told = set(re.findall(r"^::: shardahead\.(\w+)$", text_of("docs/api.md"), re.MULTILINE))
    aliases = {"Files", "Names", "Part", "Slices", "Weight", "__version__"}
    assert told == set(shardahead.__all__) - aliases
