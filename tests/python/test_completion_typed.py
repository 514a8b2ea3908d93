"""Completion as it is typed: real shells at a real terminal, the TAB key, and what the command is
given when Enter is pressed. Each shell is skipped where it is not installed.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import clean_environment, eventually

pytest.importorskip("argcomplete")

READY, SET = "READY> ", "SET> "
#: How each is started, without what this user has set up, and what is typed there first.
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        'eval "$(shardahead completion bash)"; PS1="SE""T> "',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit && compinit -u -d "$HOME/.zcompdump"; '
        'eval "$(shardahead completion zsh)"; PS1="SE""T> "',
    ),
    "fish": (
        ["fish", "--no-config", "--init-command", f"function fish_prompt; echo '{READY}'; end"],
        "shardahead completion fish | source; function fish_prompt; echo 'SE''T> '; end",
    ),
}
#: What is typed, and the arguments that come of it.
TYPED = {
    "shardahead do\t": ["doctor"],
    "shardahead warm --strat\tpop\tmodels/llama-1\t": [
        *("warm", "--strategy", "populate", "models/llama-1.safetensors"),
    ],
    "shardahead status Qwen/\t": ["status", "Qwen/Qwen2-0.5B"],
    "shardahead warm models/a\\ n\t": ["warm", "models/a name.gguf"],
    "shardahead warm models/\u00fcb\t": ["warm", "models/\u00fcber.safetensors"],
    "shardahead stage --to mod\t": ["stage", "--to", "models/"],
}


class Typing:
    """A shell whose keys are pressed here."""

    def __init__(self, shell: str, home: Path) -> None:
        words, prepare = SHELLS[shell]
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"no {shell} here")
        self._given = home / "given.json"
        environment = {
            **clean_environment(),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "PS1": READY,
            "HF_HOME": str(home / "hf"),
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "GIVEN": str(self._given),
        }
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            environment.pop(name, None)
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [program, *words[1:]],
            cwd=home,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._seen = ""
        self._wait_for(READY)
        self._type(prepare + "\r")
        self._wait_for(SET)

    def given(self, keys: str) -> list[str]:
        """The arguments that the command gets for these keys and Enter."""
        self._given.unlink(missing_ok=True)
        self._seen = ""
        self._type(keys + "\r")
        eventually(self._is_given, f"{keys!r} runs nothing", seconds=60)
        found: list[str] = json.loads(self._given.read_text())
        self._wait_for(SET)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _is_given(self) -> bool:
        return self._given.exists()

    def _type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def _wait_for(self, text: str) -> None:
        while text not in self._seen:
            try:
                content = os.read(self._master, 65536)
            except OSError:  # it has ended
                content = b""
            assert content, f"it has ended without {text!r}: {self._seen!r}"
            self._seen += content.decode(errors="replace")


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a command that answers the shells' scripts as ever, and else notes what it is given."""
    script = tmp_path / "bin" / "shardahead"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "from shardahead.command.cli import main\n"
        "if '_ARGCOMPLETE' in os.environ or sys.argv[1:2] == ['completion']:\n"
        "    sys.exit(main())\n"
        "given = os.environ['GIVEN']\n"
        "with open(given + '.new', 'w') as file:\n"
        "    json.dump(sys.argv[1:], file)\n"
        "os.rename(given + '.new', given)\n"
    )
    script.chmod(0o755)
    models = tmp_path / "models"
    models.mkdir()
    for name in ("llama-1.safetensors", "a name.gguf", "\u00fcber.safetensors"):
        (models / name).touch()
    (tmp_path / "hf" / "hub" / "models--Qwen--Qwen2-0.5B" / "snapshots").mkdir(parents=True)
    return tmp_path


@pytest.fixture(params=SHELLS)
def typing(request: pytest.FixtureRequest, home: Path) -> Iterator[Typing]:
    made = Typing(request.param, home)
    yield made
    made.close()


def test_what_the_tab_key_completes_is_what_the_command_is_given(typing: Typing) -> None:
    assert {keys: typing.given(keys) for keys in TYPED} == TYPED
