"""Prompts of a step as the tensors that a reward model learns from.

Shapes: N images, P pairs of one score.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from visionprefer.reward.inputs import Inputs
from visionprefer.reward.loss import Pairs
from visionprefer.reward.recipe import RewardRecipe


class Batch(NamedTuple):
    """Images with their prompts, and which of them was preferred."""

    squares: torch.Tensor  # uint8 [N, 3, size, size]
    input_ids: torch.Tensor  # int64 [N, L]
    attention_mask: torch.Tensor
    pairs: Pairs

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        squares, ids, mask = (part.to(device, non_blocking=True) for part in self[:3])
        return Batch(squares, ids, mask, {place: pairs.to(device) for place, pairs in self.pairs.items()})


def assembled(prompts: pa.Table, inputs: Inputs, recipe: RewardRecipe) -> Batch:
    """Prompts as one batch, each image in it once. Columns in: PREPARED."""
    size = inputs.sizes.image_size
    squares, first = [], 0
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in prompts.select(["images", "pairs"]).to_pylist():
        for pair in row["pairs"]:
            place = recipe.scores.index(pair["aspect"])
            pairs[place].append((first + pair["chosen"], first + pair["rejected"]))
        first += row["images"]
    for cell in prompts["pixels"]:
        squares.append(np.frombuffer(cell.as_buffer(), np.uint8).reshape(-1, 3, size, size))
    times = torch.tensor(prompts["images"].to_pylist())
    ids, mask = (part.repeat_interleave(times, dim=0) for part in inputs.tokens(prompts["prompt"].to_pylist()))
    indices = {place: torch.tensor(found) for place, found in sorted(pairs.items())}
    return Batch(torch.from_numpy(np.concatenate(squares)), ids, mask, indices)
