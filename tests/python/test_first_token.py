"""benchmarks/first_token, with a stand-in for the engines: a process that serves, and says what
they say. No figure is judged here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "benchmarks" / "first_token")]

import first_token  # noqa: E402
import starts  # noqa: E402

# Offline where its first argument is a script, else a server on the port that it is given.
ENGINE = r"""#!/usr/bin/env python3
import http.server, json, os, sys, time

print("Loading weights took 1.50 seconds", flush=True)
print("Load weight end. elapsed=2.50 s", flush=True)
if os.environ.get("SHARDAHEAD_DISABLE") != "1" and "VLLM_PLUGINS" not in os.environ:
    print("INFO Shardahead loads 1 GiB in 8 files", flush=True)

def answer(prompts, tokens):
    return [[len(prompt)] * tokens for prompt in prompts]

if sys.argv[1].endswith("offline.py"):
    prompts = json.load(open(sys.argv[3]))
    tokens = answer(prompts, int(sys.argv[5]))
    print("FOUND " + json.dumps({"first_at": time.time(), "tokens": tokens}))
    sys.exit()
if os.environ.get("DOES_NOT_COME_UP"):
    sys.exit("out of order")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/generate":
            tokens = answer(body["text"], body["sampling_params"]["max_new_tokens"])
            self.reply([{"output_ids": one} for one in tokens])
        else:
            tokens = answer(body["prompt"], body["max_tokens"])
            self.reply({"choices": [{"token_ids": one} for one in tokens]})

    def reply(self, document):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_):
        pass

if os.fork() == 0:  # a worker, which is to go with the server
    open(os.environ["WORKER"], "w").write(str(os.getpid()))
    time.sleep(3600)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "python"
    path.write_text(ENGINE)
    path.chmod(0o755)
    (tmp_path / "prompts.json").write_text(json.dumps(["one", "three"]))
    monkeypatch.setenv("WORKER", str(tmp_path / "worker"))
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    return path


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(case: starts.Case, engine: Path, variant: str) -> starts.Run:
    folder = engine.parent
    return starts.run(case, engine, folder / "m", variant, folder / "prompts.json", folder / "log")


@pytest.mark.parametrize("case", starts.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("variant", starts.VARIANTS)
def test_what_an_engine_says_and_gives_is_read(
    engine: Path, case: starts.Case, variant: str
) -> None:
    found = start(case, engine, variant)
    assert found.tokens == [[3] * starts.TOKENS, [5] * starts.TOKENS]
    assert found.load_seconds == {"vllm": 1.5, "sglang": 2.5}[case.engine]
    assert min(found.weights_seconds, found.first_token_seconds) > 0
    assert found.ours == (variant == "installed")
    assert "Loading weights took" in (engine.parent / "log").read_text()
    if case.way == "server":
        worker = int((engine.parent / "worker").read_text())
        eventually(lambda: not is_alive(worker), "the worker has not ended")


def test_a_server_that_does_not_come_up_is_said_with_its_last_lines(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOES_NOT_COME_UP", "1")
    with pytest.raises(RuntimeError, match=r"did not come up:\n(.*\n)*out of order"):
        start(starts.Case("vllm", "server", 1), engine, "without")


def test_told_to_end_it_takes_the_server_along(engine: Path) -> None:
    case = starts.Case("vllm", "server", 1)
    before = signal.signal(signal.SIGTERM, first_token.leave)

    def end_once_it_serves() -> None:
        eventually((engine.parent / "worker").exists, "no worker")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_once_it_serves, daemon=True).start()
    try:
        with pytest.raises(SystemExit):
            while True:
                start(case, engine, "without")
    finally:
        signal.signal(signal.SIGTERM, before)
    worker = int((engine.parent / "worker").read_text())
    eventually(lambda: not is_alive(worker), "the worker has not ended")


def test_variables_of_ours_reach_no_engine_but_to_switch_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHARDAHEAD_THREADS", "1")
    for case in starts.CASES:
        for variant in starts.VARIANTS:
            ours = {n for n in starts.environ(case, variant) if n.startswith("SHARDAHEAD_")}
            assert ours == ({"SHARDAHEAD_DISABLE"} if variant == "switched off" else set())


@pytest.mark.parametrize(
    ("here", "ranks", "shared_out"),
    [({0, 1}, 1, "0,1"), ({0, 1}, 2, "0|1"), ({2, 5, 7, 9, 11}, 2, "2,5|7,9"), ({3}, 2, "3|3")],
)
def test_each_rank_has_processors(
    monkeypatch: pytest.MonkeyPatch, here: set[int], ranks: int, shared_out: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: here)
    assert starts.processors(ranks) == shared_out


def figures(case: str, variant: str, seconds: float, tokens: list[int]) -> dict[str, Any]:
    return {
        "case": case,
        "variant": variant,
        "bytes": 600_000_000,
        "load_average": seconds,
        "link_seconds": 2.0,
        "load_seconds": seconds,
        "weights_seconds": 10 + seconds,
        "first_token_seconds": 11 + seconds,
        "served": 1.0,
        "ours": 1,
        "tokens": [tokens],
    }


def test_the_table_has_medians_and_tells_tokens_that_differ() -> None:
    same = [figures("a", "without", seconds, [1, 2]) for seconds in (1.0, 5.0, 2.0)]
    other = [figures("b", "without", 1.0, [1]), figures("b", "installed", 1.0, [2])]
    lines = list(first_token.table([*same, *other]))
    assert lines[2] == (
        "| a | without | 3 | 2.00 s | 12.0 s | 13.0 s | 1.000 | 1 processes | identical |"
    )
    assert [line.rsplit("| ", 1)[1] for line in lines[3:5]] == ["differ |"] * 2
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[-1].endswith("Load average before the starts: 1.0 to 5.0.")
    assert first_token.differing(same) == []
    assert first_token.differing([*same, *other]) == ["b"]


def test_a_start_that_fails_is_said_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_start(_: Any, case: starts.Case, *others: Any) -> dict[str, Any]:
        if others[-1] == "installed":
            raise RuntimeError("it did not come up")
        return figures(case.name, others[-1], 1.0, [1])

    (tmp_path / "vllm-serving" / "bin").mkdir(parents=True)
    (tmp_path / "vllm-serving" / "bin" / "python").touch()
    monkeypatch.setattr(first_token, "one_start", one_start)
    monkeypatch.setattr(first_token, "make", lambda *_: None)
    case = "vllm-server-tp2"
    argv = ["first_token", "--environments", str(tmp_path), "--case", case, "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", argv)
    assert first_token.main() == 0
    said = capsys.readouterr()
    assert said.err.count(f"no {case}, installed: it did not come up") == 2
    rows = [line for line in said.out.splitlines() if line.startswith(f"| {case}")]
    assert [row.split(" | ")[1:3] for row in rows] == [["without", "2"], ["switched off", "2"]]


def test_what_was_measured_before_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps([figures("a", "without", 1.0, [1])]))
    monkeypatch.setattr(sys, "argv", ["first_token", "--show", "--json", str(path)])
    assert first_token.main() == 0
    assert "| a | without | 1 |" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["figures.json"]
