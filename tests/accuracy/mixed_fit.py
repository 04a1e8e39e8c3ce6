"""The net of gradual/mixed.py, taught on windows of the fitting side (mixed_windows.py). Needs torch:

    python -m tests.accuracy.mixed_fit [FOLDER ...] [--footage FOLDER ...] [--rounds 3500] [--seed 4] [--file FILE]

FOLDER: films that scenes_made has made of the fitting side, of which an eighth of the windows is cut. It takes some
half an hour of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rushes.curation.gradual import finder, mixed
from rushes.curation.gradual.cells import CHANNELS, REACH, cells
from rushes.curation.video import decode
from tests.accuracy.mixed_footage import Footage
from tests.accuracy.mixed_windows import EITHER, LENGTH, Film, Windows, film
from tests.accuracy.scenes_fit import faster, seen
from tests.accuracy.scenes_made import told

CELL, WIDE = 24, 32  # channels
ROLLS, KEPT = 260, 4500  # rolls, and windows whose cells are kept
BATCH, FRESH = 24, 6  # windows of a round, and those of them that new ones take the place of
WINDOWS_A_ROLL = 20  # after so many windows one roll is another
RATE, DECAY, SURE = 4e-3, 1e-3, 0.98  # learning rate, weight decay, how sure the net is to be
AVERAGED = 0.997  # of the weights' running mean, which is what is kept
PLACES = np.arange(REACH, LENGTH - REACH, mixed.EVERY)  # pictures of a window that are looked at
SPEEDS = (1, 2)  # of the films


class Net(nn.Module):
    """float32 [b, n, CHANNELS, rows, columns] -> logits [b, n - 2 HEAD]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Conv2d(CHANNELS, CELL, 1)
        self.around = nn.Conv2d(CELL, CELL, 3, padding=1)
        self.cell_out = nn.Conv2d(CELL, WIDE, 1)
        self.time = nn.Conv1d(2 * WIDE, WIDE, mixed.TAPS)
        self.time_out = nn.Conv1d(WIDE, WIDE, mixed.TAPS)
        self.answer = nn.Conv1d(WIDE, 1, 1)

    def forward(self, told: torch.Tensor) -> torch.Tensor:
        inner = told.flatten(0, 1)
        for layer in (self.cell, self.around, self.cell_out):
            inner = functional.relu(layer(inner))
        looks = torch.cat([inner.mean((2, 3)), inner.amax((2, 3))], 1)
        over_time = looks.reshape(*told.shape[:2], -1).transpose(1, 2)
        for layer in (self.time, self.time_out):
            over_time = functional.relu(layer(over_time))
        return self.answer(over_time)[:, 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """What mixed.npz holds: weights [out, in] and biases [out]; of taps over time, the tap before the channel."""
        found = {}
        for name in mixed.ARRAYS:
            weight = getattr(self, name).weight.detach().numpy()
            weight = weight.transpose(0, 2, 1) if weight.ndim == 3 else weight
            found[name] = weight.reshape(len(weight), -1).astype(np.float16)
            found[f"{name}_bias"] = getattr(self, name).bias.detach().numpy().astype(np.float16)
        return found


def films(folders: list[Path]) -> list[Film]:
    made = [told(path) for folder in folders for path in sorted(folder.glob("fit-*.mp4"))]
    found = []
    for one, (luma, fps) in zip(made, seen(made), strict=True):
        step = finder.grid(fps)[0]
        for speed in SPEEDS:
            fast = film(luma[::speed], [faster(event, speed) for event in one.truth], step)
            found += [fast] if len(fast.luma) > LENGTH else []
    return found


class Kept:
    """Cells and labels of windows, some of which give way to new ones."""

    def __init__(self, windows: Windows, footage: Footage, rng: np.random.Generator) -> None:
        self._windows, self._footage, self._rng = windows, footage, rng
        self._drawn = 0
        self.labels = torch.empty(KEPT, len(PLACES))
        self.cells = torch.empty(KEPT, *self._told(0).shape, dtype=torch.float16)
        for place in range(KEPT):
            self.renew(place)

    def renew(self, place: int) -> None:
        self.cells[place] = self._told(place)
        self._drawn += 1
        if self._drawn % WINDOWS_A_ROLL == 0:
            rolls = self._windows.rolls
            rolls[self._rng.integers(len(rolls))] = self._footage.roll(self._rng)

    def _told(self, place: int) -> torch.Tensor:
        pictures, labels = self._windows.draw()
        self.labels[place] = torch.from_numpy(labels[PLACES].astype(np.float32))
        return torch.from_numpy(cells(pictures, PLACES)).half()


def taught(kept: Kept, rounds: int, rng: np.random.Generator, net: Net) -> Net:
    """The running mean of a net's weights over the rounds."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    mean = {name: value.clone() for name, value in net.state_dict().items()}
    losses = []
    for number in range(rounds):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, number / 60 + 0.02) * (1 + np.cos(np.pi * number / rounds)) / 2 + 2e-5
        chosen = rng.integers(KEPT, size=BATCH)
        labels = kept.labels[chosen, mixed.HEAD : -mixed.HEAD]
        counted = (labels != EITHER).float()
        wanted = labels.clamp(0, 1) * SURE + (1 - SURE) / 2
        each = functional.binary_cross_entropy_with_logits(net(kept.cells[chosen].float()), wanted, reduction="none")
        loss = (each * counted).sum() / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        keep = min(AVERAGED, number / (number + 10))
        for name, value in net.state_dict().items():
            mean[name].mul_(keep).add_(value, alpha=1 - keep)
        for place in chosen[:FRESH].tolist():
            kept.renew(place)
        losses.append(float(loss.detach()))
        if number % 200 == 199:
            print(f"{number + 1} rounds, loss {np.mean(losses[-200:]):.3f}", flush=True)
    net.load_state_dict(mean)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.mixed_fit", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="of films that scenes_made has made")
    parser.add_argument("--footage", type=Path, nargs="*", default=[], help="folders of videos that labels.csv knows")
    parser.add_argument("--rounds", type=int, default=3500)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--file", type=Path, default=mixed.MODEL, help="default: the one in the package")
    words = parser.parse_args()
    decode.quiet()
    torch.manual_seed(words.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(words.seed)
    footage = Footage(words.footage)
    windows = Windows([footage.roll(rng) for _ in range(ROLLS)], films(words.folders), rng)
    net = taught(Kept(windows, footage, rng), words.rounds, rng, Net())
    np.savez_compressed(words.file, **net.arrays())
    print(f"{words.file}: {sum(value.numel() for value in net.parameters())} weights")


if __name__ == "__main__":
    main()
