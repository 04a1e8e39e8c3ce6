"""Latents that were computed before: the numbers of training from video, read one by one, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from rushes.curation.manifest import open_run  # noqa: E402
from rushes.model.data import Clip, DataError, DataOptions, Loader, Sample, Shape, frames_of, sample_times, unit  # noqa: E402
from rushes.model.frames import ClipError, read_clip  # noqa: E402
from rushes.model.frozen import load_tae  # noqa: E402
from rushes.model.latents import ClipEncoder, Job, LatentLoader, Settings, column, read_encoded, reads_of, statistics  # noqa: E402
from rushes.model.steps import inputs_from_latents, inputs_from_videos, latent_of  # noqa: E402
from rushes.model.tae import TAE  # noqa: E402
from rushes.model.tae_config import TAEConfig  # noqa: E402
from rushes.model.text import ByteEncoder, TextEncoders  # noqa: E402
from rushes.model.train import train_dit, train_tae  # noqa: E402
from tests.model.small_run import PART, WHOLE, dit_recipe, losses, make_film, tae_recipe  # noqa: E402

torch.set_num_threads(1)
CAPTIONS = ('A sign that says "OPEN".', "A dog runs on a beach.", "")


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def frozen() -> TAE:
    torch.manual_seed(0)
    model = TAE(TAEConfig(block_channels=(4, 4, 8, 8), norm_groups=4)).eval().requires_grad_(False)
    model.latent_mean += 0.1
    return model


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    film = make_film(tmp_path_factory.mktemp("film"))
    return [Clip(f"clip{n}", str(film), 0.2 * n, 0.2 * n + 1.5, 16, text) for n, text in enumerate(CAPTIONS)]


ENCODERS = TextEncoders([ByteEncoder(16, 24), ByteEncoder(8, 24, "quoted", quoted_only=True)])
VIDEO, STILL = Shape(16, 32, 48), Shape(1, 32, 48)


def written(root: Path, frozen: TAE, clips: list[Clip], shapes=(VIDEO, STILL), precision="float32") -> Job:
    settings = Settings("mark", [], precision, stills=2)
    job = Job(str(root), settings.key, tuple(clips), tuple(shapes))
    ClipEncoder(frozen, ENCODERS, settings)(job)
    return job


def stored(job: Job, group: int, clip: Clip) -> Clip:
    return Clip(clip.clip_id, f"{job.uri}#{group}", clip.start_s, clip.end_s, clip.frames, clip.caption)


def test_training_from_latents_has_the_losses_of_training_from_videos(small_run, small_latents, small_tae, tmp_path):
    for name, run in (("videos", small_run), ("latents", small_latents)):
        assert train_dit(dit_recipe(**WHOLE), [run], str(tmp_path / name), small_tae, quiet)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("videos", "latents")]
    validations = [[json.loads(line).get("validation") for line in log] for log in logs]
    assert losses(tmp_path / "videos") == losses(tmp_path / "latents")
    assert validations[0] == validations[1] and any(validations[0])


def test_stored_in_half_precision_a_latent_differs_by_its_rounding(frozen, clips, tmp_path):
    for precision, error in (("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8)):
        job = written(tmp_path / precision, frozen, clips, precision=precision)
        read = read_encoded(stored(job, 1, clips[1]), VIDEO, 0, ENCODERS.widths, Settings("", [], precision)).latent
        truth = latent_of(frozen, read_clip(clips[1].uri, sample_times(clips[1], 16, 0.5), 32, 48))[0]
        assert read.dtype == getattr(torch, precision) and read.shape == (16, 2, 4, 6)
        assert ((read.float() - truth).abs() <= error * truth.abs() + 1e-6 * bool(error)).all()


@pytest.mark.parametrize("shape", [VIDEO, STILL], ids=["video", "still"])
def test_what_the_transformer_is_given_is_what_videos_and_encoders_give(frozen, clips, tmp_path, shape):
    job = written(tmp_path, frozen, clips)
    times = [sample_times(clip, shape.frames, 0.25) for clip in clips]
    videos = [
        Sample(read_clip(clip.uri, at, 32, 48), clip.caption, clip.rate, clip.clip_id) for clip, at in zip(clips, times)
    ]
    read = [
        read_encoded(stored(job, group, clip), shape, 0, ENCODERS.widths, Settings("", [], "float32"))
        for group, clip in enumerate(clips)
    ]
    image = shape.frames == 1
    asked, told = inputs_from_videos(frozen, ENCODERS)(videos, image), inputs_from_latents(frozen)(read, image)
    assert torch.equal(asked.latent, told.latent)
    for name in ("bytes", "quoted"):
        assert torch.equal(asked.masks[name], told.masks[name]) and torch.equal(asked.text[name], told.text[name])
    assert told.masks["quoted"].sum(1).tolist() == [4, 0, 0]
    assert bool(told.masks["bytes"][2].any()) is not image  # an empty caption: FPS-11. alone, or nothing


def test_batches_take_the_part_and_the_still_that_their_draw_names(small_run, small_latents, small_tae):
    stage, seed = PART, 7
    options = DataOptions(batch=4, seed=seed, frames_max=stage["frames_max"], resolution=32, image_every=2, workers=0)
    videos, latents = Loader([small_run], options), LatentLoader([small_latents], options)
    tae, _ = load_tae(small_tae)
    chosen = set()
    for batch in latents.batches(range(4)):
        count = 2 if batch.shape.frames == 1 else 1
        assert batch.groups == videos.groups_at(batch.step)
        [(_, rows)] = videos.rows_at(batch.step)
        for place, (row, sample) in enumerate(zip(rows, batch.samples)):
            clip = videos.table[int(row)]
            part = int(unit(seed, 3, batch.step, place) * count)
            chosen.add((count, part))
            times = sample_times(clip, batch.shape.frames, (part + 0.5) / count)
            truth = latent_of(tae, read_clip(clip.uri, times, batch.shape.height, batch.shape.width))[0]
            assert sample.clip_id == clip.clip_id and torch.equal(sample.latent, truth)
    assert chosen == {(1, 0), (2, 0), (2, 1)}


def test_threads_ranks_and_resuming_change_no_batch(small_latents):
    options = {"batch": 4, "frames_max": 8, "resolution": 32, "image_every": 2}
    plain = list(LatentLoader([small_latents], DataOptions(**options, workers=0)).batches(range(5)))
    later = list(LatentLoader([small_latents], DataOptions(**options, workers=2)).batches(range(2, 5)))
    halves = [list(LatentLoader([small_latents], DataOptions(**options), r, 2).batches(range(2, 5))) for r in (0, 1)]
    for number, batch in enumerate(plain[2:]):
        split = [sample for half in halves for sample in half[number].samples]
        for one, two, three in zip(batch.samples, later[number].samples, split):
            assert one.clip_id == two.clip_id == three.clip_id
            assert torch.equal(one.latent, two.latent) and torch.equal(one.latent, three.latent)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes in /proc")
def test_a_clip_is_read_without_its_neighbours(frozen, clips, tmp_path):
    shape = Shape(8, 256, 256)
    job = written(tmp_path, frozen, [clips[n % 3] for n in range(8)], [shape])
    size = Path(job.uri).stat().st_size
    read_encoded(stored(job, 0, clips[0]), shape, 0, ENCODERS.widths, Settings("", [], "float32"))  # the footer, once

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    sample = read_encoded(stored(job, 5, clips[2]), shape, 0, ENCODERS.widths, Settings("", [], "float32"))
    took, own = bytes_read() - before, sample.latent.numel() * 4
    assert size > 7 * own and own <= took < 1.2 * own


def test_a_clip_that_cannot_be_decoded_keeps_its_row_with_the_reason(frozen, clips, tmp_path):
    gone = Clip("gone", str(tmp_path / "gone.mp4"), 0.0, 1.5, 16, "Gone.")
    job = written(tmp_path, frozen, [clips[0], gone, clips[1]], [STILL])
    record = job.record().to_pylist()
    assert [row["clip_id"] for row in record] == ["clip0", "gone", "clip1"]
    assert "gone.mp4" in record[1]["error"] and record[0]["error"] is None
    assert record[1]["moments"] is None and record[2]["moments"][0] == 2 * 4 * 6  # two stills
    with pytest.raises(ClipError, match="cannot be read"):
        read_encoded(stored(job, 1, gone), STILL, 0, ENCODERS.widths, Settings("", [], "float32"))


def test_latents_that_the_precision_cannot_hold_are_an_error_of_their_clip(frozen, clips, tmp_path):
    loud = TAE(frozen.config).eval()
    loud.load_state_dict(frozen.state_dict())
    with torch.no_grad():
        loud.encoder.conv_out.temporal.conv.bias += 1e5
    (row,) = written(tmp_path, loud, clips[:1], [STILL], "float16").record().to_pylist()
    assert "too large for torch.float16" in row["error"]


def test_the_statistics_are_those_of_all_latents(frozen, clips, tmp_path):
    job = written(tmp_path, frozen, clips, [VIDEO])
    read = [
        read_encoded(stored(job, n, clip), VIDEO, 0, ENCODERS.widths, Settings("", [], "float32"))
        for n, clip in enumerate(clips)
    ]
    values = torch.stack([sample.latent for sample in read]).transpose(0, 1).flatten(1).double()
    mean, deviation = statistics(sum(np.array(row["moments"]) for row in job.record().to_pylist()))
    assert mean == pytest.approx(values.mean(1).tolist(), abs=1e-9)
    assert deviation == pytest.approx(values.std(1, unbiased=False).tolist(), abs=1e-9)


def test_a_lost_file_is_recorded_and_its_clips_replaced(small_latents, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_latents, copy, symlinks=True)
    media = open_run(str(copy)).table("sets/pretrain-256")["media"].to_pylist()
    (copy / media[0].partition("#")[0]).unlink()
    loader = LatentLoader([str(copy)], DataOptions(batch=4, resolution=32, workers=0))
    ids = {sample.clip_id for batch in loader.batches(range(2)) for sample in batch.samples}
    lost = {f"{n:020x}" for n in range(3)}
    assert not ids & lost and loader.failures and all("cannot be read" in why for why in loader.failures.values())


def refused(recipe, runs, tae, tmp_path) -> str:
    with pytest.raises(DataError) as told:
        train_dit(recipe, runs, str(tmp_path / "dit"), tae, quiet)
    assert not (tmp_path / "dit" / "log.jsonl").exists()
    return str(told.value)


def test_latents_of_another_tae_other_text_or_another_shape_are_refused_before_the_first_step(
    small_run, small_latents, small_tae, tmp_path
):
    train_tae(tae_recipe("seed=9", steps=1), [small_run], str(tmp_path / "tae"), quiet)
    whole = dit_recipe(**WHOLE)
    assert "holds latents of another TAE" in refused(whole, [small_latents], str(tmp_path / "tae"), tmp_path)
    other = dit_recipe("text.encoders=[{name: bytes, width: 32}, {name: quoted}]", **WHOLE)
    said = refused(other, [small_latents], small_tae, tmp_path)
    assert "text features of bytes (width 16, max_tokens 24)" in said and "quoted (width 256" in said
    said = refused(dit_recipe(frames_max=4), [small_latents], small_tae, tmp_path)
    assert "reads clips of 16x9/4-8s in sets/pretrain-256 at 48x16x4" in said and "48x16x16, 48x16x8, 48x16x1" in said
    assert "at 112x64x16" in refused(dit_recipe(frames_max=None, resolution=80), [small_latents], small_tae, tmp_path)


def test_latents_and_videos_are_not_mixed_and_the_autoencoder_trains_on_videos(
    small_run, small_latents, small_tae, tmp_path
):
    assert "train on one kind" in refused(dit_recipe(**WHOLE), [small_run, small_latents], small_tae, tmp_path)
    with pytest.raises(DataError, match=f"holds latents, not videos; .*{small_run}"):
        train_tae(tae_recipe(steps=1), [small_latents], str(tmp_path / "tae"), quiet)


def test_a_set_of_images_is_stored_in_place_of_stills_of_clips_and_each_image_once(frozen, clips, tmp_path):
    clip, image = Shape(16, 32, 64), Shape(1, 32, 64)
    asked = {}
    for changed in ({"image_every": 2}, {"image_every": 2, "images": "images"}, {"image_every": 1, "images": "images"}):
        recipe = dit_recipe(frames_max=8, **changed)
        *trained, validation = reads_of(recipe, recipe.stages[0])
        asked[len(asked)] = {read.set: [str(shape) for shape in read.shapes(clip)] for read in trained}
        assert validation.set == "validation" and len(validation.shapes(clip)) == 1
    assert asked[0] == {"pretrain-256": ["48x16x8", "48x16x1"]}
    assert asked[1] == {"pretrain-256": ["48x16x8"], "images": ["48x16x1"]} and asked[2] == {"images": ["48x16x1"]}
    assert Settings("mark", [], stills=4).count(image.frames, image) == 1
    picture = tmp_path / "picture.png"
    Image.fromarray(read_clip(clips[0].uri, np.array([0.5]), 32, 64)[0]).save(picture)
    one = Clip("picture", str(picture), 0.0, 1.0, 1, "A picture.")
    job = written(tmp_path / "out", frozen, [one], [image])
    read = read_encoded(stored(job, 0, one), image, 0, ENCODERS.widths, Settings("", [], "float32"))
    assert torch.equal(read.latent, latent_of(frozen, frames_of(one, image, 0.5))[0])


def test_columns_are_named_by_what_they_hold():
    assert column(Shape(16, 64, 128), 2) == "128x64x16:2"
