"""What is wrong with the servers is said before the first clip, in one sentence that says what to do."""

from __future__ import annotations

import json

import pytest

from rushes.curation import recipe
from rushes.curation.captioning.preflight import key_of
from rushes.curation.recipe import RecipeError
from tests.curation.captioning.asking import captioning, servers
from tests.curation.captioning.stub import Behaviour, serving

MODELS = [{"name": "m", "share": 1}]


def refused(spec) -> str:
    with pytest.raises(RecipeError) as told:
        servers(spec)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_no_server():
    assert "No caption server answers at captioning.endpoints=http://127.0.0.1:9" in refused(
        captioning("http://127.0.0.1:9/v1")
    )


def test_a_server_that_answers_html():
    with serving(Behaviour(page=True)) as stub:
        assert "web page" in refused(captioning(stub.url))


def test_a_model_that_nobody_serves_and_what_is_served_instead():
    with serving(Behaviour(models=("llama-8b", "small"))) as stub:
        sentence = refused(captioning(stub.url))
    assert "'large'" in sentence and "llama-8b, small" in sentence


@pytest.mark.parametrize(
    "words", ["At most 0 video(s) may be provided in one prompt.", "small is not a multimodal model"]
)
def test_a_model_without_video_input(words):
    with serving(Behaviour(always=(400, json.dumps({"error": {"message": words}})))) as stub:
        sentence = refused(captioning(stub.url))
    assert "takes no video" in sentence and "captioning.send=images" in sentence


def test_clips_longer_than_the_context_whether_the_server_says_so_or_its_figures_do():
    words = "This model's maximum context length is 128 tokens"
    with serving(Behaviour(always=(400, json.dumps({"error": {"message": words}})))) as stub:
        assert "do not fit into the context" in refused(captioning(stub.url))
    with serving(Behaviour(context=400)) as stub:  # the stub counts 100 tokens of prompt
        assert "100 tokens of prompt and 400 of context" in refused(captioning(stub.url, max_tokens=301))
        assert servers(captioning(stub.url, max_tokens=300))


def test_a_server_that_wants_another_key():
    with serving(Behaviour(always=(401, '{"error": "Unauthorized"}'))) as stub:
        assert "401" in refused(captioning(stub.url))


def test_a_busy_server_is_there():
    with serving(Behaviour(always=(503, "loading"))) as stub:
        assert servers(captioning(stub.url)).by_model["small"] == (stub.url,)


def test_which_servers_give_ids_back_is_found_out():
    with serving() as echoing, serving(Behaviour(echo=False)) as silent:
        assert servers(captioning((echoing.url, silent.url))).echoing == {echoing.url}


def test_the_key_comes_from_the_environment_variable_that_the_recipe_names(monkeypatch):
    spec = captioning("http://x/v1", api_key_env="RUSHES_TEST_KEY")
    monkeypatch.delenv("RUSHES_TEST_KEY", raising=False)
    with pytest.raises(RecipeError, match="RUSHES_TEST_KEY, which is not set"):
        key_of(spec)
    monkeypatch.setenv("RUSHES_TEST_KEY", "k")
    assert key_of(spec) == "k"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"provider": "endpoint", "models": MODELS}, "needs endpoints"),
        ({"provider": "vllm"}, "needs models"),
        ({"provider": "endpoint", "models": MODELS, "endpoints": ["host:8000"]}, "begin with http"),
        ({"models": [{"name": "a", "share": 0.7}, {"name": "b", "share": 0.2}]}, "add up to 1"),
        ({"models": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]}, "told apart by their names"),
        ({"models": MODELS, "engines": {"n": {"replicas": 2}}}, "none of the models: m"),
        ({"words_min": 150}, "words_min=150"),
        ({"checks": ["spelling"]}, "captioning.checks"),
        ({"provider": "vlm"}, "captioning.provider"),
    ],
)
def test_combinations_that_cannot_work_are_sentences(section, words):
    with pytest.raises(RecipeError) as told:
        recipe.build({"captioning": section})
    assert words in str(told.value) and "\n" not in str(told.value)


def test_where_and_how_servers_run_does_not_change_what_was_captioned():
    base = {"provider": "endpoint", "models": MODELS, "endpoints": ["http://a/v1"]}
    was = recipe.build({"captioning": base}).part_hash("caption")
    elsewhere = {**base, "endpoints": ["http://b/v1"], "concurrency": 7, "engines": {"m": {"replicas": 3}}}
    assert recipe.build({"captioning": elsewhere}).part_hash("caption") == was
    assert recipe.build({"captioning": {**base, "frames": 4}}).part_hash("caption") != was
