"""Evaluation: the textbooks' figures, baselines that know no video, and models side by side on the same clips."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch")

import scipy.linalg  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rushes.model import train  # noqa: E402
from rushes.model.data import DataOptions  # noqa: E402
from rushes.model.evaluate import Clips, Extractors, evaluate_tae, psnr, ssim, survey  # noqa: E402
from rushes.model.features import FeaturesError, Moments, frechet_distance, load_extractor, load_video_extractor  # noqa: E402
from rushes.pipelines.cli.main import app  # noqa: E402
from rushes.pipelines.train.evaluation import show  # noqa: E402
from tests.model.small_run import dit_recipe, film_run, make_run, row, tae_recipe  # noqa: E402

torch.set_num_threads(1)
OPTIONS = DataOptions("validation", 1, 0, 8, 32, workers=0)
SHAPE = ["--resolution", "32", "--frames-max", "8"]


def quiet(_: str) -> None:
    pass


def both() -> Extractors:
    return Extractors(load_extractor(), load_video_extractor())


def moments(features: np.ndarray) -> Moments:
    made = Moments()
    made.add(features)
    return made


def draws(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Correlated features, not centred."""
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width)) + random.normal(size=width)


# ---- figures -------------------------------------------------------------------------------------------------------


def test_psnr_and_ssim_are_the_textbooks():
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (2, 24, 30, 3), dtype=np.uint8)
    made = np.clip(truth.astype(int) + random.integers(-30, 31, truth.shape), 0, 255).astype(np.uint8)
    error = np.mean((truth / 255 - made / 255) ** 2)
    assert psnr(truth, made) == pytest.approx(-10 * math.log10(error)) and psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == pytest.approx(1.0)

    def blur(x):  # an 11 x 11 window: 5 pixels to each side, of which the image's inside is kept
        return gaussian_filter(x, (0, 1.5, 1.5, 0), truncate=5 / 1.5)[:, 5:-5, 5:-5]

    x, y = truth.astype(float), made.astype(float)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 6.5025, 58.5225
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(truth, made) == pytest.approx(expected, abs=1e-6)


def test_moments_added_in_batches_are_those_of_all():
    features = draws(50, 6)
    made = Moments()
    for part in np.split(features, [1, 20, 33]):
        made.add(part)
    assert made.count == 50 and np.allclose(made.mean, features.mean(0))
    assert np.allclose(made.covariance, np.cov(features, rowvar=False))


def test_the_frechet_distance_is_that_of_the_formula():
    a, b = moments(draws(100, 5)), moments(draws(80, 5, seed=1))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    apart = a.mean - b.mean
    expected = apart @ apart + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected) and expected > 1
    assert frechet_distance(b, a) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * np.trace(a.covariance))


def test_fewer_frames_than_dimensions_do_no_harm_to_the_arithmetic():
    features = draws(4, 20)
    assert frechet_distance(moments(features), moments(features + 2)) == pytest.approx(20 * 4, rel=1e-6)


# ---- extractors ----------------------------------------------------------------------------------------------------


