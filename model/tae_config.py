"""The shape of the temporal autoencoder (model/tae.py), and its arithmetic of frames."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SPACE_FACTOR = 8  # three spatial halvings
TIME_FACTOR = 8  # three temporal halvings, after the spatial ones
TIME_LEVELS = 3


@dataclass(frozen=True)
class TAEConfig:
    """Shape of the autoencoder. `TAE_SIZES` names the ones in use."""

    block_channels: tuple[int, ...] = (128, 256, 512, 512)  # per resolution: 1, 1/2, 1/4, 1/8; with blocks 1/8 alone
    layers_per_block: int = 2  # residual blocks per resolution in the encoder; one more in the decoder
    latent_channels: int = 16
    video_channels: int = 3
    norm_groups: int = 32  # 0: no norms
    quant_conv: bool = False  # 1x1 convolutions around the latent, as in Stable Diffusion 1 and 2
    volume: bool = False  # full 3D instead of 2.5D
    blocks: bool = False  # 8 x 8 x 8 pixels at once (model/blocks.py), for small models that start from nothing

    def __post_init__(self) -> None:
        resolutions = 1 if self.blocks else TIME_LEVELS + 1
        if len(self.block_channels) != resolutions:
            raise ValueError(f"the TAE has {resolutions} resolutions, block_channels names {len(self.block_channels)}")
        if bad := [c for c in self.block_channels if self.norm_groups and c % self.norm_groups]:
            raise ValueError(f"block_channels {bad} are not divisible by norm_groups = {self.norm_groups}")


TAE_SIZES: dict[str, TAEConfig] = {
    "tiny": TAEConfig(block_channels=(64,), layers_per_block=1, norm_groups=0, blocks=True),  # for a CPU
    "base": TAEConfig(),  # the shape of the Stable Diffusion 3 and Flux autoencoders
}


def latent_frames(frames: int) -> int:
    """ceil(frames / 8): latents that stand for `frames` frames."""
    return -(-frames // TIME_FACTOR)


def check_frames(latent: Tensor, frames: int | None) -> int:
    """The frames that a latent is decoded to. Raises ValueError where it does not stand for so many."""
    frames = latent.shape[2] * TIME_FACTOR if frames is None else frames
    if latent_frames(frames) != latent.shape[2]:
        raise ValueError(f"{latent.shape[2]} latent frames cannot be decoded to {frames} frames")
    return frames
