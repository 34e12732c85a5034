"""Corruptions for text+audio+vision batches: seeded per sample, nested in severity, the same for every model.

>>> import numpy as np
>>> from corruptions import Batch, corrupt
>>> batch = Batch(text=np.ones((4, 6, 3)), audio=np.ones((4, 5, 2)), vision=np.ones((4, 5, 2)))
>>> dropped = corrupt(batch, stress="missing", severity="0.4", seed=1111)
>>> bool(dropped.present.any(1).all())  # at least one modality stays
True
"""

from corruptions.augment import Augment, SpectrumAugment
from corruptions.batch import LETTERS, MODALITIES, Batch, Derived
from corruptions.draws import Draws, GeneratorDraws
from corruptions.errors import InputError
from corruptions.grid import Grid, Point
from corruptions.measure import input_digest, realised
from corruptions.protocols import Protocol
from corruptions.reference import Reference
from corruptions.registry import STRESSORS, Stress, corrupt, stream
from corruptions.stressor import Stressor

__all__ = [
    "LETTERS",
    "MODALITIES",
    "STRESSORS",
    "Augment",
    "Batch",
    "Derived",
    "Draws",
    "GeneratorDraws",
    "Grid",
    "InputError",
    "Point",
    "Protocol",
    "Reference",
    "SpectrumAugment",
    "Stress",
    "Stressor",
    "corrupt",
    "input_digest",
    "realised",
    "stream",
]
