"""An image autoencoder's weights become a TAE that knows nothing of time yet (Movie Gen sec 3.1.1).

diffusers' AutoencoderKL names its weights

    encoder.conv_in   encoder.down_blocks.N.resnets.M.{norm1,conv1,norm2,conv2,conv_shortcut}
    encoder.down_blocks.N.downsamplers.0.conv   encoder.mid_block.resnets.{0,1}.*
    encoder.mid_block.attentions.0.{group_norm,to_q,to_k,to_v,to_out.0}   encoder.conv_norm_out   encoder.conv_out
    decoder.* likewise, with up_blocks.N.upsamplers.0.conv;   quant_conv, post_quant_conv where the model has them

each with .weight and .bias. The modules of model/tae.py carry the same names; a convolution's kernel lies one level
deeper, in `.spatial`, or in the middle slice of `.volume`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rushes.model.tae import TAE
from rushes.model.tae_config import TIME_LEVELS, TAEConfig
from rushes.model.tae_layers import Attention, TemporalConv

# Names that older AutoencoderKL files use for the attention projections.
OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def image_config(state: dict[str, Tensor], norm_groups: int = 32, volume: bool = False) -> TAEConfig:
    """The TAEConfig that an AutoencoderKL state dict fits. Raises ValueError where it is not such a state dict."""
    try:
        norms = [state[f"encoder.down_blocks.{i}.resnets.0.norm2.weight"] for i in range(TIME_LEVELS + 1)]
        latents = state["decoder.conv_in.weight"].shape[1]
        colours = state["encoder.conv_in.weight"].shape[1]
    except KeyError as error:
        raise ValueError(f"not an AutoencoderKL with 4 resolutions: there is no weight {error}") from error
    layers = len({name.split(".")[4] for name in state if name.startswith("encoder.down_blocks.0.resnets.")})
    return TAEConfig(
        block_channels=tuple(len(norm) for norm in norms),
        layers_per_block=layers,
        latent_channels=latents,
        video_channels=colours,
        norm_groups=norm_groups,
        quant_conv="quant_conv.weight" in state,
        volume=volume,
    )


@torch.no_grad()
def inflate(model: TAE, state: dict[str, Tensor]) -> None:
    """Loads an image autoencoder's weights into `model`, in place; time becomes an identity (sec 3.1.1).

    state: of a diffusers AutoencoderKL, any float type. Afterwards a single frame is encoded and decoded exactly as
    the image model does, and in 2.5D so is every eighth frame of a video. Raises ValueError that names the weights
    which do not fit, are unknown, or are missing; the model is then unchanged.
    """
    if model.config.blocks:
        raise ValueError("a TAE of blocks does not reproduce an image model; set options.blocks to false")
    own = dict(model.named_parameters())
    plan: list[tuple[Tensor, Tensor]] = []
    unfilled = {name for name in own if ".temporal" not in name and ".time." not in name}
    for name, value in state.items():
        target = _inflated_name(name, own)
        if target is None:
            raise ValueError(f"the image autoencoder has a weight {name!r} that the TAE has no place for")
        place = own[target][:, :, 1] if own[target].ndim == 5 else own[target]
        if place.ndim == 2 and value.ndim == 4:  # attention projections saved as 1x1 convolutions
            value = value.flatten(1)
        if place.shape != value.shape:
            raise ValueError(f"{name!r} has the shape {list(value.shape)}, the TAE wants {list(place.shape)}")
        unfilled.discard(target)
        plan.append((own[target], value))
    if unfilled:
        raise ValueError(f"the image autoencoder lacks {len(unfilled)} weights, {min(unfilled)!r} among them")
    for parameter, value in plan:
        if parameter.ndim == 5:
            parameter.zero_()
            parameter[:, :, 1].copy_(value)
        else:
            parameter.copy_(value)
    for module in model.modules():
        if isinstance(module, TemporalConv) or (isinstance(module, Attention) and module.over == "time"):
            module.init_identity()


def _inflated_name(name: str, own: dict[str, Tensor]) -> str | None:
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    base, _, kind = name.rpartition(".")
    candidates = (name, f"{base}.spatial.{kind}", f"{base}.volume.{kind}")
    return next((c for c in candidates if c in own), None)
