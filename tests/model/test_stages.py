"""Between stages: what goes on, what begins anew, and that no step is longer than the ones before."""

from __future__ import annotations

import math
import threading

import pytest

torch = pytest.importorskip("torch")

from rushes.model import checkpoint as checkpoints  # noqa: E402
from rushes.model import loop, staging, steps, train  # noqa: E402
from rushes.model.dit import forward_flops, token_count  # noqa: E402
from rushes.model.stages import warmup_of  # noqa: E402
from rushes.model.train_recipe import load, shipped  # noqa: E402
from rushes.model.trained import average_decay  # noqa: E402
from tests.model.small_run import dit_recipe, tae_recipe  # noqa: E402
from tests.model.test_train import ADVERSARIAL, entries, quiet  # noqa: E402

torch.set_num_threads(1)
LONG, SHORT = 40, 12


def of_stages(recipe, *stages):
    """The recipe with these stages: keys that are changed."""
    first = recipe.stages[0]
    return recipe.model_copy(update={"stages": tuple(first.model_copy(update=changed) for changed in stages)})


@pytest.fixture(scope="module")
def two_stages(small_run, small_tae, tmp_path_factory):
    """(output, lengths of the updates): the same frames in two stages, the second with larger position tables."""
    output, lengths = tmp_path_factory.mktemp("stages"), []
    one_step = loop.Trained.step

    def measured(self, *arguments):
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        norm = one_step(self, *arguments)
        lengths.append(
            math.sqrt(sum(float((p.detach() - before[n]).square().sum()) for n, p in self.model.named_parameters()))
        )
        return norm

    often = {"validate_every": 100, "save_every": 100, "lr": 1e-3}
    recipe = of_stages(
        dit_recipe("optimizer.ema=0.9999", "optimizer.weight_decay=0"),
        {"name": "a", "steps": LONG, **often},
        {"name": "b", "steps": SHORT, "grid": (1, 4, 6), **often},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trained, "step", measured)
        assert train.train_dit(recipe, [small_run], str(output), small_tae, quiet)
    return output, lengths


def test_the_first_update_of_a_stage_is_no_longer_than_the_steady_ones(two_stages):
    _, lengths = two_stages
    steady = sorted(lengths[LONG - 10 : LONG])[5]
    assert max(lengths[LONG : LONG + 3]) < 1.2 * steady
    assert lengths[0] < 1.2 * steady, "and the first of all is warmed up"


def test_tables_grow_with_the_optimizer_s_moments(two_stages):
    last = checkpoints.open_checkpoint(two_stages[0])
    sizes = checkpoints.sizes(last)
    for name in ("model.positions.w", "ema.positions.w", "optimizer.state.positions.w.exp_avg_sq"):
        assert sizes[name] == (6, 32), name
    steps_done = checkpoints.read(last, "optimizer.state.positions.w.step")
    assert float(steps_done) == LONG + SHORT, "Adam counts on"


def test_a_stage_s_average_is_of_that_stage(two_stages):
    first, last = (checkpoints.Checkpoint(path, {}) for path in checkpoints.published(two_stages[0]))
    begun, ended, averaged = (
        checkpoints.read(where, name)
        for where, name in ((first, "model.final.weight"), (last, "model.final.weight"), (last, "ema.final.weight"))
    )
    assert (averaged - ended).norm() < 0.6 * (begun - ended).norm()


@pytest.mark.parametrize("name", shipped())
def test_at_the_end_of_a_stage_the_average_is_not_what_the_stage_began_with(name):
    recipe = load(name)
    for stage in recipe.stages:
        left = math.prod(average_decay(recipe.optimizer, number) for number in range(min(stage.steps, 5000)))
        assert left < 0.01, f"{stage.name}: {left:.1%} of its first weights"


def test_where_the_optimizer_begins_the_rate_warms_up():
    recipe = dit_recipe()
    assert [warmup_of(of_stages(recipe, {"warmup": warmup}), 0) for warmup in (0, 500)] == [10, 500]
    assert warmup_of(of_stages(recipe, {"name": "a"}, {"name": "b"}), 1) == 0


def test_the_discriminator_and_the_latents_statistics_count_all_stages(small_run, tmp_path, monkeypatch):
    counted, note = [], steps.note_latents
    monkeypatch.setattr(
        steps, "note_latents", lambda model, moments, step: (counted.append(step), note(model, moments, step))
    )
    small = {"resolution": None, "steps": 2}
    recipe = of_stages(
        tae_recipe(ADVERSARIAL[0], "loss.adversarial_start=3"), {"name": "a", **small}, {"name": "b", **small}
    )
    assert train.train_tae(recipe, [small_run], str(tmp_path), quiet)
    assert counted == [0, 1, 2, 3]
    assert ["discriminator" in entry for entry in entries(tmp_path)] == [False, False, False, True]


def test_the_loader_s_thread_draws_all_chance(small_run, small_tae, tmp_path, monkeypatch):
    threads, make = set(), steps.generator
    monkeypatch.setattr(steps, "generator", lambda *n: (threads.add(threading.current_thread().name), make(*n))[1])
    recipe = dit_recipe("data.workers=1", steps=2, validate_every=100).model_copy()
    monkeypatch.setattr(staging.Validation, "mean", lambda *_: None)
    assert train.train_dit(recipe, [small_run], str(tmp_path), small_tae, quiet)
    assert threads and all(name.startswith("batch") for name in threads)


def test_mfu_counts_the_text_that_is_there(small_run, small_tae, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "peak_flops", lambda _: 1e9)
    recipe = dit_recipe(steps=1)
    assert train.train_dit(recipe, [small_run], str(tmp_path), small_tae, quiet)
    entry = entries(tmp_path)[0]
    assert entry["text_tokens"] == len("FPS-11. Clip number 5.")
    model = train._dit_config(recipe, train.load_tae(small_tae)[0], {"bytes": 16})
    flops = 3 * 4 * forward_flops(model, token_count(model, 8, 16, 48), entry["text_tokens"])
    assert entry["shape"] == "48x16x8" and entry["mfu"] == pytest.approx(
        flops / 1e9 / entry["step_s"], rel=0.02, abs=1e-4
    )
