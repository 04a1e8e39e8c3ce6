"""Videos of any length and size through an autoencoder in tiles: memory that does not grow with them.

Time (Movie Gen sec 3.1.1): the encoder takes 32 frames without overlap; the decoder 4 latents, neighbours share 2 and
are blended linearly. Space: sides above `SIDE_MOST` are cut into tiles that overlap and are blended likewise, so that
no tensor inside has more than 2^31 numbers (32 frames of 1024x576 have 2.4e9 at 128 channels, which kernels with
32-bit indices do not take).

Any autoencoder with `encode(video)`, `decode(latent, frames)`, `config.latent_channels` and `latent_mean` will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rushes.model.tae import Posterior
from rushes.model.tae_config import SPACE_FACTOR, TIME_FACTOR, check_frames

TILE_FRAMES, TILE_LATENTS, OVERLAP_LATENTS = 32, 4, 2  # sec 3.1.1: 32 raw / 4 latent, decoder overlap 16 / 2
SIDE_MOST = 80  # latents of a tile's side: 640 pixels; 32 x 128 x 640^2 = 1.7e9
SIDE_OVERLAP = 16  # latents that neighbours share: 128 pixels

Spans = list[tuple[int, int]]


@torch.no_grad()
def encode_tiled(tae: torch.nn.Module, video: Tensor, tile: int = TILE_FRAMES, side: int = SIDE_MOST) -> Posterior:
    """`encode` in tiles of `tile` frames without overlap; the video may stay on the CPU, tiles move one by one.

    Equal to `encode` to 1e-5 while time is an identity (step 0) and the picture is one tile. Later, tile edges see
    repeated frames in place of their neighbours, and attention is bounded by the tile: tests hold the deviation of a
    model with disturbed temporal weights to 0.2 of the latent's standard deviation (RMS), and `decode_tiled`'s to 0.05.
    side: latents of a tile's side at most. Raises ValueError on a tile that is no multiple of 8 frames.
    """
    if tile < TIME_FACTOR or tile % TIME_FACTOR:
        raise ValueError(f"a tile must be a multiple of {TIME_FACTOR} frames, not {tile}")
    device = tae.latent_mean.device
    if tae.own_tiles:
        return tae.encode(video.to(device))

    def both(part: Tensor) -> Tensor:
        found = tae.encode(part.to(device))
        return torch.cat([found.mean, found.logvar], 1)

    parts = [
        _in_space(both, part, SPACE_FACTOR, 1, side, min(SIDE_OVERLAP, side // 2)) for part in video.split(tile, dim=2)
    ]
    return Posterior(*torch.cat(parts, 2).chunk(2, dim=1))


@torch.no_grad()
def decode_tiles(
    tae: torch.nn.Module,
    latent: Tensor,
    frames: int | None = None,
    tile: int = TILE_LATENTS,
    overlap: int = OVERLAP_LATENTS,
    side: int = SIDE_MOST,
) -> Iterator[Tensor]:
    """`decode` in tiles of `tile` latents; neighbours share `overlap` of them and are blended linearly.

    Yields [B, 3, n, H, W] chunks in order as they are final, so a writer holds one tile at any length.
    Raises ValueError unless 0 <= overlap <= tile / 2.
    """
    if not 0 <= 2 * overlap <= tile:
        raise ValueError(f"the overlap must be at most half a tile, not {overlap} of {tile}")
    total, frames = latent.shape[2], check_frames(latent, frames)
    device, shared = tae.latent_mean.device, overlap * TIME_FACTOR
    tail = None
    for start in range(0, max(total - overlap, 1), tile - overlap):
        part = latent[:, :, start : start + tile]
        last = start + tile >= total
        length = frames - start * TIME_FACTOR if last else None
        chunk = _in_space(
            lambda z, n=length: tae.decode(z.to(device), n), part, 1, SPACE_FACTOR, side, min(SIDE_OVERLAP, side // 2)
        )
        if tail is not None:
            joined = torch.lerp(tail, chunk[:, :, :shared], _ramp(shared, 2, chunk))
            chunk = torch.cat([joined, chunk[:, :, shared:]], dim=2)
        if not last and shared:
            chunk, tail = chunk[:, :, :-shared], chunk[:, :, -shared:]
        yield chunk


def decode_tiled(
    tae: torch.nn.Module,
    latent: Tensor,
    frames: int | None = None,
    tile: int = TILE_LATENTS,
    overlap: int = OVERLAP_LATENTS,
    side: int = SIDE_MOST,
) -> Tensor:
    """All of `decode_tiles` in one tensor [B, 3, frames, H, W]."""
    if tae.own_tiles:
        return tae.decode(latent.to(tae.latent_mean.device), frames)
    return torch.cat(list(decode_tiles(tae, latent, frames, tile, overlap, side)), dim=2)


def spans(length: int, most: int, overlap: int) -> Spans:
    """[start, stop) of the fewest tiles of one size, at most `most`, that cover `length` and share >= `overlap`."""
    if length <= most:
        return [(0, length)]
    count = -(-(length - overlap) // (most - overlap))
    return [(start, start + most) for start in (round(i * (length - most) / (count - 1)) for i in range(count))]


def _in_space(run: Callable[[Tensor], Tensor], x: Tensor, inward: int, outward: int, most: int, overlap: int) -> Tensor:
    """`run` on tiles of x [B, C, T, H, W], blended. A latent is `inward` places of x and `outward` of the answer."""
    rows, columns = (spans(length // inward, most, overlap) for length in x.shape[3:])

    def row(top: int, bottom: int) -> Tensor:
        tiles = [
            run(x[:, :, :, top * inward : bottom * inward, left * inward : right * inward]) for left, right in columns
        ]
        return _blend(tiles, columns, outward, 4)

    return _blend([row(*span) for span in rows], rows, outward, 3)


def _blend(tiles: list[Tensor], places: Spans, scale: int, dim: int) -> Tensor:
    """Tiles side by side along `dim`; what neighbours share goes linearly from one to the other."""
    whole = tiles[0]
    for tile, (start, _) in zip(tiles[1:], places[1:]):
        shared = whole.shape[dim] - start * scale
        seam = whole.narrow(dim, whole.shape[dim] - shared, shared)
        joined = torch.lerp(seam, tile.narrow(dim, 0, shared), _ramp(shared, dim, tile))
        rest = tile.narrow(dim, shared, tile.shape[dim] - shared)
        whole = torch.cat([whole.narrow(dim, 0, start * scale), joined, rest], dim)
    return whole


def _ramp(length: int, dim: int, like: Tensor) -> Tensor:
    """Weights of the second of two tiles over what they share, along `dim` of five."""
    shape = [1] * like.ndim
    shape[dim] = length
    return (torch.arange(1, length + 1, device=like.device, dtype=like.dtype) / (length + 1)).view(shape)
