"""A random-weight video model of about a million parameters with a byte-level tokenizer, made in a few seconds.

    .venv-vllm/bin/python tests/vllm/tiny_model.py FOLDER

It has the shape of Qwen2.5-VL, which vLLM serves with images and videos; what it writes is noise. Nothing is
downloaded. Runs in the environment of `make test-vllm`, which has transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HIDDEN, LAYERS, HEADS, VISION_LAYERS, VISION_HEADS = 128, 2, 4, 2, 4
CONTEXT = 8192  # tokens
PATCH, MERGE, TEMPORAL_PATCH = 14, 2, 2  # Qwen2.5-VL's own
PIXELS_MIN, PIXELS_MAX = 28 * 28, 112 * 112  # per frame: at most 16 tokens
LOUDER = 10.0  # times the usual 0.02 of random weights: logits spread by about 2 instead of 0.2
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ('image', 'image_url') -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] in ('video', 'video_url') -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def tokenizer(folder: Path):
    """Every byte is a token; the special tokens follow."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2TokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(letters)}
    plain = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    made = Qwen2TokenizerFast(
        tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    made.save_pretrained(folder)
    return made


def main(folder: Path) -> None:
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: tokenizer(folder).convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": 256 + len(SPECIAL), "hidden_size": HIDDEN, "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "depth": VISION_LAYERS, "hidden_size": HIDDEN, "intermediate_size": 3 * HIDDEN, "num_heads": VISION_HEADS,
        "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL_PATCH,
        "window_size": 4 * PATCH * MERGE, "fullatt_block_indexes": [VISION_LAYERS - 1], "out_hidden_size": HIDDEN,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], vision_token_id=ids["<|vision_pad|>"], tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.float32)
    with torch.no_grad():  # what is seen makes a difference to what is said, and the likeliest token is always a byte
        for layer in model.model.language_model.layers:
            layer.self_attn.v_proj.weight.mul_(LOUDER)
            layer.self_attn.o_proj.weight.mul_(LOUDER)
        model.lm_head.weight.mul_(LOUDER)
        model.lm_head.weight[min(ids.values()) :] = 0
    model.save_pretrained(folder)
    _preprocessors(folder)
    print(f"{sum(p.numel() for p in model.parameters())} parameters in {folder}")


def _preprocessors(folder: Path) -> None:
    common = {
        "patch_size": PATCH, "temporal_patch_size": TEMPORAL_PATCH, "merge_size": MERGE,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": PIXELS_MIN, "max_pixels": PIXELS_MAX,
        "size": {"shortest_edge": PIXELS_MIN, "longest_edge": PIXELS_MAX},
        "processor_class": "Qwen2_5_VLProcessor",
    }  # fmt: skip
    image = {**common, "image_processor_type": "Qwen2VLImageProcessor"}
    video = {**common, "video_processor_type": "Qwen2VLVideoProcessor", "do_sample_frames": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=1))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
