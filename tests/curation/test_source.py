"""What the user names as input becomes a sorted list in which each file stands once."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rushes.curation.video.decode import probe
from rushes.curation.video.inputs import InputError, list_inputs
from rushes.curation.video.source import clip_id, fingerprint


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.MOV", "sub/c.webm", "notes.txt.md", "ein Bild #1 100%.mkv"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def names(found: list[str], folder) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in found]


def test_a_folder_is_its_videos_at_any_depth(folder):
    assert names(list_inputs([str(folder)]), folder) == ["a.MOV", "b.mp4", "ein Bild #1 100%.mkv", "sub/c.webm"]


def test_a_file_named_by_itself_counts_whatever_its_suffix(folder):
    assert names(list_inputs([str(folder / "notes.txt.md")]), folder) == ["notes.txt.md"]


def test_globs_reach_into_folders(folder):
    assert names(list_inputs([f"{folder}/**/*.webm"]), folder) == ["sub/c.webm"]
    assert names(list_inputs([f"{folder}/?.mp4"]), folder) == ["b.mp4"]


def test_lists_name_files_beside_them_and_files_that_are_gone(folder):
    (folder / "list.txt").write_text("# comment\nb.mp4\n\n../in/b.mp4\ngone.mp4\n")
    assert names(list_inputs([str(folder / "list.txt")]), folder) == ["b.mp4", "gone.mp4"]
    (folder / "list.csv").write_text('﻿id,uri\n1,"b.mp4"\n2,sub/c.webm\n', encoding="utf-8")
    assert names(list_inputs([str(folder / "list.csv")]), folder) == ["b.mp4", "sub/c.webm"]
    pq.write_table(pa.table({"uri": ["b.mp4", None]}), folder / "list.parquet")
    assert names(list_inputs([str(folder / "list.parquet")]), folder) == ["b.mp4"]


def test_one_file_named_in_many_ways_counts_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    ways = ["b.mp4", str(folder / "b.mp4"), f"file://{folder}/b.mp4", "./sub/../b.mp4", "b.*"]
    assert names(list_inputs(ways), folder) == ["b.mp4"]


def test_an_address_that_nothing_can_open_stays_in_the_list_for_its_row(folder):
    (folder / "list.txt").write_text("b.mp4\nnosuch://bucket/c.mp4\n")
    assert "nosuch://bucket/c.mp4" in list_inputs([str(folder / "list.txt")])


@pytest.mark.parametrize("content", ["", "# only words\n"])
def test_a_list_without_footage_is_refused(folder, content):
    (folder / "list.txt").write_text(content)
    with pytest.raises(InputError, match="names no footage"):
        list_inputs([str(folder / "list.txt")])


def test_no_input_is_refused():
    with pytest.raises(InputError, match="name files, folders"):
        list_inputs([])


def test_a_large_file_is_named_by_its_size_and_samples_of_it(tmp_path):
    data = bytearray(b"\x01" * (9 << 20))
    (tmp_path / "a").write_bytes(data)
    data[0] = 2
    (tmp_path / "b").write_bytes(data)
    assert fingerprint(str(tmp_path / "a")) != fingerprint(str(tmp_path / "b"))
    assert fingerprint(str(tmp_path / "a")) == fingerprint(f"file://{tmp_path}/a")


def test_a_clips_name_is_its_source_and_span():
    assert clip_id("s", 1.0, 2.0) == clip_id("s", 1.0 + 1e-9, 2.0) != clip_id("s", 1.0, 2.1)
    assert len(clip_id("s", 1.0, 2.0)) == 20


def test_links_that_lead_in_circles_are_followed_once(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.mp4").write_bytes(b"x")
    for name in ("one", "two"):
        (tmp_path / "deep" / name).symlink_to("..")
    assert len(list_inputs([str(tmp_path)])) == 1


def test_what_a_run_made_is_no_input_when_it_lies_among_the_footage(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"x")
    media = tmp_path / "run" / "media" / "ab"
    media.mkdir(parents=True)
    (media / "clip.mp4").write_bytes(b"y")
    assert len(list_inputs([str(tmp_path)])) == 2  # an ordinary folder that happens to be called media
    (tmp_path / "run" / ".lock").write_text("")
    for ways in ([str(tmp_path)], [f"{tmp_path}/**/*.mp4"]):
        assert names(list_inputs(ways), tmp_path) == ["film.mp4"]


def test_a_name_that_is_not_utf8_costs_no_other_file_its_place(tmp_path):
    (tmp_path / "good.mp4").write_bytes(b"x")
    with open(os.fsencode(tmp_path) + b"/bad\xff.mp4", "wb") as file:
        file.write(b"x")
    found = list_inputs([str(tmp_path)])
    assert [os.path.basename(uri) for uri in found] == [r"bad\xff.mp4", "good.mp4"]
    assert "not valid UTF-8" in (probe(found[0]).error or "")


LISTS = {
    "uri.csv": "uri\na.mp4\n", "path.csv": "path\na.mp4\n", "VIDEO.csv": "Video\na.mp4\n", "bare.csv": "a.mp4\n",
    "two.csv": "id,url\n1,a.mp4\n", "strings.jsonl": '"a.mp4"\n\n', "objects.jsonl": '{"id": 1, "path": "a.mp4"}\n',
    "only.jsonl": '{"file": "a.mp4"}', "plain.txt": "# a list\na.mp4\n", "bom.csv": "\ufeffuri\na.mp4\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_its_addresses_by_the_usual_columns(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name], encoding="utf-8")
    assert list_inputs([str(tmp_path / name)]) == [str(tmp_path / "a.mp4")]


def test_another_column_is_named_and_a_trial_takes_a_few(tmp_path):
    (tmp_path / "list.csv").write_text("uri,clip\nx.mp4,b.mp4\ny.mp4,a.mp4\n")
    ways = [str(tmp_path / "list.csv")]
    assert list_inputs(ways, column="clip") == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    assert list_inputs(ways, limit=1) == [str(tmp_path / "x.mp4")]
    with pytest.raises(InputError, match="no column 'film'; columns: uri, clip"):
        list_inputs(ways, column="film")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"{not json\n", "line 1 is not JSON"),
        ("b.jsonl", b"1\n", "line 1 holds no address"),
        ("c.jsonl", b'{"uri": null}\n', "line 1 holds no address"),
        ("d.jsonl", b'{"a": "x", "b": "y"}\n', "no column uri, path, video or url; columns: a, b"),
        ("e.jsonl", b"[" * 60_000, "line 1 is not JSON"),
        ("f.jsonl", b"9" * 5000, "line 1 is not JSON"),
        ("g.txt", b"x" * (1 << 20), "line 1 has more than 65536 bytes, so this is no list"),
        ("h.csv", b"uri\n" + b"x" * 200_000, "has more than 65536 bytes"),
        ("i.csv", b'uri\n"unclosed', "cannot be read as a list"),
        ("k.csv", b",".join(b"c%d" % n for n in range(9000)), "Name one with --column"),
    ],
)
def test_what_is_no_list_is_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as told:
        list_inputs([str(tmp_path / name)])
    assert said in str(told.value) and len(str(told.value)) < 1000 and "\n" not in str(told.value)


def test_a_pattern_visits_every_real_folder_once_and_folders_named_as_footage_are_rows(tmp_path):
    for folder in ("x", "x/y", "x/.hidden", "film.mp4"):
        (tmp_path / folder).mkdir()
    for name in ("a.mp4", "x/b.mp4", "x/y/c.mp4", "x/.hidden/d.mp4", "x/.e.mp4", "x/y/note.txt"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("one", "two"):
        (tmp_path / "x" / name).symlink_to("..")
    found = {
        pattern: names(list_inputs([f"{tmp_path}/{pattern}"]), tmp_path)
        for pattern in ("**/*.mp4", "*.mp4", "x/*.mp4", "*/*/*.mp4", "x/**/[bc].mp4", "x/.*.mp4")
    }
    assert found["**/*.mp4"] == ["a.mp4", "film.mp4", "x/b.mp4", "x/y/c.mp4"]
    assert found["*.mp4"] == ["a.mp4", "film.mp4"]
    assert found["x/*.mp4"] == ["x/b.mp4"] and found["x/.*.mp4"] == ["x/.e.mp4"]
    assert found["x/**/[bc].mp4"] == ["x/b.mp4", "x/y/c.mp4"]
    assert "x/y/c.mp4" in found["*/*/*.mp4"]


def test_odd_names_are_found_as_they_are(tmp_path):
    odd = ["new\nline.mp4", "quote'\".mp4", "🎬.mp4", " space .mp4", "-dash.mp4", "%20.mp4", "a;b.mp4", "$(x).mp4"]
    for name in odd:
        (tmp_path / name).write_bytes(b"x")
    assert sorted(os.path.basename(uri) for uri in list_inputs([str(tmp_path)])) == sorted(odd)
    assert list_inputs([str(tmp_path / "[x].mp4")] if (tmp_path / "[x].mp4").write_bytes(b"x") else []) == [
        str(tmp_path / "[x].mp4")
    ]


@pytest.mark.parametrize("name", ["x" * 5000, "y" * 300 + ".mp4", "a\0b.mp4"])
def test_a_name_that_no_file_can_have_is_a_short_sentence(tmp_path, name):
    with pytest.raises(InputError) as told:
        list_inputs([str(tmp_path / name)])
    assert len(str(told.value)) < 1000
    (tmp_path / "list.txt").write_text(f"{name}\n")
    (row,) = list_inputs([str(tmp_path / "list.txt")])
    assert probe(row).status == "failed"


def test_a_table_without_a_uri_column_is_a_sentence_that_names_its_columns(tmp_path):
    (tmp_path / "list.csv").write_text("id,file\n1,a.mp4\n")
    with pytest.raises(InputError, match="no column uri, path, video or url; columns: id, file"):
        list_inputs([str(tmp_path / "list.csv")])
    (tmp_path / "semicolons.csv").write_text("id;uri\n1;a.mp4\n")
    with pytest.raises(InputError, match="no column uri"):
        list_inputs([str(tmp_path / "semicolons.csv")])
