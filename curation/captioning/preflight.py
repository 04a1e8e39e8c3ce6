"""What can be known of caption servers before the first clip: are they there, do they serve our models, do they take
the largest request that this recipe can make. Whatever is amiss is one sentence, RecipeError, before any work."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import aiohttp
import numpy as np

from rushes.curation.captioning.endpoint import BUSY, OK, Servers, echoed, headers, is_html, plain, said
from rushes.curation.captioning.frames import encode
from rushes.curation.captioning.prompt import Template, chat_body
from rushes.curation.recipe import RecipeError
from rushes.curation.sections import Captioning

LIST_S = 15.0  # seconds that the list of models may take
NO_PICTURES = ("not a multimodal model", "at most 0", "does not support", "unknown part type", "is not supported",
               "unsupported content", "image input", "video input")  # fmt: skip
TOO_LONG = ("context length", "maximum model length", "max_model_len", "too long", "longer than")
PROBE_SECONDS = 8.0  # duration that the probe's clip claims


def key_of(recipe: Captioning) -> str | None:
    """The servers' key from the environment. Raises RecipeError where the recipe names a variable that is not set."""
    if recipe.api_key_env is None:
        return None
    key = os.environ.get(recipe.api_key_env)
    if not key:
        raise RecipeError(
            f"captioning.api_key_env names the environment variable {recipe.api_key_env}, which is not set here."
        )
    return key


def preflight(recipe: Captioning, endpoints: tuple[str, ...], template: Template, key: str | None) -> Servers:
    """Which of the endpoints serve which of the recipe's models; each pair has answered a probe.

    Every server is asked for its models and then, for each model of the recipe, to look at as many frames of the
    recipe's size as a clip can have, and to write one token. Raises RecipeError.
    """
    return asyncio.run(_preflight(recipe, tuple(url.rstrip("/") for url in endpoints), template, key))


async def _preflight(recipe: Captioning, urls: tuple[str, ...], template: Template, key: str | None) -> Servers:
    async with aiohttp.ClientSession(headers=headers(key)) as http:
        lists = await asyncio.gather(*(_models(http, url) for url in urls))
        served = {
            model.name: tuple(url for url, names in zip(urls, lists, strict=True) if model.name in names)
            for model in recipe.models
        }
        for name, at in served.items():
            if not at:
                known = sorted(set().union(*lists))
                raise RecipeError(
                    f"No caption server serves the model '{name}' of captioning.models: {', '.join(urls)} "
                    f"{'serve' if len(urls) > 1 else 'serves'} {', '.join(known) or 'none'}."
                )
        pairs = [(name, url, lists[urls.index(url)][name]) for name, at in served.items() for url in at]
        echoes = await asyncio.gather(*(_probe(http, recipe, template, *pair) for pair in pairs))
        by_url: dict[str, list[bool]] = {}
        for (_, url, _), echo in zip(pairs, echoes, strict=True):
            by_url.setdefault(url, []).append(echo)
        return Servers(served, frozenset(url for url, all_ in by_url.items() if all(all_)))


async def _models(http: aiohttp.ClientSession, url: str) -> dict[str, int | None]:
    """Models of a server by name, with their context in tokens where it tells."""
    try:
        async with http.get(f"{url}/models", timeout=aiohttp.ClientTimeout(LIST_S)) as response:
            data = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RecipeError(
            f"No caption server answers at captioning.endpoints={url}: {plain(error)}. Start it, or "
            f"correct the address."
        ) from error
    if response.status in (401, 403):
        raise RecipeError(
            f"The caption server at {url} refuses the key ({response.status}): set captioning.api_key_env to the "
            f"environment variable that holds it."
        )
    if is_html(data):
        raise RecipeError(
            f"What answers at captioning.endpoints={url} is a web page, not an OpenAI-compatible server: the address "
            f"should end in /v1."
        )
    try:
        return {str(model["id"]): model.get("max_model_len") for model in json.loads(data)["data"]}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"What answers at captioning.endpoints={url} gives no list of models ({response.status}: "
            f"{said(data)}): is it an OpenAI-compatible server, and does the address end in /v1?"
        ) from error


def probe_body(recipe: Captioning, template: Template, model: str) -> dict[str, Any]:
    """The largest request of a recipe: all its frames, square, grey; one token is asked for."""
    frame = encode(np.full((recipe.side, recipe.side, 3), 128, np.uint8), recipe.side)
    body = chat_body(model, template, [frame] * recipe.frames, PROBE_SECONDS, recipe, seed=0)
    return {**body, "max_tokens": 1}


async def _probe(
    http: aiohttp.ClientSession, recipe: Captioning, template: Template, model: str, url: str, context: int | None
) -> bool:
    """Whether the server gives request ids back; RecipeError where it cannot take the recipe's requests."""
    request_id = f"preflight-{os.urandom(4).hex()}"
    try:
        async with http.post(
            f"{url}/chat/completions", json=probe_body(recipe, template, model),
            headers={"X-Request-Id": request_id}, timeout=aiohttp.ClientTimeout(recipe.timeout_s),
        ) as response:  # fmt: skip
            status, data = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RecipeError(
            f"The caption server at {url} did not answer a request of {recipe.frames} frames within captioning."
            f"timeout_s={recipe.timeout_s:g}: {plain(error)}."
        ) from error
    if status in BUSY:  # there, and busy: the run itself waits for it
        return False
    if status != OK:
        raise RecipeError(_why_not(status, data, recipe, model, url))
    try:
        used = json.loads(data)["usage"]["prompt_tokens"]
    except (ValueError, LookupError, TypeError):
        used = None
    if context and used and used + recipe.max_tokens > context:
        raise RecipeError(_too_long(recipe, model, url, f"{used} tokens of prompt and {context} of context"))
    return echoed(request_id, response.headers, data)


def _why_not(status: int, data: bytes, recipe: Captioning, model: str, url: str) -> str:
    words = said(data)
    low = words.lower()
    if any(sign in low for sign in TOO_LONG):
        return _too_long(recipe, model, url, words)
    if any(sign in low for sign in NO_PICTURES):
        other = "images" if recipe.send == "video" else "video"
        return (
            f"The model '{model}' at {url} takes no {recipe.send} as captioning.send={recipe.send} sends "
            f"{'it' if recipe.send == 'video' else 'them'} ({words}): set captioning.send={other}, raise the server's "
            f"--limit-mm-per-prompt, or name a model that sees."
        )
    return f"The caption server at {url} turns down a request for '{model}' ({status}): {words}."


def _too_long(recipe: Captioning, model: str, url: str, words: str) -> str:
    return (
        f"A clip of captioning.frames={recipe.frames} at captioning.side={recipe.side} and an answer of captioning."
        f"max_tokens={recipe.max_tokens} do not fit into the context of '{model}' at {url} ({words}): lower one of "
        f"them, or start the server with a longer --max-model-len."
    )
