"""Images: every file is a row, what cannot be trained on says why, and the same command again does nothing twice."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, open_run, publish
from rushes.curation.video.inputs import InputError
from rushes.model.data import DataOptions, Loader
from rushes.pipelines import images
from rushes.pipelines.cli.main import app
from rushes.pipelines.image_facts import ImageWorker, Item, NoImage, image_facts, sharpest
from rushes.pipelines.images import Request, collect, list_items, read_captions
from tests.footage import make_video

WIDE, TALL = (384, 216), (216, 384)  # pixels: just larger than what a resolution of 256 asks for


def picture(seed: int, size: tuple[int, int] = WIDE) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good images, one of each kind that is handled, and one of each that is refused."""
    top = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0).save(top / "a.jpg")
    (top / "a.txt").write_text("A first\npicture.\n", encoding="utf-8")
    picture(1, TALL).save(top / "b.png")
    picture(2, (300, 300)).save(top / "c.webp")
    picture(3).save(top / "turned.jpg", exif=exif)
    picture(4).convert("L").save(top / "grey.png")
    picture(5).convert("RGBA").save(top / "opaque.png")
    (top / "copy.jpg").write_bytes((top / "a.jpg").read_bytes())
    picture(6, (200, 100)).save(top / "small.jpg")
    picture(7, (1200, 300)).save(top / "long.jpg")
    picture(8).save(top / "moving.png", save_all=True, append_images=[picture(9)])
    picture(10).convert("CMYK").save(top / "print.jpg")
    Image.fromarray(np.full((216, 384), 40_000, np.uint16)).save(top / "deep.png")
    clear = picture(11).convert("RGBA")
    clear.putalpha(128)
    clear.save(top / "clear.png")
    (top / "half.jpg").write_bytes((top / "a.jpg").read_bytes()[:2000])
    (top / "text.jpg").write_text("no picture")
    (top / "empty.jpg").touch()
    return top


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """A run with a kept clip, one that is validated on, one that was rejected, and one whose file is gone."""
    root = tmp_path_factory.mktemp("run")
    (root / "media").mkdir()
    make_video(root / "media" / "a.mp4", size=WIDE, seconds=2, options={"-g": 12})
    clips = [("one", True, ["pretrain-256"], "media/a.mp4"), ("two", True, ["validation"], "media/a.mp4"),
             ("three", False, [], None), ("four", True, [], "media/gone.mp4")]  # fmt: skip
    rows = [{"clip_id": name, "source_id": "film", "start_s": 3.0, "kept": kept, "sets": sets, "media": media,
             "caption": f"Clip {name}."} for name, kept, sets, media in clips]  # fmt: skip
    publish(str(root), {"clips": pa.Table.from_pylist(rows, manifest.CLIPS)}, {"recipe": {}})
    return str(root)


@pytest.fixture(scope="module")
def collected(folder, curated, tmp_path_factory):
    root = str(tmp_path_factory.mktemp("out"))
    request = Request([str(folder)], [curated], per_clip=2)
    return request, root, collect(request, root, Console(quiet=True))


def test_every_image_is_a_row_and_what_is_left_out_says_why(collected, folder):
    sources = {row["uri"].rsplit("/", 1)[1]: row for row in collected[2].table("sources").to_pylist()}
    files = {path.name for path in folder.iterdir() if path.suffix != ".txt"}
    assert set(sources) == files | {"a.mp4", "gone.mp4"}
    reasons = {
        "small.jpg": "too small", "long.jpg": "too long", "moving.png": "animated", "print.jpg": "CMYK",
        "deep.png": "deep grey", "clear.png": "transparent", "half.jpg": "damaged", "text.jpg": "not an image",
        "empty.jpg": "empty", "copy.jpg": "duplicate", "gone.mp4": "no clip",
    }  # fmt: skip
    assert {name: row["error"].partition(":")[0] for name, row in sources.items() if row["error"]} == reasons
    assert {row["status"] for name, row in sources.items() if name not in reasons} == {"ok"}
    assert (sources["turned.jpg"]["width"], sources["turned.jpg"]["height"]) == TALL


