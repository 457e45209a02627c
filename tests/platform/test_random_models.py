"""At full size the image models are those that were published, down to the last weight."""

from types import SimpleNamespace

import pytest
import torch

from visionprefer.align.policy import Policy
from visionprefer.random_models import _unet


@pytest.mark.parametrize(
    ("size", "weights", "lora"),
    [("sd15", 859_520_964, 797_184), ("sd21", 865_910_724, 829_952), ("sdxl", 2_567_463_684, 5_806_080)],
)
def test_unets_have_the_published_weights_and_lora_of_rank_4_fits_them(size: str, weights: int, lora: int) -> None:
    """On the meta device, which has no memory."""
    with torch.device("meta"):
        unet = _unet(size)
        assert sum(weight.numel() for weight in unet.parameters()) == weights
        policy = Policy(SimpleNamespace(unet=unet), lora_rank=4)
    assert sum(weight.numel() for weight in policy.learnt) == lora
