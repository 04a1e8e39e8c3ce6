"""Motion: how much moves, how, and whether it is real (Movie Gen sec 3.2.1, app B.1)."""

from rushes.curation.motion.meter import MotionMeter

__all__ = ["MotionMeter"]
