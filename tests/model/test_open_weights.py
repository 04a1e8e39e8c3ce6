"""Open weights: diffusers autoencoders give latents for `rushes encode`, and LoRA trains on them and goes out again."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from rushes.curation.looking.torchvision_schemas import imported

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
try:
    peft = imported("peft")
except ImportError:
    pytest.skip("peft is not installed", allow_module_level=True)
pytestmark = pytest.mark.heavy

from rich.console import Console  # noqa: E402

from rushes.curation.sections import Engine  # noqa: E402
from rushes.model.checkpoint import CheckpointError  # noqa: E402
from rushes.model.export import export  # noqa: E402
from rushes.model.frozen import load_tae  # noqa: E402
from rushes.model.open_transformers import load_open_dit  # noqa: E402
from rushes.model.open_weights import load_open_tae  # noqa: E402
from rushes.model.text_llama import AFTER, BEFORE, LlamaEncoder  # noqa: E402
from rushes.model.tiling import decode_tiled, encode_tiled  # noqa: E402
from rushes.model.train import train_dit  # noqa: E402
from rushes.model.train_recipe import TrainRecipeError  # noqa: E402
from tests.model.small_run import dit_recipe, losses  # noqa: E402

torch.set_num_threads(1)
TEXT = 16  # width of the text features
WIDTHS, DOWN, UP = (8, 8, 8, 8), "DownBlock3D", "UpBlock3D"
# class -> (arguments of a tiny one, factors in time and space)
TINY = {
    "AutoencoderKLWan": (
        dict(base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
             latents_mean=[0.5] * 4, latents_std=[2.0] * 4), (4, 8)),
    "AutoencoderKLHunyuanVideo": (
        dict(latent_channels=4, down_block_types=(f"HunyuanVideo{DOWN}",) * 4, block_out_channels=WIDTHS,
             up_block_types=(f"HunyuanVideo{UP}",) * 4, layers_per_block=1, norm_num_groups=4), (4, 8)),
    "AutoencoderKLLTXVideo": (
        dict(latent_channels=8, block_out_channels=WIDTHS, decoder_block_out_channels=WIDTHS,
             layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
             spatio_temporal_scaling=(True, True, False, False), patch_size=1, encoder_causal=True,
             decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
             upsample_residual=(False,) * 4, upsample_factor=(1,) * 4), (4, 4)),
    "AutoencoderKLCogVideoX": (
        dict(latent_channels=4, down_block_types=(f"CogVideoX{DOWN}",) * 4, block_out_channels=WIDTHS,
             up_block_types=(f"CogVideoX{UP}",) * 4, layers_per_block=1, norm_num_groups=2), (4, 8)),
}  # fmt: skip


def saved(name: str, folder) -> str:
    torch.manual_seed(0)
    getattr(diffusers, name)(**TINY[name][0]).save_pretrained(folder / "vae")
    return str(folder)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_an_open_autoencoder_has_the_interface_of_ours(name, tmp_path):
    tae = load_open_tae(saved(name, tmp_path))
    time, space = TINY[name][1]
    assert (tae.time_factor, tae.space_factor) == (time, space)
    video = torch.rand(1, 3, 8, 64, 64) * 2 - 1
    latent = encode_tiled(tae, video).mean
    assert latent.shape[2:] == (tae.latent_frames(8), 64 // space, 64 // space) and tae.latent_frames(8) == 3
    assert decode_tiled(tae, latent, 8).shape == video.shape
    if name in ("AutoencoderKLWan", "AutoencoderKLLTXVideo"):  # the others' group norms look at all frames
        first = encode_tiled(tae, video[:, :, :1]).mean
        assert torch.allclose(first[:, :, 0], latent[:, :, 0], atol=1e-4), "the first latent is the first frame's"
    assert torch.allclose(tae.denormalize(tae.normalize(latent)), latent, atol=1e-5)
    if name == "AutoencoderKLWan":
        assert torch.allclose(tae.normalize(latent), (latent - 0.5) / 2)


def small_transformer(folder, text: int = TEXT, channels: int = 4) -> str:
    torch.manual_seed(1)
    diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=channels, out_channels=channels, text_dim=text,
        freq_dim=16, ffn_dim=32, num_layers=1, cross_attn_norm=True, rope_max_seq_len=32,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return str(folder)


def test_a_lora_is_trained_on_latents_of_open_weights_and_goes_out_as_peft_reads_it(small_run, tmp_path):
    transformer, folder = small_transformer(tmp_path), str(tmp_path / "out")
    assert len(learned(small_run, tmp_path, steps=4)) == 4
    written = export(folder, str(tmp_path / "adapter"))
    assert [path.name for path in written] == ["adapter_config.json", "adapter_model.safetensors"]
    plain = diffusers.WanTransformer3DModel.from_pretrained(f"{transformer}/transformer")
    x, text = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 3, TEXT)
    before = plain(x, torch.tensor([500.0]), text, return_dict=False)[0]
    after = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))(
        hidden_states=x, timestep=torch.tensor([500.0]), encoder_hidden_states=text, return_dict=False
    )[0]
    assert not torch.allclose(before, after, atol=1e-6), "the adapter does something"


def learned(small_run, folder, *settings: str, steps: int) -> dict[int, float]:
    """Losses of a LoRA on the transformer in `folder`, over latents of Wan's autoencoder."""
    from rushes.pipelines.encode import Options, encode

    tae = f"diffusers:{saved('AutoencoderKLWan', folder)}"
    chosen = ("options={}", f"open_transformer={folder}", "lora.rank=2", *settings)
    recipe = dit_recipe(*chosen, steps=steps, lr=1e-2, frames_max=None)
    run, _ = encode(
        recipe, [small_run], tae, str(folder / "latents"), [], Options("float32", engine=Engine(num_cpus=1)),
        Console(file=io.StringIO()),
    )  # fmt: skip
    assert run.record["encoding"]["settings"]["causal"] and not run.record["tables"]["failures"]["rows"]
    assert train_dit(recipe, [run.root], str(folder / "out"), tae, lambda _: None)
    return losses(folder / "out")


