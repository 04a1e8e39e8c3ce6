"""What a GPU can: its peak, and which of attention's back ends it is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Dense bfloat16, FLOP/s, of the vendor's data sheets.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 peak of the GPU, FLOP/s, from the vendor's data sheets; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)


@contextmanager
def attention_order(device: torch.device) -> Iterator[None]:
    """On CUDA, attention's back ends in the order in which they are tried: each takes the inputs that it can.

    FlashAttention 3 where it is installed, cuDNN, flash, then the memory-efficient one, which takes masks, and plain
    matrix products.
    """
    if device.type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    fast = fast[::-1] if _flash_3() else fast
    with sdpa_kernel([*fast, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
        yield


def _flash_3() -> bool:
    """Whether torch's flash attention is FlashAttention 3: a package that is installed beside it, for Hopper GPUs."""
    from torch.nn.attention import activate_flash_attention_impl, list_flash_attention_impls

    if "FA3" not in list_flash_attention_impls() or torch.cuda.get_device_capability()[0] != 9:
        return False
    try:
        activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError):
        return False
    return True
