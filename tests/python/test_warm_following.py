"""What a follower makes of told listings, and which shards of a checkpoint in the making are there.

Times are told, not measured.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shard_support import names_of, write, write_index

from shardahead.command.cli import _parser
from shardahead.command.following import RETRY_SECONDS, Follower, Seen
from shardahead.command.present_shards import complete_names, present_shards
from shardahead.command.staying import Stay
from shardahead.command.typed_paths import Filters
from shardahead.node.launcher import LocalTopology

A = Seen(100, 1, 7, 1)
B = Seen(200, 1, 7, 2)


# ---- what has changed ----


def test_the_first_look_brings_in_all_that_is_there_in_its_order() -> None:
    assert Follower().look({"b": B, "a": A}, 0).bring_in == ("b", "a")


def test_what_stays_the_same_is_brought_in_once() -> None:
    follower = Follower()
    follower.look({"a": A}, 0)
    for now in range(1, 5):
        change = follower.look({"a": A}, now)
        assert (change.bring_in, change.growing, change.gone) == ((), (), ())
        assert change.idle_seconds == now


def test_a_file_that_grows_comes_once_two_looks_found_it_the_same() -> None:
    follower = Follower()
    follower.look({"a": A}, 0)
    for size in (300, 400):
        change = follower.look({"a": replace(A, size_bytes=size)}, 1)
        assert (change.bring_in, change.growing) == ((), ("a",))
        assert change.idle_seconds == 0
    assert follower.look({"a": replace(A, size_bytes=400)}, 2).bring_in == ("a",)
    assert follower.look({"a": replace(A, size_bytes=400)}, 3).bring_in == ()


def test_a_new_shard_and_one_that_is_gone() -> None:
    follower = Follower()
    follower.look({"a": A}, 0)
    assert follower.look({"a": A, "b": B}, 1).growing == ("b",)
    assert follower.look({"a": A, "b": B}, 2).bring_in == ("b",)
    change = follower.look({"b": B}, 3)
    assert (change.bring_in, change.gone) == ((), ("a",))
    assert follower.look({"a": A, "b": B}, 4).growing == ("a",)
    assert follower.look({"a": A, "b": B}, 5).bring_in == ("a",)


@pytest.mark.parametrize("changed", ["modified_nanoseconds", "device", "inode"])
def test_a_file_that_another_has_taken_the_place_of(changed: str) -> None:
    follower = Follower()
    follower.look({"a": A}, 0)
    other = replace(A, **{changed: 99})
    assert follower.look({"a": other}, 1).growing == ("a",)
    assert follower.look({"a": other}, 2).bring_in == ("a",)


def test_inodes_that_a_mount_makes_up_at_every_look_prove_nothing() -> None:
    follower = Follower()
    brought = [follower.look({"a": replace(A, inode=i)}, i).bring_in for i in range(10)]
    assert brought[0] == ("a",)
    assert sum(map(len, brought)) <= 2
    assert follower.look({"a": replace(A, inode=99)}, 99).idle_seconds > 0
    grown = replace(A, inode=100, size_bytes=101)
    assert follower.look({"a": grown}, 100).growing == ("a",)
    assert follower.look({"a": replace(grown, inode=101)}, 101).bring_in == ("a",)


def test_what_failed_is_tried_again_later_or_when_it_has_changed() -> None:
    follower = Follower()
    follower.look({"a": A, "b": B}, 0)
    follower.failed("a", 0)
    follower.failed("b", 0)
    follower.failed("never seen", 0)
    change = follower.look({"a": A, "b": B}, 1)
    assert (change.bring_in, change.growing, change.idle_seconds) == ((), ("a", "b"), 0)
    changed = replace(B, size_bytes=201)
    assert follower.look({"a": A, "b": changed}, 2).growing == ("a", "b")
    assert follower.look({"a": A, "b": changed}, 3).bring_in == ("b",)
    assert follower.look({"a": A, "b": changed}, RETRY_SECONDS).bring_in == ("a",)
    assert follower.look({"a": A, "b": changed}, RETRY_SECONDS + 1).bring_in == ()


def test_what_failed_and_went_is_as_if_it_had_never_been() -> None:
    follower = Follower()
    follower.look({"a": A, "b": B}, 0)
    follower.failed("a", 0)
    change = follower.look({"b": B}, 1)
    assert (change.growing, change.gone) == ((), ("a",))
    assert follower.look({"b": B}, 5).idle_seconds == 4
    # It would still be waited for, were it remembered.
    assert follower.look({"a": A, "b": B}, 6).growing == ("a",)
    assert follower.look({"a": A, "b": B}, 7).bring_in == ("a",)


def test_an_inode_proves_something_again_once_its_file_went() -> None:
    """Another comes in its place, whose inode does not change while it stays the same."""
    follower = Follower()
    for inode in range(5):
        follower.look({"a": replace(A, inode=inode)}, inode)
    follower.look({}, 5)
    for now in (6, 7):
        follower.look({"a": A}, now)
    other = replace(A, inode=99)
    assert follower.look({"a": other}, 8).growing == ("a",)
    assert follower.look({"a": other}, 9).bring_in == ("a",)


# ---- which shards there are ----


def there(folder: Path, *paths: Path, **filters: Any) -> tuple[list[str], str | None]:
    typed = [str(path) for path in paths] or [str(folder)]
    present = present_shards(typed, Filters(**filters))
    return names_of(present.shards), present.problem


def test_a_checkpoint_that_is_whole_is_what_a_load_would_take(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path / f"x-{number}.safetensors")
    assert there(tmp_path) == ([f"x-{n}.safetensors" for n in (1, 2, 10)], None)


def test_an_empty_folder_and_one_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "later"):
        names, problem = there(path)
        assert names == []
        assert problem


def test_what_is_missing_is_said_at_once_and_not_with_each_that_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"model-{n:05}-of-00020.safetensors" for n in range(1, 21)]
    stay = Stay(_parser().parse_args(["warm", "--follow", str(tmp_path)]))

    def said() -> str:
        stay.find_shards(LocalTopology(0, 1, "test"))
        return capsys.readouterr().err

    write(tmp_path / names[0])
    missing = ", ".join(map(repr, names[1:7]))
    begin = "shardahead: waiting for the rest: "
    assert said() == (
        f"{begin}19 more shards missing in {str(tmp_path)!r}: {missing} and 13 more\n"
    )
    for name in names[1:18]:
        write(tmp_path / name)
        assert said() == ""
    assert "2 of the 20 shards missing" in str(stay.why_incomplete())
    (tmp_path / names[3]).unlink()  # that one had come
    assert said().startswith(f"{begin}3 more shards missing in ")
    write(tmp_path / names[3])
    write(tmp_path / names[18])
    assert said() == ""
    (tmp_path / names[19]).symlink_to("nowhere")
    assert "No such file or directory" in said()
    (tmp_path / names[19]).unlink()
    assert said() == f"{begin}open '{tmp_path / names[19]}': 1 of the 20 shards missing, this one\n"


def test_what_an_index_names_is_waited_for_in_the_same_way(tmp_path: Path) -> None:
    names = [f"m-{n}.safetensors" for n in range(4)]
    index = write_index(tmp_path / "m.safetensors.index.json", *names)
    write(tmp_path / names[1])
    present = present_shards([str(index)], Filters())
    assert present.missing == tuple(str(tmp_path / name) for name in (names[0], *names[2:]))
    assert "3 of the 4 shards that" in str(present.problem)


def test_a_numbered_set_with_gaps(tmp_path: Path) -> None:
    names = [f"model-0000{n}-of-00005.safetensors" for n in (1, 3)]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / "model-00001-of-00005.fp16.safetensors")
    found, problem = there(tmp_path)
    assert found == names
    assert "3 of the 5 shards missing, the first of them" in str(problem)


def test_an_index_that_comes_before_its_shards(tmp_path: Path) -> None:
    write_index(tmp_path / "model.safetensors.index.json", "b.safetensors", "a.safetensors")
    assert there(tmp_path)[0] == []
    write(tmp_path / "a.safetensors")
    write(tmp_path / "other.safetensors")
    assert there(tmp_path)[0] == ["a.safetensors"]
    assert there(tmp_path, tmp_path / "model.safetensors.index.json")[0] == ["a.safetensors"]
    write(tmp_path / "b.safetensors")
    assert there(tmp_path) == (["b.safetensors", "a.safetensors"], None)


def test_an_index_that_is_half_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    index = write_index(tmp_path / "model.safetensors.index.json", "b.safetensors")
    whole = index.read_text()
    index.write_text(whole[:-5])
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    names, problem = there(tmp_path)
    assert names == ["a.safetensors", "b.safetensors"]
    assert "malformed index" in str(problem)
    index.write_text(whole)
    assert there(tmp_path) == (["b.safetensors"], None)


def test_shards_patterns_and_filters(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    missing = tmp_path / "c.safetensors"
    assert there(tmp_path, tmp_path / "a.safetensors", missing)[0] == ["a.safetensors"]
    assert there(tmp_path, tmp_path / "*.safetensors", missing)[0] == [
        "a.safetensors",
        "b.safetensors",
    ]
    assert there(tmp_path, tmp_path, missing, exclude=("a*",))[0] == ["b.safetensors"]
    assert there(tmp_path, tmp_path, missing, include=("a*",))[0] == ["a.safetensors"]


def test_shards_of_torch_before_their_plan_is_written(tmp_path: Path) -> None:
    write(tmp_path / "__0_0.distcp")
    assert there(tmp_path) == (["__0_0.distcp"], None)


def test_a_pipeline_of_which_parts_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"unet": ["d", "U"], "vae": ["d", "V"]}')
    for number in (1, 2):
        name = f"diffusion_pytorch_model-0000{number}-of-00003.safetensors"
        write(tmp_path / "unet" / name)
    names, problem = there(tmp_path)
    assert len(names) == 2
    assert problem


def test_names_of_a_set_once_it_is_whole() -> None:
    assert complete_names(["x"]) == ["x"]
    assert complete_names(["m-2-of-3.bin"]) == ["m-2-of-3.bin", "m-1-of-3.bin", "m-3-of-3.bin"]
    assert complete_names(["m-00000-of-00002.bin"])[1:] == ["m-00001-of-00002.bin"]
    endless = "m-1-of-999999999.bin"
    assert complete_names([endless]) == [endless]
