"""Open weights: diffusers autoencoders give latents for `rushes encode`, and LoRA trains on them and goes out again."""

from __future__ import annotations

import io

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
from rushes.model.open_weights import load_open_dit, load_open_tae  # noqa: E402
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


def small_transformer(folder, text: int = TEXT) -> str:
    torch.manual_seed(1)
    diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=text, freq_dim=16,
        ffn_dim=32, num_layers=1, cross_attn_norm=True, rope_max_seq_len=32,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return str(folder)


def test_a_lora_is_trained_on_latents_of_open_weights_and_goes_out_as_peft_reads_it(small_run, tmp_path):
    from rushes.pipelines.encode import Options, encode

    tae = f"diffusers:{saved('AutoencoderKLWan', tmp_path)}"
    transformer, folder = small_transformer(tmp_path), str(tmp_path / "out")
    recipe = dit_recipe(
        "options={}", f"open_transformer={transformer}", "lora.rank=2", steps=4, lr=1e-2, frames_max=None
    )
    run, _ = encode(
        recipe, [small_run], tae, str(tmp_path / "latents"), [], Options("float32", engine=Engine(num_cpus=1)),
        Console(file=io.StringIO()),
    )  # fmt: skip
    assert run.record["encoding"]["settings"]["causal"] and not run.record["tables"]["failures"]["rows"]
    assert train_dit(recipe, [run.root], folder, tae, lambda _: None)
    told = losses(tmp_path / "out")
    assert len(told) == 4
    written = export(folder, str(tmp_path / "adapter"))
    assert [path.name for path in written] == ["adapter_config.json", "adapter_model.safetensors"]
    plain = diffusers.WanTransformer3DModel.from_pretrained(f"{transformer}/transformer")
    x, text = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 3, TEXT)
    before = plain(x, torch.tensor([500.0]), text, return_dict=False)[0]
    after = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))(
        hidden_states=x, timestep=torch.tensor([500.0]), encoder_hidden_states=text, return_dict=False
    )[0]
    assert not torch.allclose(before, after, atol=1e-6), "the adapter does something"


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
    assert model.text_width == TEXT and torch.allclose(mine, -unpack(theirs, 3, 4, 6), atol=1e-5)
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
        theirs = plain(x, torch.tensor([750.0, 0.0]), text, return_dict=False)[0]
    assert torch.allclose(mine, -theirs, atol=1e-5)
    assert set(model.state_dict()) and all("lora" in name for name in model.state_dict())


def test_what_does_not_fit_is_a_sentence(small_run, small_tae, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_tae(f"diffusers:{tmp_path / 'other'}")
    (tmp_path / "other" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(CheckpointError, match="is a UNet2DModel; what is read as vae"):
        load_tae(f"diffusers:{tmp_path / 'other'}")
    recipe = dit_recipe("options={}", f"open_transformer={small_transformer(tmp_path, text=24)}", steps=1)
    with pytest.raises(TrainRecipeError, match="width 24, and 'bytes' makes 16"):
        train_dit(recipe, [small_run], str(tmp_path / "out"), small_tae, lambda _: None)