def noise(frames: int = 40, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def test_the_offline_features_are_the_same_everywhere_and_tell_more_blur_from_less():
    sharp = gaussian_filter(noise().astype(float), (0, 1, 1, 0))
    distances = []
    for sigma in (0, 1, 2):
        blurred = gaussian_filter(sharp, (0, sigma, sigma, 0)).astype(np.uint8)
        one, other = load_extractor(), load_extractor()
        distances.append(frechet_distance(moments(one(sharp.astype(np.uint8))), moments(other(blurred))))
    assert distances[0] == pytest.approx(0, abs=1e-9) and 1e-4 < distances[1] < distances[2]
    assert "comparable only with itself" in load_extractor().name


def test_features_of_videos_see_flicker_that_features_of_frames_do_not():
    still = np.repeat(gaussian_filter(noise(1).astype(float), (0, 1, 1, 0)), 32, 0).astype(np.uint8)
    frames = np.random.default_rng(1).permutation(noise(32))
    shuffled = frames[::-1]
    assert frechet_distance(moments(load_extractor()(frames)), moments(load_extractor()(shuffled))) < 1e-6
    videos = load_video_extractor()
    assert videos(frames).shape == (2, 112) and not np.allclose(videos(frames), videos(shuffled))
    assert videos(still[:5]).shape == (1, 112), "a short video is one piece"


class MeanColour(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


class Flawed(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(1)


def saved(module: torch.nn.Module, path) -> str:
    torch.jit.save(torch.jit.script(module), str(path))
    return str(path)


def test_a_torchscript_extractor_sees_rgb_between_0_and_1_and_gives_its_name(tmp_path):
    extractor = load_extractor(saved(MeanColour(), tmp_path / "colours.pt"))
    frames = noise(frames=70, side=4)  # more than go through at once
    assert np.allclose(extractor(frames), frames.mean((1, 2)) / 255, atol=1e-6)
    assert extractor.name == "TorchScript colours.pt"


def test_an_extractor_that_cannot_be_used_is_a_sentence(tmp_path):
    with pytest.raises(FeaturesError, match=r"flawed.pt must answer \[N, D\] .* answered \[3, 4, 4\] for 3"):
        load_extractor(saved(Flawed(), tmp_path / "flawed.pt"))(noise(3, 4))
    (tmp_path / "text.pt").write_text("no model")
    for source, words in {
        str(tmp_path / "text.pt"): "not a TorchScript file",
        "inception": "no extractor 'inception': name a TorchScript file",
        "open_clip:ViT-B-32": "names no weights",
    }.items():
        with pytest.raises(FeaturesError, match=words):
            load_extractor(source)


# ---- on clips ------------------------------------------------------------------------------------------------------


def test_the_baselines_are_the_best_answers_without_a_model(small_run):
    clips = Clips([small_run], OPTIONS, limit=5)
    truth = survey(clips, both())
    videos = np.stack([batch.frames[0] for batch in clips]).astype(float)  # two clips of one shape

    def decibels(stills):
        return np.mean(10 * np.log10(255**2 / ((videos - stills) ** 2).mean((1, 2, 3, 4))))

    assert truth.clips == 2 and truth.features.count == 16
    assert truth.clip_mean_psnr == pytest.approx(decibels(videos.mean(1, keepdims=True)), abs=1e-4)
    assert truth.set_mean_psnr == pytest.approx(decibels(videos.mean((0, 1), keepdims=True)), abs=1e-4)
    assert truth.set_mean_psnr < truth.clip_mean_psnr


def test_a_trained_autoencoder_is_nearer_to_the_clips_than_an_untrained_one(small_run, small_tae, tmp_path):
    assert train.train_tae(tae_recipe(steps=10, lr=5e-3, validate_every=10), [small_run], str(tmp_path), quiet)
    clips, extractors = Clips([small_run], OPTIONS, limit=2), both()
    truth = survey(clips, extractors)
    some, more = (
        evaluate_tae(train.load_tae(where)[0], clips, truth, extractors) for where in (small_tae, str(tmp_path))
    )
    assert 5 < some.psnr < more.psnr < 60 and more.fid < some.fid and more.fvd < some.fvd and -1 <= more.ssim <= 1
    assert more.encode_pace > 0 and more.decode_pace > 0


def evaluated(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["evaluate", *arguments, *SHAPE, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_autoencoders_stand_side_by_side_labelled_by_what_differs(small_run, small_tae, tmp_path):
    volume = str(tmp_path / "volume")
    assert train.train_tae(tae_recipe("options.volume=true", steps=1), [small_run], volume, quiet)
    report = evaluated(small_run, "--tae", small_tae, "--tae", volume, "--tae", small_tae)
    flat, full, again = report["rows"]
    assert [row["variant"] for row in report["rows"]] == ["2.5D", "3D", "2.5D"]
    assert full["parameters"] > flat["parameters"] and (flat["steps"], full["steps"]) == (2, 1)
    linear = report["baselines"]["linear_psnr"]["16"]
    assert flat["above_linear"] == pytest.approx(flat["psnr"] - linear) and flat["psnr"] < linear, "two steps"
    assert flat["psnr"] != full["psnr"] and all(flat[key] == again[key] for key in ("psnr", "ssim", "fid"))
    assert report["clips"] == 2 and report["frames"] == 16 and "fewer than" in report["note"]
    result = CliRunner().invoke(app, ["evaluate", small_run, "--tae", small_tae, *SHAPE], env={"COLUMNS": "250"})
    cells = "".join(result.stdout.split())  # a narrow table breaks words anywhere
    for words in ("2.5D", "comparable only with itself", "mean frames, and a linear transform"):
        assert "".join(words.split()) in cells
    assert "".join(("+" if flat["above_linear"] > 0 else "-", f"{abs(flat['above_linear']):.2f}")) in cells


def test_transformers_stand_side_by_side_at_the_same_noise(small_run, small_tae, tmp_path):
    for process in ("flow", "diffusion"):
        recipe = dit_recipe(f"process={process}", steps=1)
        assert train.train_dit(recipe, [small_run], str(tmp_path / process), small_tae, quiet)
    dits = [str(tmp_path / name) for name in ("flow", "diffusion", "flow")]
    report = evaluated(small_run, "--tae", small_tae, *(f"--dit={dit}" for dit in dits), "--steps=2")
    assert [row["variant"] for row in report["rows"]] == ["flow matching", "diffusion", "flow matching"]
    flow, diffusion, again = (row["fid"] for row in report["rows"])
    assert flow == again and flow != diffusion and report["reconstruction_fid"] > 0
    assert all("psnr" not in row for row in report["rows"])


def sentence(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 2 and not result.stdout
    return " ".join(result.stderr.split())


def test_what_cannot_be_compared_is_a_sentence(small_run, small_tae, tmp_path):
    film_run(tmp_path / "run")
    empty = make_run(tmp_path / "run", [row(0, "film.mp4")])
    assert "The set 'validation' has no clips" in sentence(empty, "--tae", small_tae)
    assert "--dit is judged with the one TAE" in sentence(small_run, "--tae", "a", "--tae", "b", "--dit", "c")
    assert "no extractor 'nowhere.pt'" in sentence(small_run, "--tae", small_tae, "--features", "nowhere.pt")
    other = str(tmp_path / "other")
    assert train.train_tae(tae_recipe("seed=1", steps=1), [small_run], other, quiet)
    assert train.train_dit(dit_recipe(steps=1), [small_run], str(tmp_path / "dit"), other, quiet)
    assert "another TAE" in sentence(small_run, "--tae", small_tae, "--dit", str(tmp_path / "dit"))


def test_a_narrow_terminal_has_a_number_on_each_line():
    row = {"variant": "tae-tiny", "model": "runs/tae", "parameters": 123_456, "steps": 30, "psnr": 21.5, "ssim": 0.7}
    report = {"clips": 4, "set": "validation", "frames": 128, "rows": [row], "features": "x", "dimensions": 3,
              "note": None, "video_features": "y", "pieces": 4, "measured": "here"}  # fmt: skip
    told = {}
    for width in (60, 160):
        show(report, Console(file=(told_to := io.StringIO()), width=width))
        told[width] = told_to.getvalue().splitlines()
    assert "  PSNR dB                  21.50" in told[60] and not any("│" in line for line in told[60])
    assert any("│" in line and "21.50" in line and "123,456" in line for line in told[160])
