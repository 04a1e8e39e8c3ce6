"""The captioning stage against vLLM itself, through both ways in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rushes.curation.captioning.assign import sampling_seed
from rushes.curation.captioning.draft import Drafter
from rushes.curation.captioning.frames import encode
from rushes.curation.captioning.preflight import preflight
from rushes.curation.captioning.prompt import chat_body, load_template
from rushes.curation.captioning.vision import VisionCaptioner
from rushes.curation.recipe import RecipeError
from rushes.pipelines.engine.pool import StopRun
from tests.conftest import curate_here
from tests.vllm.conftest import HERE, KEY, KEY_ENV, OPTIONS, Engine

TEMPLATE = load_template("caption")
PROMPTS = int(os.environ.get("RUSHES_VLLM_PROMPTS", "64"))  # of the comparison with the offline loop
ROUNDS = int(os.environ.get("RUSHES_VLLM_ROUNDS", "1"))  # paired, the stage first in every other one


def picture(number: int) -> bytes:
    """A JPEG of 112 x 112 coloured blocks, another for each number."""
    blocks = np.random.default_rng(number).integers(0, 255, (8, 8, 3))
    return encode(np.kron(blocks, np.ones((14, 14, 1))).astype(np.uint8), 112)


def rows(count: int) -> list[dict]:
    return [{"clip_id": f"{i:020x}", "duration_s": 4.0, "number": i} for i in range(count)]


def frames(row: dict) -> list[bytes]:
    return [picture(8 * row["number"] + k) for k in range(8)]


def ask(spec, url: str, count: int) -> dict:
    found = []
    at = preflight(spec, (url,), TEMPLATE, KEY)
    assert at.echoing == {url}, "vLLM gives request ids back, so answers can be bound to their clips"
    VisionCaptioner(spec, at, KEY).run(rows(count), frames, found.extend)
    return {caption.clip_id: caption for caption in found}


def test_every_clip_is_answered_about_its_own_frames(engine: Engine, server: str):
    spec = engine.spec(temperature=0.0)
    first, again = ask(spec, server, 24), ask(spec, server, 24)
    assert len(first) == 24 and all(c.error is None and c.tokens_out for c in first.values())
    assert {i: c.text for i, c in first.items()} == {i: c.text for i, c in again.items()}
    assert len({c.text for c in first.values()}) > 1, "the frames make a difference"


def test_more_than_the_context_holds_is_told_before_the_first_clip(engine: Engine, server: str):
    with pytest.raises(RecipeError, match="do not fit into the context of 'tiny'"):
        preflight(engine.spec(max_tokens=4000), (server,), TEMPLATE, KEY)


def test_a_server_without_that_kind_of_input_is_told_before_the_first_clip(engine: Engine, server: str):
    with pytest.raises(RecipeError, match="takes no images"):
        preflight(engine.spec(send="images"), (server,), TEMPLATE, KEY)


def test_a_wrong_key_is_told_before_the_first_clip(engine: Engine, server: str):
    with pytest.raises(RecipeError, match=r"captioning\.api_key_env"):
        preflight(engine.spec(), (server,), TEMPLATE, "wrong")


def test_a_draft_for_people_is_held_to_its_fields_by_the_engine(engine: Engine, server: str):
    spec = engine.spec(max_tokens=1200, attempts=2, temperature=1.0)
    made = Drafter(spec, preflight(spec, (server,), TEMPLATE, KEY), "tiny", KEY)(rows(2), frames)
    for draft in made:  # random weights write no end of a text field; what they start is the object that was asked for
        assert draft.draft is not None or "JSON" in draft.error or "field" in draft.error


def test_the_whole_job_by_endpoint_and_in_the_cluster_gives_the_same_captions(
    engine: Engine, server: str, curated, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv(KEY_ENV, KEY)
    common = [f"captioning.{key}={json.dumps(value)}" for key, value in engine.spec().model_dump(mode="json").items()
              if key in ("models", "vllm_command", "checks", "side", "max_tokens", "ready_s")]  # fmt: skip
    common.append("captioning.temperature=0")
    engines = json.dumps({"tiny": {"gpus": 0, "options": OPTIONS}})
    ways = {
        "endpoint": [f"captioning.endpoints=[{server}]", f"captioning.api_key_env={KEY_ENV}"],
        "vllm": [f"captioning.engines={engines}"],
    }
    texts = {}
    for provider, more in ways.items():
        root = tmp_path / provider
        for folder in ("work", "media"):
            shutil.copytree(curated.root / folder, root / folder)
        run = curate_here(curated.inputs, root, f"captioning.provider={provider}", *common, *more)
        kept = run.table("clips").to_pandas().query("kept")
        assert len(kept) and set(kept.caption_model) == {"tiny"}
        texts[provider] = dict(zip(kept.clip_id, kept.caption, strict=True))
    assert texts["endpoint"] == texts["vllm"]


def test_weights_that_vllm_cannot_load_stop_the_run_with_its_reason(engine: Engine, curated, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(engine.model, broken)
    (broken / "rushes.model.safetensors").unlink()
    root = tmp_path / "run"
    for folder in ("work", "media"):
        shutil.copytree(curated.root / folder, root / folder)
    spec = engine.spec(models=[{"name": "tiny", "path": str(broken)}]).model_dump(mode="json")
    keys = ("provider", "models", "vllm_command", "engines", "ready_s")
    with pytest.raises(StopRun, match="vLLM cannot serve 'tiny'"):
        curate_here(curated.inputs, root, *(f"captioning.{key}={json.dumps(spec[key])}" for key in keys))


def test_the_stage_asks_what_the_engines_own_offline_loop_asks_and_prints_both_paces(
    engine: Engine, server: str, tmp_path: Path, capsys
):
    spec = engine.spec(max_tokens=128, concurrency=256)
    all_rows = rows(4 + ROUNDS * PROMPTS)
    jpegs = {row["number"]: frames(row) for row in all_rows}
    bodies = [
        chat_body("tiny", TEMPLATE, jpegs[row["number"]], 4.0, spec, sampling_seed(row["clip_id"], spec.seed, 0))
        for row in all_rows
    ]
    (tmp_path / "bodies.json").write_text(json.dumps(bodies))
    at = preflight(spec, (server,), TEMPLATE, KEY)
    captioner = VisionCaptioner(spec, at, KEY)
    captioner.run(all_rows[:4], lambda row: jpegs[row["number"]], lambda _: None)
    options = {"max_model_len": 4096, "max_num_batched_tokens": 8192, "enable_chunked_prefill": False,
               "enforce_eager": True, "dtype": "float32", "limit_mm_per_prompt": {"video": 1}}  # fmt: skip
    with offline_loop(engine, tmp_path / "bodies.json", options) as one_round:
        ratios = []
        for turn in range(ROUNDS):
            pair, part = {}, slice(4 + turn * PROMPTS, 4 + (turn + 1) * PROMPTS)  # new clips: caches know none of them
            for who in ("stage", "offline") if turn % 2 == 0 else ("offline", "stage"):
                if who == "offline":
                    told = one_round(part)
                    pair[who] = told["tokens_out"] / told["seconds"]
                    continue
                found: list = []
                began = time.monotonic()
                captioner.run(all_rows[part], lambda row: jpegs[row["number"]], found.extend)
                pair[who] = sum(caption.tokens_out for caption in found) / (time.monotonic() - began)
            ratios.append(pair["stage"] / pair["offline"])
            with capsys.disabled():
                print(f"\n{PROMPTS} clips of 8 frames, tokens/s: {pair}, ratio {ratios[-1]:.2f}", flush=True)
            assert len(found) == PROMPTS
            assert sum(caption.tokens_in for caption in found) == told["tokens_in"], "the same prompts"
    with capsys.disabled():
        print(f"stage against offline loop, median of {ROUNDS} pairs: {statistics.median(ratios):.2f}")


@contextlib.contextmanager
def offline_loop(engine: Engine, bodies: Path, options: dict) -> Iterator[Callable[[slice], dict]]:
    """vLLM's own loop over the same bodies, loaded and warm: each call is one round."""
    python = Path(engine.command).with_name("python")
    command = [python, HERE / "offline.py", engine.model, bodies, json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout)
        assert any(line == "ready\n" for line in lines), "the offline loop did not start"

        def one_round(part: slice) -> dict:
            process.stdin.write(f"{part.start} {part.stop}\n")
            process.stdin.flush()
            return json.loads(next(line for line in lines if line.startswith('{"prompts"')))

        try:
            yield one_round
        finally:
            process.stdin.close()
            process.wait(60)
