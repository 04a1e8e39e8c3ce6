"""Videos from a trained DiT and its TAE: prompt in, mp4 out (Movie Gen sec 3.4: 50 steps, guidance 7.5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rushes.model import checkpoint as checkpoints
from rushes.model.checkpoint import CheckpointError
from rushes.model.data import SIDE_STEP
from rushes.model.dit import DiT, DiTConfig
from rushes.model.flow import GUIDANCE, PROCESSES, SAMPLING_STEPS, Process, guided, sample
from rushes.model.parallel import Place, parallelize
from rushes.model.steps import latent_of
from rushes.model.tae import TAE
from rushes.model.text import TextEncoders, prompt
from rushes.model.tiling import decode_tiled

CRF = 18  # x264's quality of what is written: visually close to the frames
FPS = 16  # sec 3.1: what a clip of 16 s is trained at


def load_dit(
    where: str, tae_mark: str | None = None, place: Place | None = None, half: bool = False
) -> tuple[DiT, dict[str, Any]]:
    """A transformer (averaged weights) and its checkpoint's meta.json.

    place: the ranks that share it, each of which reads its own part; None: this process, on the CPU. half: weights in
    bfloat16, read as such: 60 GB at 30b, and no more on the way.
    tae_mark: fingerprint of the TAE that its latents shall be decoded with. Raises CheckpointError, also where that
    is another one than the transformer was trained with.
    """
    found = checkpoints.open_checkpoint(where)
    checkpoints.require(found, "dit")
    if tae_mark is not None and found.meta.get("tae") != tae_mark:
        raise CheckpointError(
            f"{found.path} was trained on latents of another TAE ({found.meta.get('tae')}, not {tae_mark})."
        )
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in found.meta["config"].items()}
    dtype = torch.bfloat16 if half else torch.float32
    with torch.device("meta"):
        model = DiT(DiTConfig(**options)).to(dtype)
    if place is not None:
        parallelize(model, place, dtype)
    model.to_empty(device="cpu" if place is None else place.device)
    checkpoints.load_weights(found, model)
    return model.eval().requires_grad_(False), found.meta


@torch.no_grad()
def sample_video(
    dit: DiT,
    tae: TAE,
    encoders: TextEncoders,
    text: str,
    frames: int,
    height: int,
    width: int,
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    process: Process | None = None,
    fps: float | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    first: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 [frames, height, width, 3]: one video for one prompt.

    height, width: pixels, multiples of 16. fps: named in front of the prompt, as in training; None leaves it out.
    first: uint8 [1, height, width, 3], the frame that the video begins with (a DiT with options.first_frame).
    The noise depends on the seed and the shape alone. Raises ValueError on other sides.
    """
    step = max(SIDE_STEP, 2 * tae.space_factor)
    if height % step or width % step:
        raise ValueError(f"height and width must be multiples of {step}, not {height} x {width}")
    device = tae.latent_mean.device
    process = PROCESSES["flow"]() if process is None else process
    sides = tae.latent_frames(frames), height // tae.space_factor, width // tae.space_factor
    shape = (1, tae.config.latent_channels, *sides)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    features = encoders.encode([prompt(text, fps)])
    tokens = {name: found.tokens.to(device) for name, found in features.items()}
    mask = {name: found.mask.to(device) for name, found in features.items()}

    told: dict[str, Tensor] = {}
    if first is not None:
        if not dit.config.first_frame:
            raise ValueError("this transformer was not trained on first frames (options.first_frame)")
        told["first"] = tae.normalize(latent_of(tae, first))

    def predict(drop: bool) -> Callable[[Tensor, Tensor], Tensor]:
        dropped = torch.full((1,), drop, device=device)
        return lambda x, t: dit(x, t, tokens, mask, dropped, **told)

    half = next(dit.parameters()).dtype == torch.bfloat16
    velocity = guided(predict(False), predict(True), guidance)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        latent = sample(velocity, noise, process, process.times(steps), on_step)
        return to_frames(decode_tiled(tae, tae.denormalize(latent.float()), frames))


def to_frames(video: Tensor) -> np.ndarray:
    """[1, 3, T, H, W], about [-1, 1] -> uint8 [T, H, W, 3]."""
    pixels = ((video[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).cpu().numpy()


def write_mp4(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float = FPS) -> Path:
    """H.264 of uint8 frames [H, W, 3] with even sides; appears under its name once all of it is written."""
    import av

    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.tmp")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width, stream.pix_fmt = frame.shape[0], frame.shape[1], "yuv420p"
                stream.options = {"crf": str(CRF)}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
    os.replace(temporary, final)
    return final
