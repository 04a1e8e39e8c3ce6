"""The text encoder of HunyuanVideo: a language model that is asked to describe a video, and its thoughts of the words.

    text: {encoders: [{name: llama, source: PATH}, {name: clip, model: ViT-L-14-quickgelu, pretrained: openai}]}

PATH is HunyuanVideo in diffusers' layout, a folder or a hub id, with `tokenizer` and `text_encoder` in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rushes.model.text import TextEncoderError, TextFeatures, needs

# As its pipeline asks (diffusers, pipeline_hunyuan_video.py); features of what stands before the prompt are dropped.
BEFORE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
)
AFTER = "<|eot_id|>"
LAYER = -3  # the last two layers are left out


class LlamaEncoder:
    """Hidden states of the third last layer. Raises TextEncoderError where transformers or the weights are missing."""

    name, quoted_only = "llama", False

    def __init__(self, source: str, max_tokens: int = 256, device: str = "cpu", dtype: torch.dtype = torch.float32):
        transformers = needs("transformers", self.name)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source, subfolder="tokenizer")
            model = transformers.AutoModel.from_pretrained(source, subfolder="text_encoder", dtype=dtype)
        except (OSError, ValueError) as error:
            raise TextEncoderError(f"text encoder {self.name}: no weights at {source!r}: {error}") from error
        self.tokenizer.padding_side = "right"
        self.model = model.to(device).eval().requires_grad_(False)
        self.max_tokens, self.device, self.width = max_tokens, device, self.model.config.hidden_size
        self.before = len(self.tokenizer(BEFORE).input_ids)  # 95 tokens of Llama 3's

    def read(self, prompt: str) -> str:
        """The part of the prompt that tokens stand for, as the tokenizer writes it."""
        ids = self.tokenizer(BEFORE + prompt, truncation=True, max_length=self.before + self.max_tokens).input_ids
        return self.tokenizer.decode(ids[self.before :], skip_special_tokens=True)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        batch = self.tokenizer(
            [BEFORE + prompt + AFTER for prompt in prompts], padding=True, truncation=True,
            max_length=self.before + self.max_tokens, return_tensors="pt",
        ).to(self.device)  # fmt: skip
        told = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        mask = batch.attention_mask[:, self.before :].bool()
        return TextFeatures(told.hidden_states[LAYER][:, self.before :].float() * mask[..., None], mask)
