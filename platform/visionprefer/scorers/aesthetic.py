"""LAION's aesthetic score: how much people would like a picture, whatever it was to show.

Shapes: N images, D width of CLIP's embedding.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import CLIPModel

from visionprefer import devices
from visionprefer.errors import InputError
from visionprefer.reward.checkpoint import file_digest, find_file, read_weights
from visionprefer.reward.inputs import Inputs
from visionprefer.reward.vpscore import Head
from visionprefer.schema import content_id
from visionprefer.scorers.clip import inputs_digest, read_clip, read_inputs

CLIP_L = "openai/clip-vit-large-patch14"  # whose embeddings the published predictors read


class AestheticScorer:
    """Five linear layers, no activations, on the image embedding of CLIP scaled to length 1: about 1 to 10."""

    name = "laion_aesthetic"  # the rubric has an aspect called aesthetic

    def __init__(self, judge: str, digest: str, head: Head, clip: CLIPModel, inputs: Inputs, device: str) -> None:
        self.judge, self.digest = judge, digest
        self.device, _ = devices.choose(device, "auto", on_gpu="float32")
        self.head, self.clip, self.inputs = head.to(self.device).eval(), clip.to(self.device).eval(), inputs
        self.batch_size = 32  # images that share a forward pass

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:  # noqa: ARG002
        """Score each image; the prompts do not matter."""
        found: list[float] = []
        for start in range(0, len(images), self.batch_size):
            squares = self.inputs.squares(images[start : start + self.batch_size])
            seen = self.clip.vision_model(pixel_values=self.inputs.normalised(squares).to(self.device))
            image_ND = normalize(self.clip.visual_projection(seen.pooler_output))
            found += self.head(image_ND).tolist()
        return found


def load_aesthetic(location: str, clip: str | None = None, device: str = "auto") -> AestheticScorer:
    """A predictor of christophschuhmann/improved-aesthetic-predictor.

    Args:
        location: sac+logos+ava1-l14-linearMSE.pth, or the same in safetensors; a file, or OWNER/NAME/FILE of the hub.
        clip: folder or hub id of the CLIP whose embeddings it reads; default: `CLIP_L`.
        device: "auto", "cpu" or "cuda".

    References: LAION-5B (arXiv 2210.08402) section 6; github.com/christophschuhmann/improved-aesthetic-predictor.

    Raises:
        InputError: if the file is no such predictor, or of another width than the CLIP.
    """
    file = find_file(location)
    model, about = read_clip(clip or CLIP_L)
    width = model.config.projection_dim
    head = Head(width)
    try:
        head.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise InputError(
            f"{file} is no LAION aesthetic predictor on embeddings of width {width}: {error}. "
            f"Write sac+logos+ava1-l14-linearMSE.pth and, beside it, {CLIP_L}"
        ) from error
    inputs = read_inputs(clip or CLIP_L, model.config)
    digest = content_id(file_digest(file), about.digest, inputs_digest(inputs))
    return AestheticScorer(f"{file.stem} on {about.label}", digest, head, model, inputs, device)
