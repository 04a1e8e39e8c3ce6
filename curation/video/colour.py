"""Colours as people see them: the matrix where a file names none, and high dynamic range brought to the standard one.

Clips, stills and models know eight bits of BT.709. Footage of phones and cameras often is HLG or PQ: read as if it were
BT.709 it is grey and pale. Diffuse white becomes white, what is lighter is rolled off.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

HD_WIDTH, SD_HEIGHT = 1280, 576  # from where on a video that names no colour matrix is BT.709 (mpv's rule)
UNNAMED = 2  # AVCOL_SPC_UNSPECIFIED, AVCOL_PRI_UNSPECIFIED
#: By AVCOL_TRC_*: the perceptual quantiser (SMPTE ST 2084) and hybrid log-gamma (BT.2100).
PQ, HLG = "pq", "hlg"
TRANSFERS = {16: PQ, 18: HLG}
WHITE_NITS = 203.0  # of diffuse white (ITU-R BT.2408)
KNEE = 0.6  # of white: what is darker stays as it is, what is lighter is rolled off (FFmpeg's tonemap=mobius)
PEAK = {PQ: 10000 / WHITE_NITS, HLG: 1000 / WHITE_NITS}  # of white
GAMMA = 2.4  # of a screen (BT.1886)
#: BT.2020's red, green and blue in those of BT.709 (ITU-R BT.2407).
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


def colour_space(frame: av.VideoFrame) -> Any:
    """None where the frame names its matrix; otherwise what players take: BT.709 for HD, BT.601 below."""
    if int(frame.colorspace) != UNNAMED:
        return None
    return Colorspace.ITU709 if is_hd(frame.width, frame.height) else Colorspace.ITU601


def is_hd(width: int, height: int) -> bool:
    return width >= HD_WIDTH or height > SD_HEIGHT


def missing_tag(stream: av.VideoStream) -> str | None:
    """FFmpeg's name of the matrix that a stream is read with and does not name; None where it names one.

    A smaller copy of it needs the name: its own size says another matrix.
    """
    context = stream.codec_context
    if int(context.colorspace) != UNNAMED:
        return None
    return "bt709" if is_hd(context.width, context.height) else "smpte170m"


def hdr(transfer: int) -> str | None:
    """PQ or HLG, of an AVCOL_TRC_* number; None for all others."""
    return TRANSFERS.get(int(transfer))


def to_bgr(frame: av.VideoFrame, reformatter: VideoReformatter, width: int, height: int, way: str) -> np.ndarray:
    """uint8 BGR [height, width, 3] of a frame in BT.709, scaled in the given way ("AREA", "BILINEAR")."""
    high = hdr(frame.color_trc)
    if high is None:
        space = colour_space(frame)
        return reformatter.reformat(frame, width, height, "bgr24", space, space, way, threads=1).to_ndarray()
    space = Colorspace.BT2020 if int(frame.colorspace) == UNNAMED else None
    wide = reformatter.reformat(frame, width, height, "rgb48le", space, space, way, threads=1).to_ndarray()
    return _standard(wide, high)


def sdr_filters(transfer: str, matrix_named: bool, primaries_named: bool) -> list[tuple[str, dict[str, Any]]]:
    """FFmpeg's filters, (name, options), that do what `to_bgr` does. transfer: PQ or HLG."""
    named = {"colorspace": matrix_named, "color_primaries": primaries_named}
    missing = {key: "bt2020nc" if key == "colorspace" else "bt2020" for key, known in named.items() if not known}
    return [
        *([("setparams", missing)] if missing else []),
        ("zscale", {"transfer": "linear", "npl": WHITE_NITS}),
        ("format", {"pix_fmts": "gbrpf32le"}),
        ("zscale", {"primaries": "bt709"}),
        ("tonemap", {"tonemap": "mobius", "param": KNEE, "desat": 0, "peak": PEAK[transfer]}),
        ("zscale", {"transfer": "bt709", "matrix": "bt709", "range": "tv"}),
    ]


def _standard(rgb: np.ndarray, transfer: str) -> np.ndarray:
    """uint8 BGR in BT.709 of uint16 RGB [h, w, 3] in BT.2020 with this transfer."""
    light = cv2.transform(_light(transfer)[rgb], TO_709)
    if transfer == HLG:  # the scene's light becomes the screen's (BT.2100): by the luminance, gamma 1.2 at 1000 cd/m2
        luminance = np.maximum(light @ np.float32([0.2126, 0.7152, 0.0722]), 0)
        light *= PEAK[HLG] * luminance[..., None] ** 0.2
    highest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    light *= _rolled_off(highest, PEAK[transfer]) / highest
    return cv2.convertScaleAbs(np.clip(light, 0, 1)[..., ::-1] ** (1 / GAMMA), alpha=255)


def _rolled_off(light: np.ndarray, peak: float) -> np.ndarray:
    """Moebius' curve from KNEE on, which reaches 1 at `peak`."""
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    curve = (b * b + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= KNEE, light, curve)


@cache
def _light(transfer: str) -> np.ndarray:
    """float32 [65536]: linear light of a coded value; PQ's in multiples of diffuse white, HLG's 0-1 of the scene."""
    coded = np.arange(65536) / 65535
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12).astype(np.float32)
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = coded ** (1 / m2)
    return (10000 / WHITE_NITS * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)).astype(np.float32)