def test_the_set_has_shapes_and_captions_and_frames_of_training_clips(collected, folder):
    rows = collected[2].table("sets/images").to_pylist()
    by_name = {row["media"].rsplit("/", 1)[1]: row for row in rows if not row["media"].startswith("media/")}
    assert by_name["a.jpg"]["caption"] == "A first picture." and by_name["b.png"]["caption"] is None
    assert {name: row["bucket"] for name, row in by_name.items()} == {
        "a.jpg": "16x9", "b.png": "9x16", "c.webp": "1x1", "turned.jpg": "9x16", "grey.png": "16x9",
        "opaque.png": "16x9",
    }  # fmt: skip
    assert tuple(by_name["a.jpg"][f"bucket_{name}"] for name in ("width", "height", "frames")) == (336, 192, 1)
    frames = [row for row in rows if row["media"].startswith("media/")]
    assert len(frames) == 2 and {row["caption"] for row in frames} == {"Clip one."}
    assert all(row["source_id"] == "film" for row in frames)


def test_a_loader_reads_all_of_it(collected):
    options = DataOptions("images", 1, workers=0, image_every=1, images="images", resolution=64)
    rows = collected[2].table("sets/images").num_rows
    found = Loader([collected[1]], options)
    batches = list(found.batches(range(rows)))
    assert len({batch.samples[0].clip_id for batch in batches}) == rows and not found.failures


def test_the_same_command_again_looks_at_nothing_and_says_the_same(collected, monkeypatch):
    request, root, before = collected

    def never(*_):
        raise AssertionError("nothing is new")

    monkeypatch.setattr(images.ray_start, "start", never)
    again = collect(request, root, Console(quiet=True))
    for table in ("sources", "sets/images"):
        assert again.table(table).equals(before.table(table))


def test_a_table_of_captions_goes_before_sidecars(folder, tmp_path):
    (folder / "captions.csv").write_text('file,caption\na.jpg,"From, the table."\nb.png,\n', encoding="utf-8")
    (tmp_path / "far.jsonl").write_text(json.dumps({"file": str(folder / "b.png"), "caption": "Far."}) + "\n")
    uris = [str(folder / name) for name in ("a.jpg", "b.png")]
    assert read_captions(str(folder / "captions.csv"), uris) == {uris[0]: "From, the table."}
    assert read_captions(str(tmp_path / "far.jsonl"), uris) == {uris[1]: "Far."}
    wrong = {
        "x.csv": ("file,text\na,b\n", "columns 'file' and 'caption'"), "y.jsonl": ("{", "cannot be read"),
        "z.csv": ("file,caption\nq.jpg,Q\n", "names none"), "t.doc": ("", "is a .csv"),
    }  # fmt: skip
    for name, (text, said) in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=said):
            read_captions(str(tmp_path / name), uris)
    (folder / "captions.csv").unlink()


def test_the_sharpest_key_frame_is_taken(tmp_path):
    blurred = make_video(
        tmp_path / "a.mp4", size=WIDE, seconds=2, filters=["gblur=sigma=6:enable='lt(t,1)'"], options={"-g": 6}
    )
    [(time_s, bgr)] = sharpest(str(blurred), 2.0, 1)
    assert time_s >= 1.0 and bgr.shape == (216, 384, 3)
    assert [int(time_s) for time_s, _ in sharpest(str(blurred), 2.0, 2)] == [0, 1]


def test_a_file_that_is_gone_is_a_row_too(tmp_path):
    worker = ImageWorker(str(tmp_path), 1)
    [row] = worker.examine([Item("key", str(tmp_path / "gone.jpg"))])
    assert row["status"] == "failed" and "gone.jpg" in row["error"]
    with pytest.raises(NoImage, match="not an image"):
        (tmp_path / "a.gif").write_bytes(b"GIF89a")
        image_facts(str(tmp_path / "a.gif"))


def test_a_curated_run_is_not_written_over_and_a_folder_of_images_is_no_curated_run(collected, curated, folder):
    with pytest.raises(ManifestError, match="holds a curated run"):
        collect(Request([str(folder)], []), curated, Console(quiet=True))
    assert "clips" in open_run(curated).tables
    for command in (["funnel", collected[1]], ["judge", collected[1], "--dry-run"]):
        assert isinstance(CliRunner().invoke(app, command).exception, ManifestError)


def test_a_dry_run_counts_and_writes_nothing(folder, tmp_path):
    told = CliRunner().invoke(app, ["images", "-i", str(folder), "-o", str(tmp_path / "out"), "--dry-run"])
    assert told.exit_code == 0 and "16 images and clips" in told.output and not (tmp_path / "out").exists()
    assert len(list_items(Request([str(folder / "*")], []))) == 16, "captions beside images are no images"
    with pytest.raises(InputError, match="holds no images"):
        list_items(Request([str(tmp_path)], []))
    with pytest.raises(InputError, match="No images"):
        list_items(Request([], []))
