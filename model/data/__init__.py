"""What a training reads, in four parts: draws (numbers), table (rows), plan (which rows when), loader (batches)."""

from rushes.model.data.draws import mix, permute, unit
from rushes.model.data.loader import Batch, EncodedSample, Loader, Sample, frames_of, sample_times
from rushes.model.data.plan import Bucket, DataOptions, Plan
from rushes.model.data.table import SIDE_STEP, Clip, ClipTable, DataError, Shape

__all__ = [
    "SIDE_STEP", "Batch", "Bucket", "Clip", "ClipTable", "DataError", "DataOptions", "EncodedSample", "Loader", "Plan",
    "Sample", "Shape", "frames_of", "mix", "permute", "sample_times", "unit",
]  # fmt: skip
