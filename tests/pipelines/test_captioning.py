"""Captioning as a stage of a run: what is asked, what is written down, what a kill or a missing server costs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from rushes.curation import recipe, sections, storage
from rushes.curation.captioning import Caption, ServersDown
from rushes.curation.recipe import RecipeError
from rushes.curation.signals import CAMERA_SURE
from rushes.pipelines.stages import captioning
from rushes.pipelines.stages.items import CaptionLease
from rushes.pipelines.stages.vllm_server import VllmServer, check, gpus_of
from rushes.pipelines.stages.worker import stop_reason
from tests.conftest import curate_here
from tests.curation.captioning.asking import clips
from tests.curation.captioning.stub import Behaviour, serving
from tests.pipelines.commands import wait_until

MODELS = "captioning.models=[{name: small, share: 0.7}, {name: large, share: 0.3}]"
CLIPS, CONCURRENCY, BATCH = 400, 16, 16
KILLED = """
import sys
from rushes.pipelines.stages import captioning
from tests.pipelines.test_captioning import ask_all
ask_all(sys.argv[1], sys.argv[2])
"""


def endpoint(url: str, *more: str) -> tuple[str, ...]:
    return ("captioning.provider=endpoint", MODELS, f"captioning.endpoints=[{url}]", "captioning.checks=[empty]", *more)


def ask_all(root: str, url: str) -> list[Caption]:
    """Caption numbered clips as a worker does; their pictures need no film."""
    from tests.curation.captioning.asking import frames, servers

    spec = recipe.load("demo", endpoint(url, "captioning.side=32", "captioning.timeout_s=5"))
    captioning.frames_of = lambda _recipe, _root, row: frames(row)
    rows = pa.Table.from_pylist(list(clips(CLIPS)))
    lease = CaptionLease(f"{root}/plan.parquet", 0, CLIPS)
    storage.write_table(lease.plan, rows)
    captioning.caption_lease(spec, root, lease, servers(spec.captioning), None, CONCURRENCY)
    return written(spec, root, rows["clip_id"].to_pylist())


def written(spec: recipe.Recipe, root: str, ids: list[str]) -> list[Caption]:
    """What is recorded of these clips, in their order; nothing for those that are not."""
    found = captioning.recorded(captioning.ledger_of(spec, root).index(passing=True), ids)
    return [found[i] for i in ids if i in found]


@pytest.fixture
def measured(curated, tmp_path) -> Path:
    """A run in which all but the captions is done: its records are copied, nothing is published."""
    root = tmp_path / "run"
    for folder in ("work", "media"):
        shutil.copytree(curated.root / folder, root / folder)
    return root


def test_every_kept_clip_is_asked_once_and_says_who_wrote_its_caption(curated, measured):
    with serving() as stub:
        run = curate_here(curated.inputs, measured, *endpoint(stub.url, "captioning.frames=4"))
        asked = [request.partition("-")[0] for request in stub.asked]
        again = curate_here(curated.inputs, measured, *endpoint(stub.url, "captioning.frames=4"))
        assert len(stub.asked) == len(asked), "a finished run asks nobody"
        sent = stub.bodies[0]
    kept = run.table("clips").to_pandas().query("kept")
    assert len(kept) and sorted(asked) == sorted(kept.clip_id)
    assert all(row.caption == f"The number -1 was seen by {row.caption_model}." for row in kept.itertuples())
    assert sent["messages"][-1]["content"][0]["video_url"]["url"].count(",") == 4  # a head and four frames
    assert again.table("clips").equals(run.table("clips"))


def test_a_set_has_the_camera_in_front_of_its_captions_and_the_rate_as_a_token(curated):
    clips = {row["clip_id"]: row for row in curated.run.table("clips").to_pylist()}
    rows = [row for n in curated.run.tables if n.startswith("sets/") for row in curated.run.table(n).to_pylist()]
    assert rows
    for row in rows:
        clip = clips[row["clip_id"]]
        sure = (clip["camera_motion_conf"] or 0) >= CAMERA_SURE and clip["camera_motion"]
        assert row["camera_motion"] == (sure or None)
        assert row["caption"] == (f"{sure}. {clip['caption']}" if sure else clip["caption"])
        assert row["fps_token"] == f"FPS-{round(row['sample_fps'])}"
    assert any(row["camera_motion"] for row in rows)


def test_a_clip_whose_answers_fail_the_checks_is_rejected_with_the_reason(curated, measured):
    with serving(Behaviour(texts=("I'm sorry, I cannot help with that.",))) as stub:
        run = curate_here(curated.inputs, measured, *endpoint(stub.url), "captioning.checks=[refusal]")
    clips = run.table("clips").to_pylist()
    failed = [row for row in clips if row["rejected_by"] == "captioning.failed"]
    assert failed and not any(row["kept"] for row in clips)
    assert all(row["caption"] is None and "3 answers failed: a refusal" in row["notes"][-1] for row in failed)


def test_without_a_server_the_run_stops_before_any_work(curated, tmp_path):
    with pytest.raises(RecipeError, match="No caption server answers"):
        curate_here(curated.inputs, tmp_path / "run", *endpoint("http://127.0.0.1:9/v1"))
    assert not (tmp_path / "run").exists()


def test_servers_that_go_away_stop_the_run_with_their_sentence():
    assert stop_reason(ServersDown("No caption server has answered.")) == "No caption server has answered."


def test_a_killed_run_asks_again_only_for_what_was_in_flight(tmp_path):
    root = str(tmp_path)
    with serving(Behaviour(delay_s=0.04)) as stub:
        process = subprocess.Popen([sys.executable, "-c", KILLED, root, stub.url])
        assert wait_until(lambda: len(stub.asked) > CLIPS // 2)
        process.kill()
        process.wait()
        before = len(stub.asked)
        captions = ask_all(root, stub.url)
        assert before < CLIPS
        # one batch is being written, one fills, and whoever fills it waits
        assert len(stub.asked) - CLIPS <= 2 * (CONCURRENCY + BATCH)
    assert [c.clip_id for c in captions] == [row["clip_id"] for row in clips(CLIPS)]
    assert all(c.text == f"The number {int(c.clip_id, 16)} was seen by {c.model}." for c in captions)


def test_small_batches_are_merged_into_one_record(tmp_path):
    with serving() as stub:
        ask_all(str(tmp_path), stub.url)
    assert len(list((tmp_path / "work" / "caption").rglob("*.parquet"))) == 1


def test_what_was_not_answered_is_asked_again_by_the_next_run_and_what_failed_the_checks_is_not(tmp_path):
    spec, root = recipe.load("demo"), str(tmp_path)
    ledger = captioning.ledger_of(spec, root)
    captioning.write(ledger, [Caption("a", None, "m", "no answer", lasting=False), Caption("b", None, "m", "a loop")])
    assert [place is None for place in ledger.index().find(["a", "b", "c"])] == [True, False, True]
    captioning.write(ledger, [Caption("a", "A dog runs.", "m")])
    assert None not in ledger.index().find(["a", "b"])
    a, b = written(spec, root, ["a", "b"])
    assert a.text == "A dog runs." and b.lasting and not b.text


def test_another_wording_of_the_prompt_is_another_record(tmp_path):
    prompt = tmp_path / "p.md"
    prompt.write_text("# user\n\nDescribe it.\n")
    spec = recipe.load("demo", [f"captioning.prompt={prompt}"])
    captioning.write(captioning.ledger_of(spec, str(tmp_path)), [Caption("a", "A dog.", "m")])
    assert written(spec, str(tmp_path), ["a"])
    prompt.write_text("# user\n\nDescribe it in full.\n")
    assert not written(spec, str(tmp_path), ["a"])


# --- engines in the cluster ------------------------------------------------------------------------------------


def vllm(tmp_path: Path, *more: str, command: str = sys.executable) -> sections.Captioning:
    weights = tmp_path / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "config.json").write_text("{}")
    model = f"captioning.models=[{{name: m, path: {weights}}}]"
    return recipe.load(
        "demo", ["captioning.provider=vllm", model, f"captioning.vllm_command={command}", *more]
    ).captioning


def test_weights_that_are_not_there_are_told_before_any_work(tmp_path):
    check(vllm(tmp_path), local=True)
    spec = vllm(tmp_path, f"captioning.models=[{{name: m, path: {tmp_path}/nowhere}}]")
    with pytest.raises(RecipeError, match=r"nowhere holds no config\.json"):
        check(spec, local=True)
    check(spec, local=False)  # another machine's disk is not ours to judge


def test_a_machine_without_vllm_is_told_what_to_set(tmp_path):
    with pytest.raises(RecipeError, match=r"captioning\.vllm_command"):
        check(vllm(tmp_path, command="no-such-vllm"), local=True)


def test_the_command_line_says_what_the_recipe_says_and_holds_no_key(tmp_path):
    spec = vllm(tmp_path, "captioning.engines={m: {tensor_parallel: 4, options: [--max-model-len, '8192']}}")
    words = VllmServer(spec, spec.models[0], spec.engines["m"], "10.0.0.1", "secret").command()
    assert words[1] == "serve" and "secret" not in words and "--enable-request-id-headers" in words
    assert words[words.index("--tensor-parallel-size") + 1] == "4" and words[-2:] == ["--max-model-len", "8192"]
    assert words[words.index("--served-model-name") + 1] == "m" and gpus_of(spec.engines["m"]) == 4


def test_a_server_that_cannot_start_says_its_last_error(tmp_path):
    from rushes.pipelines.engine.pool import StopRun

    script = tmp_path / "vllm"
    script.write_text("#!/bin/sh\necho 'INFO loading'\necho 'ValueError: no such architecture'\necho bye\nexit 1\n")
    script.chmod(0o755)
    spec = vllm(tmp_path, command=str(script))
    server = VllmServer(spec, spec.models[0], sections.CaptionEngine(), "127.0.0.1", "k")
    server.start()
    with pytest.raises(StopRun, match="vLLM cannot serve 'm': ValueError: no such architecture"):
        server.wait()
