"""ImageReward as a scorer. Its checkpoints are loaded by `reward.imagereward`."""

from collections.abc import Sequence

from PIL import Image
from transformers import AutoTokenizer

from visionprefer import devices
from visionprefer.errors import InputError
from visionprefer.reward.checkpoint import file_digest, find_file
from visionprefer.reward.imagereward import load_imagereward as load_checkpoint
from visionprefer.reward.vpscore import VPScore
from visionprefer.schema import content_id
from visionprefer.scorers.clip import inputs_digest

BERT = "google-bert/bert-base-uncased"  # whose tokenizer ImageReward's checkpoints do not hold


class ImageRewardScorer:
    """ImageReward's score, mean 0 and standard deviation 1 over its own training images."""

    name = "imagereward"

    def __init__(self, judge: str, digest: str, model: VPScore) -> None:
        self.judge, self.digest, self.model = judge, digest, model

    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Score each image for the prompt at the same place."""
        return [one.score for one in self.model.score(prompts, images)]


def load_imagereward(location: str, tokenizer: str | None = None, device: str = "auto") -> ImageRewardScorer:
    """Load a checkpoint in ImageReward's layout.

    Args:
        location: ImageReward.pt, or the same in safetensors; a file, or zai-org/ImageReward/ImageReward.pt of the hub.
        tokenizer: folder or hub id of BERT's; default: `BERT`.
        device: "auto", "cpu" or "cuda".

    References: ImageReward (arXiv 2304.05977).

    Raises:
        InputError: if the file is no such checkpoint, or there is no tokenizer.
    """
    file = find_file(location)
    try:
        words = AutoTokenizer.from_pretrained(tokenizer or BERT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"scorer: {tokenizer or BERT!r} has no tokenizer that can be loaded: {error}. "
            f"Write the folder or hub id of BERT ({BERT})"
        ) from error
    chosen, _ = devices.choose(device, "auto", on_gpu="float32")
    model = load_checkpoint(file, words).to(chosen)
    return ImageRewardScorer(file.stem, content_id(file_digest(file), inputs_digest(model.inputs)), model)
