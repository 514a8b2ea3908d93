"""Completion of what is typed, in real shells where they are installed; without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import clean_environment

from shardahead.command import cli, completion

pytest.importorskip("argcomplete")

# What is asked of each shell: the candidates for a line whose last word is begun.
BASH = r"""
eval "$(shardahead completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -r -a COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shardahead shardahead "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
printf '%s\n' "${COMPREPLY[@]}"
"""
FISH = """
shardahead completion fish | source
complete --do-complete "$argv[1]"
"""
# The words that zsh would describe, by a stand-in for what shows them.
ZSH = r"""
autoload -Uz compinit && compinit -u -d "$HOME/.zcompdump"
_describe() { local -a found; found=("${(@P)2}"); print -rl -- "${found[@]%%:*}" }
eval "$(shardahead completion zsh)"
words=(${(z)1}) CURRENT=${#words}
[[ "$1" == *" " ]] && { words+=(""); CURRENT=$((CURRENT + 1)) }
BUFFER="$1" CURSOR=${#1} service=shardahead
_python_argcomplete shardahead
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With the command on PATH, a checkpoint, and a repository in the cache."""
    script = tmp_path / "bin" / "shardahead"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from shardahead.command.cli import main\n"
        "sys.modules['torch'] = None  # whoever imports it fails\n"
        "sys.exit(main())\n"
    )
    script.chmod(0o755)
    (tmp_path / "models" / "llama").mkdir(parents=True)
    (tmp_path / "models" / "llama-1.safetensors").touch()
    (tmp_path / "hf" / "hub" / "models--Qwen--Qwen2-0.5B" / "snapshots").mkdir(parents=True)
    return tmp_path


def asked(home: Path, shell: str, script: str, line: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    environment = {
        **clean_environment(),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "http_proxy": "http://127.0.0.1:9",  # nobody is asked
        "https_proxy": "http://127.0.0.1:9",
    }
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "PYTHONSAFEPATH"):
        environment.pop(name, None)
    words = {"bash": ["--norc", "-c", script, "bash", line], "fish": ["-N", "-c", script, line]}
    done = subprocess.run(
        [program, *words.get(shell, ["-f", "-c", script, "zsh", line])],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [answer.split("\t")[0].rstrip() for answer in done.stdout.splitlines() if answer.strip()]


SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_values_are_completed(home: Path, shell: str) -> None:
    script = SHELLS[shell]
    assert asked(home, shell, script, "shardahead do") == ["doctor"]
    commands = asked(home, shell, script, "shardahead ")
    assert {"warm", "status", "evict", "plan", "doctor", "bench", "report"} <= set(commands)
    assert asked(home, shell, script, "shardahead warm --str") == ["--strategy"]
    choices = asked(home, shell, script, "shardahead warm --strategy p")
    assert sorted(choices) == ["populate", "pread"]
    assert asked(home, shell, script, "shardahead bench --block-siz")[0] == "--block-size"


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_and_repositories_are_completed(home: Path, shell: str) -> None:
    script = SHELLS[shell]
    found = asked(home, shell, script, "shardahead warm models/ll")
    assert sorted(found) == ["models/llama-1.safetensors", "models/llama/"]
    assert asked(home, shell, script, "shardahead status Qwen/") == ["Qwen/Qwen2-0.5B"]


NUMBERS = [
    *("warm --threads", "warm --inflight", "warm --rate-limit", "warm --keep-interval"),
    *("warm --follow-idle", "warm --block-size", "warm --local-rank", "status --require"),
    *("stage --nodes", "stage --node-rank", "stage --rendezvous", "plan --include"),
    *("doctor --read-bytes", "bench --repeats", "bench --limit", "bench --threads"),
]


@pytest.mark.parametrize("shell", SHELLS)
def test_for_a_number_no_file_is_offered(home: Path, shell: str) -> None:
    script = SHELLS[shell]
    for words in NUMBERS if shell == "bash" else NUMBERS[:1]:
        assert asked(home, shell, script, f"shardahead {words} ") == [], words
    for words in ("warm --metrics-file", "stage --to", "plan --learned", "status --watch"):
        assert "models/" in asked(home, shell, script, f"shardahead {words} ")
    listed = asked(home, shell, script, "shardahead bench --strategies auto,p")
    assert sorted(listed) == ["auto,populate", "auto,pread"]


def test_every_option_takes_a_file_or_is_known_not_to() -> None:
    """A new metavar is either a path, or named here."""
    (commands,) = (a.choices for a in cli._parser()._actions if isinstance(a.choices, dict))
    taken = {
        str(action.metavar)
        for parser in commands.values()
        for action in parser._actions
        if action.metavar and action.option_strings
    }
    others = {"N", "M", "I", "BYTES", "RATE", "SECONDS", "SHARE", "GLOB", "LIST", "HOST:PORT"}
    assert taken == others | set(completion._PATHS)


def test_bash_completes_no_files_of_its_own(home: Path) -> None:
    told = BASH.partition("COMP_LINE")[0] + "complete -p shardahead"
    (line,) = asked(home, "bash", told, "")
    assert line == "complete -o nospace -F _shardahead shardahead"


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "tcsh"])
    assert ended.value.code == 2
    assert "tcsh" in capsys.readouterr().err


def test_without_the_library_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    assert cli.main(["completion", "bash"]) == 2
    assert "pip install argcomplete" in capsys.readouterr().err


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "b", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "a").mkdir()
    assert completion.names_of_files("") == ["a b", "a/", "b"]
    assert completion.names_of_files("a") == ["a b", "a/"]
    assert completion.names_of_files(".") == [".hidden"]
    assert completion.names_of_files(f"{tmp_path}/b") == [f"{tmp_path}/b"]
    assert completion.names_of_files("none/") == []


def test_a_link_that_leads_to_itself_is_a_name_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "m").mkdir()
    assert completion.names_of_files("") == ["loop", "m/"]
