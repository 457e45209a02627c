"""How often images of one kind are preferred to those of another, with intervals."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.intervals import interval_of_pairs


class WinRate(BaseModel):
    """Comparisons of images that have a value with images of the same prompt that have another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | str
    comparisons: int
    wins: float  # a tie counts as half
    rate: float  # wins / comparisons
    low: float  # of the 95 % interval, prompts taken for independent
    high: float


def win_rates(preferences: pa.Table, images: pa.Table, column: str) -> list[WinRate]:
    """Win rate of each value that a column of the images has, against all its other values together.

    Columns in: of PREFERENCES prompt_id, image_id_0, image_id_1 and label, of one aspect; of PLAN or IMAGES image_id
    and `column`.

    Returns:
        The values that were compared, sorted. Pairs of equal value are no comparison, nor are those where one is null.
    """
    values = images[column].dictionary_encode().combine_chunks()
    value_N = values.indices.fill_null(-1).to_numpy()
    value_0, value_1 = (
        value_N[pc.index_in(preferences[name], images["image_id"]).to_numpy()] for name in ("image_id_0", "image_id_1")
    )
    compared = (value_0 != value_1) & (value_0 >= 0) & (value_1 >= 0)
    label = preferences["label"].to_numpy()[compared]
    prompt = preferences["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()[compared]
    value = np.concatenate([value_0[compared], value_1[compared]])
    wins, prompt = np.concatenate([label, 1 - label]), np.tile(prompt, 2)
    found = [
        _win_rate(name, wins[value == place], prompt[value == place])
        for place, name in enumerate(values.dictionary.to_pylist())
        if (value == place).any()
    ]
    return sorted(found, key=lambda rate: rate.value)


def _win_rate(value: float | str, wins_P: np.ndarray, prompt_P: np.ndarray) -> WinRate:
    low, high = interval_of_pairs(wins_P, prompt_P)
    return WinRate(value=value, comparisons=len(wins_P), wins=wins_P.sum(), rate=wins_P.mean(), low=low, high=high)