def small_hunyuan(folder, guidance: bool = True, pooled: int = 8) -> Any:
    torch.manual_seed(1)
    diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=TEXT, pooled_projection_dim=pooled, rope_axes_dim=(4, 4, 4),
        guidance_embeds=guidance,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return diffusers.HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer")


def small_cogvideox(folder, **changed: Any) -> Any:
    """2b's positions; `use_rotary_positional_embeddings` are 5b's, `patch_size_t` with it 1.5's."""
    torch.manual_seed(1)
    diffusers.CogVideoXTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, text_embed_dim=TEXT, num_layers=1,
        time_embed_dim=8, sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=6, **changed,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    cogvideox_noise().save_pretrained(folder / "scheduler")
    return diffusers.CogVideoXTransformer3DModel.from_pretrained(folder / "transformer")


def cogvideox_noise(**changed: Any) -> Any:
    told = {"snr_shift_scale": 3.0, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    return diffusers.CogVideoXDDIMScheduler(**{**told, **changed})


@pytest.mark.parametrize("guidance", [True, False])
@torch.no_grad()
def test_a_hunyuan_transformer_reads_tokens_and_the_feature_at_the_end_of_the_second_text(guidance, tmp_path):
    plain = small_hunyuan(tmp_path, guidance)
    model = load_open_dit(str(tmp_path), rank=2, alpha=2.0)
    model.names = ("llama", "clip")
    x, t = torch.randn(2, 4, 3, 4, 6), torch.tensor([0.25, 0.5])
    text = {"clip": torch.randn(2, 7, 8), "llama": torch.randn(2, 5, TEXT)}
    masks = {name: torch.ones(value.shape[:2], dtype=torch.bool) for name, value in text.items()}
    masks["clip"][0, 4:] = masks["llama"][1, 3:] = False
    theirs = plain(
        x, torch.tensor([750.0, 500.0]), text["llama"], masks["llama"], text["clip"][[0, 1], [3, 6]],
        torch.tensor([1000.0, 1000.0]) if guidance else None, return_dict=False,
    )[0]  # fmt: skip
    assert model.text_widths == [TEXT, 8]
    assert torch.allclose(model(x, t, text, masks), -theirs, atol=1e-5)
    silent = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    assert model(x, t, text, silent).isfinite().all(), "no words"


@pytest.mark.parametrize(
    "changed",
    [{}, {"use_rotary_positional_embeddings": True},
     {"use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False}],
    ids=["2b", "5b", "1.5"],
)  # fmt: skip
@torch.no_grad()
def test_a_cogvideox_transformer_is_asked_as_its_pipeline_asks_it(changed, tmp_path):
    plain = small_cogvideox(tmp_path, **changed)
    model = load_open_dit(str(tmp_path), rank=2, alpha=2.0)
    x, text, mask = torch.randn(2, 4, 4, 6, 12), torch.randn(2, 5, TEXT), torch.ones(2, 5, dtype=torch.bool)
    places = None
    if changed:
        pipeline = SimpleNamespace(vae_scale_factor_spatial=1, transformer=plain)
        places = diffusers.CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipeline, 6, 12, 4, torch.device("cpu")
        )
    theirs = plain(
        x.transpose(1, 2), torch.nn.functional.pad(text, (0, 0, 0, 1)), torch.tensor([749.0, 999.0]),
        image_rotary_emb=places, return_dict=False,
    )[0].transpose(1, 2)  # fmt: skip
    t = torch.tensor([0.25, 0.0])
    assert torch.allclose(model(x, t, {"t": text}, {"t": mask}), theirs, atol=1e-4)
    assert model(x[:, :, :3], t, {"t": text}, {"t": mask}).shape == (2, 4, 3, 6, 12)


def test_a_cogvideox_transformer_is_trained_on_the_noise_of_its_own_scheduler(tmp_path):
    small_cogvideox(tmp_path)
    process, theirs = load_open_dit(str(tmp_path), rank=2, alpha=2.0).process, cogvideox_noise()
    data, noise, steps = torch.randn(3, 4, 2, 2, 2), torch.randn(3, 4, 2, 2, 2), torch.tensor([0, 500, 999])
    t = 1 - (steps + 1) / 1000
    assert torch.allclose(process.interpolate(data, noise, t), theirs.add_noise(data, noise, steps), atol=1e-4)
    assert torch.allclose(process.target(data, noise, t), theirs.get_velocity(data, noise, steps), atol=1e-4)
    cogvideox_noise(prediction_type="epsilon").save_pretrained(tmp_path / "scheduler")
    with pytest.raises(CheckpointError, match="prediction_type epsilon"):
        load_open_dit(str(tmp_path), rank=2, alpha=2.0)


def test_loras_of_hunyuan_and_cogvideox_are_trained_and_resumed(small_run, tmp_path):
    for name, make, settings in (
        ("hunyuan", small_hunyuan, ["text.encoders=[{name: bytes, width: 16}, {name: quoted, width: 8}]"]),
        ("cogvideox", small_cogvideox, ["process=diffusion"]),
    ):
        folder = tmp_path / name
        make(folder)
        told = learned(small_run, folder, *settings, steps=2)
        assert len(told) == 2 and all(0 < loss < 100 for loss in told.values())
        assert len(learned(small_run, folder, *settings, steps=3)) == 3


def test_an_ltx_transformer_is_asked_as_its_pipeline_asks_it(tmp_path):
    torch.manual_seed(1)
    diffusers.LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=1, caption_channels=TEXT,
    ).save_pretrained(tmp_path / "transformer")  # fmt: skip
    model = load_open_dit(str(tmp_path), rank=2, alpha=2.0)
    plain = diffusers.LTXVideoTransformer3DModel.from_pretrained(tmp_path / "transformer")
    x, text, mask = torch.randn(1, 4, 3, 4, 6), torch.randn(1, 5, TEXT), torch.ones(1, 5, dtype=torch.bool)
    mask[:, 3:] = False
    pack, unpack = diffusers.LTXPipeline._pack_latents, diffusers.LTXPipeline._unpack_latents
    with torch.no_grad():
        mine = model(x, torch.tensor([0.25]), {"t": text}, {"t": mask})
        theirs = plain(
            pack(x), text, torch.tensor([750.0]), mask, 3, 4, 6, rope_interpolation_scale=(8 / 25, 32, 32),
            return_dict=False,
        )[0]  # fmt: skip
    assert model.text_widths == [TEXT] and torch.allclose(mine, -unpack(theirs, 3, 4, 6), atol=1e-5)
    mine = model(x, torch.tensor([0.25]), {"t": text}, {"t": mask})
    mine.square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_fresh_adapters_answer_the_open_transformers_velocity_the_other_way_round(tmp_path):
    where = small_transformer(tmp_path)
    model = load_open_dit(where, rank=2, alpha=2.0)
    plain = diffusers.WanTransformer3DModel.from_pretrained(f"{where}/transformer")
    x, text = torch.randn(2, 4, 2, 4, 4), torch.randn(2, 3, TEXT)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        mine = model(x, torch.tensor([0.25, 1.0]), {"t": text}, {"t": mask})
        filled = torch.nn.functional.pad(text, (0, 0, 0, 512 - 3))
        theirs = plain(x, torch.tensor([750.0, 0.0]), filled, return_dict=False)[0]
    assert torch.allclose(mine, -theirs, atol=1e-5)
    assert set(model.state_dict()) and all("lora" in name for name in model.state_dict())


def test_what_does_not_fit_is_a_sentence(small_run, small_tae, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_tae(f"diffusers:{tmp_path / 'other'}")
    (tmp_path / "other" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(CheckpointError, match="is a UNet2DModel; what is read as vae"):
        load_tae(f"diffusers:{tmp_path / 'other'}")
    recipe = dit_recipe("options={}", f"open_transformer={small_transformer(tmp_path, 24, 16)}", steps=1)
    with pytest.raises(TrainRecipeError, match="width 24, and 'bytes' makes 16"):
        train_dit(recipe, [small_run], str(tmp_path / "out"), small_tae, lambda _: None)
    small_cogvideox(tmp_path / "cog")
    recipe = dit_recipe("options={}", f"open_transformer={tmp_path / 'cog'}", steps=1)
    with pytest.raises(TrainRecipeError, match="set process to diffusion"):
        train_dit(recipe, [small_run], str(tmp_path / "out2"), small_tae, lambda _: None)
    small_hunyuan(tmp_path / "hunyuan")
    recipe = dit_recipe("options={}", f"open_transformer={tmp_path / 'hunyuan'}", steps=1)
    with pytest.raises(TrainRecipeError, match=r"4 channels, and the latents have \d+"):
        train_dit(recipe, [small_run], str(tmp_path / "out3"), small_tae, lambda _: None)


def test_what_hunyuan_reads_is_what_its_pipeline_asks_its_language_model(tmp_path):
    transformers = imported("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<pad>", *"abcdefghijklmnopqrstuvwxyz", "dog", "runs", "video"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(tmp_path / "tokenizer")
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=1,
    )  # fmt: skip
    transformers.LlamaModel(config).save_pretrained(tmp_path / "text_encoder")
    encoder = LlamaEncoder(str(tmp_path), max_tokens=8)
    pipeline = SimpleNamespace(tokenizer=encoder.tokenizer, text_encoder=encoder.model)
    template = {"template": BEFORE + "{}" + AFTER, "crop_start": encoder.before}
    texts = ["dog runs", "dog runs a video"]
    told, mask = diffusers.HunyuanVideoPipeline._get_llama_prompt_embeds(
        pipeline, texts, template, device=torch.device("cpu"), max_sequence_length=8
    )
    found = encoder.encode(texts)
    length = found.mask.shape[1]
    assert torch.equal(found.mask, mask[:, :length].bool()) and not mask[:, length:].any()
    assert torch.allclose(found.tokens, (told * mask[..., None])[:, :length], atol=1e-5)
    assert encoder.read("dog runs") == "dog runs"
