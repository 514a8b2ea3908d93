"""`shardahead plan --learned FOLDER`: several profiles beside each other."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import MIB, write_file

from shardahead.command import cli
from shardahead.command.learned_screen import strip
from shardahead.prefetch.byte_ranges import Ranges, merged
from shardahead.prefetch.profile import Profile
from shardahead.prefetch.profile_file import profile_name, write_profile


def profile_of_rank(rank: int, size: int) -> Profile:
    """Of two files of 8 MiB: the rank's share of each, and the header of the first."""
    share = 8 * MIB // size
    of_second: Ranges = ((rank * share, share),)
    of_first = merged([(0, 65536), *of_second])
    files = (("a.safetensors", 8 * MIB), ("b.safetensors", 8 * MIB))
    return Profile(files, f"rank {rank} of {size}", 65536, (of_first, of_second), (0, 1), "1")


def test_several_profiles_are_shown_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, profiles = tmp_path / "m", tmp_path / "profiles"
    for name in ("a", "b"):
        write_file(folder / f"{name}.safetensors", 8 * MIB)
    profiles.mkdir()
    for rank in (10, 2, 9):
        profile = profile_of_rank(rank, 16)
        write_profile(str(profiles / profile_name(profile.files, profile.who)), profile)
    (profiles / "else").write_text("{}")
    picture = tmp_path / "p.svg"
    command = ["plan", "--learned", str(profiles), "--picture", str(picture), str(folder)]
    if importlib.util.find_spec("matplotlib"):
        assert cli.main(command) == 0
        assert b"rank 2 of 16" in picture.read_bytes()
    assert cli.main([*command[:3], str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("learned: 3 profiles"))
    names = [line.split("  ")[0] for line in lines[start + 2 : start + 6]]
    assert names == ["rank 2 of 16", "rank 9 of 16", "rank 10 of 16", "any of them"]
    assert all(len(line) <= 80 for line in lines[start:])
    assert cli.main(["plan", "--json", *command[1:3], str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)["learned"]
    assert [each["who"] for each in found] == names[:3]
    assert cli.main(["plan", "--learned", str(tmp_path / "m"), str(folder)]) == 2
    assert "no profile of these shards in the folder" in capsys.readouterr().err
    for wrong in (["--picture", "p.svg"], ["--picture", "", "--learned", str(profiles)]):
        assert cli.main(["plan", *wrong, str(folder)]) == 2
        assert "--picture takes the name of a file" in capsys.readouterr().err


def test_a_strip_tells_all_from_a_part() -> None:
    wanted = [((0, 100),), ((0, 50), (150, 50)), ()]
    assert strip(wanted, [100, 200, 100], 4) == "█▒▒·"
    assert strip(wanted, [100, 200, 100], 8) == "███··█··"
    assert strip([(), ()], [0, 0], 3) == "···"
    assert strip([((0, 995),)], [1000], 1) == "█"
