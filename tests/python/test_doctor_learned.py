"""doctor and learned loads: which profiles of the checkpoint there are, and when one would help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MIB
from doctor_support import DISK, facts, on, only
from learned_support import rewrite, write_checkpoint

from shardahead import LocalTopology
from shardahead.checkpoint.shards import resolve_shards
from shardahead.command import cli
from shardahead.command.advice import advise
from shardahead.command.learned_facts import LearnedFacts, learned_facts, learned_text
from shardahead.node.job_rank import job_size

pytest.importorskip("torch")

NOTHING = LearnedFacts(None, 0, 0, 100 * MIB, "", None)


def test_a_job_of_several_nodes_that_learns_nothing_is_told() -> None:
    job = replace(NOTHING, job_ranks=16)
    found = only(facts(learned=job, topology=LocalTopology(0, 8, "LOCAL_RANK")))
    assert "16 ranks, 8 of them on this node: 2 nodes or more" in found.problem
    assert any("SHARDAHEAD_LEARN" in command for command in found.commands)


@pytest.mark.parametrize(
    "learned",
    [
        None,
        NOTHING,
        replace(NOTHING, job_ranks=8),
        replace(NOTHING, job_ranks=16, folder="/profiles"),
        replace(NOTHING, job_ranks=16, folder="/profiles", profiles=16),
    ],
)
def test_no_other_is(learned: LearnedFacts | None) -> None:
    assert not advise(facts(learned=learned, topology=LocalTopology(0, 8, "LOCAL_RANK")))


def test_a_folder_that_is_not_there_is_told() -> None:
    missing = replace(NOTHING, folder="/my profiles", problem="no folder")
    found = only(facts(on(DISK), learned=missing))
    assert "/my profiles" in found.problem
    assert found.commands == ("mkdir -p '/my profiles'",)
    refused = replace(missing, problem="Permission denied")
    assert only(facts(on(DISK), learned=refused)).commands == ()


def test_what_lies_in_the_folder_is_told(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "m")
    shards = resolve_shards(checkpoint)
    folder = tmp_path / "profiles"
    assert learned_facts(None, shards).folder is None
    assert learned_text(learned_facts(None, shards)) is None
    assert learned_facts(str(folder), shards).problem == "no folder"
    folder.mkdir()
    empty = learned_facts(str(folder), shards)
    assert (empty.profiles, empty.problem) == (0, "")
    assert "nothing of this checkpoint yet" in (learned_text(empty) or "")
    rewrite(checkpoint, folder, lambda *_: ((0, 32 * MIB),))
    (folder / "something else").write_text("{}")
    found = learned_facts(str(folder), shards)
    assert (found.profiles, found.together_bytes) == (1, 2 * 32 * MIB)
    assert found.size_bytes == sum(shard.size_bytes for shard in shards)
    assert f"1 profile in {folder}, which together want 64.0 MiB (49.9 %)" in (
        learned_text(found) or ""
    )


def test_the_command_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "m")
    monkeypatch.setenv("SHARDAHEAD_LEARN", str(tmp_path / "profiles"))
    arguments = ["doctor", "--read-bytes", "4MiB", str(checkpoint)]
    cli.main(arguments)
    shown = capsys.readouterr().out
    assert "learned     nothing, for" in shown
    assert "mkdir -p" in shown
    monkeypatch.delenv("SHARDAHEAD_LEARN")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    cli.main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["learned"]["job_ranks"] == 4
    assert document["learned"]["folder"] is None
    assert any("SHARDAHEAD_LEARN" in str(each["commands"]) for each in document["advice"])


def test_how_many_ranks_a_job_has() -> None:
    assert job_size({}) is None
    assert job_size({"RANK": "3", "WORLD_SIZE": "16"}) == 16
    assert job_size({"RANK": "x", "WORLD_SIZE": "16"}) is None
