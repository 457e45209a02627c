"""VP-Score: how well an image answers a prompt, overall and by aspect, and how far that can be trusted.

Shapes: N images with a prompt each, L tokens, D width of the backbone, S scores, the overall one first.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import softplus
from transformers import AutoConfig, AutoTokenizer

from visionprefer.buckets import brought_here
from visionprefer.devices import choose
from visionprefer.errors import InputError
from visionprefer.reward import CONFIG
from visionprefer.reward.backbones import Blip, Clip, backbone_of, load_backbone, load_processors
from visionprefer.reward.inputs import Inputs, InputSizes
from visionprefer.schema import ASPECTS, OVERALL, content_id

WEIGHTS, BACKBONE = "model.safetensors", "backbone"
MACKAY = math.pi / 8  # that share of a noise's variance flattens the sigmoid; see `loss.pairwise_loss`


class VPScoreConfig(BaseModel):
    """What a VP-Score folder says beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[str, ...] = Field(min_length=1)  # the overall one, then aspects
    inputs: InputSizes
    trained_on: dict[str, Any] = {}  # lineage: backbone, training table, recipe


class Scored(NamedTuple):
    """What VP-Score says of an image. Scores have mean 0 and standard deviation 1 over the images it was trained on."""

    score: float
    aspects: dict[str, float]
    uncertainty: float  # standard deviation of what the overall score cannot tell, in the score's own unit


class Scores(NamedTuple):
    """Raw scores of N images: not normalised."""

    values_NS: torch.Tensor
    variance_N: torch.Tensor  # of the noise in the overall score, times MACKAY


class Head(torch.nn.Module):
    """ImageReward's head: five linear layers without activations, each but the last two followed by dropout.

    At first weights are normal with 1 / (fan-in + 1) as standard deviation. That the fan-in is each layer's own is our
    choice: ImageReward's published code takes the width of the features for all layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (1024, 128, 64, 16, 1)
        drops = (0.2, 0.2, 0.1)
        layers: list[torch.nn.Module] = []
        for index, size in enumerate(sizes):
            layer = torch.nn.Linear(width, size)
            torch.nn.init.normal_(layer.weight, std=1 / (width + 1))
            torch.nn.init.zeros_(layer.bias)
            layers += [layer, torch.nn.Dropout(drops[index])] if index < len(drops) else [layer]
            width = size
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, features_ND: torch.Tensor) -> torch.Tensor:
        """One number for each row: [N]."""
        return self.layers(features_ND)[:, 0]


class VPScore(torch.nn.Module):
    """The reward model: a backbone, a head for each score, and one for the overall score's uncertainty.

    The uncertainty is aleatoric and learnt: σ of a Gaussian noise in the overall score, by which a preference is harder
    to foresee (see `loss.pairwise_loss`).

    References: VisionPrefer (arXiv 2404.15100) section 4; ImageReward (arXiv 2304.05977) section 3. Aspects and
    uncertainty are our own.
    """

    mean: torch.Tensor  # of the raw scores of the training images: [S]
    std: torch.Tensor

    def __init__(self, config: VPScoreConfig, backbone: Blip | Clip, backbone_config: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.backbone_config = backbone_config
        self.inputs = Inputs(config.inputs, tokenizer)
        self.digest: str | None = None  # of the folder it was loaded from
        self.backbone = backbone
        self.heads = torch.nn.ModuleList(Head(backbone.width) for _ in config.scores)
        self.doubt = torch.nn.Sequential(torch.nn.LayerNorm(backbone.width), torch.nn.Linear(backbone.width, 1))
        self.register_buffer("mean", torch.zeros(len(config.scores)))
        self.register_buffer("std", torch.ones(len(config.scores)))

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Scores:
        """Raw scores of images [N, 3, H, W] for prompts [N, L]."""
        features_ND = self.backbone(pixel_values, input_ids, attention_mask)
        values_NS = torch.stack([head(features_ND) for head in self.heads], dim=1)
        # What is doubted is no reason to see otherwise: the doubt reads the features and does not shape them.
        return Scores(values_NS, softplus(self.doubt(features_ND.detach())[:, 0] - 3))

    def normalised(self, scores: Scores) -> list[Scored]:
        """Scores as people get them: mean 0 and standard deviation 1 over the training images."""
        values_NS = (scores.values_NS.float() - self.mean) / self.std
        doubt_N = (scores.variance_N.float() / MACKAY).sqrt() / self.std[0]
        names = self.config.scores[1:]
        return [
            Scored(overall, dict(zip(names, aspects, strict=True)), doubt)
            for (overall, *aspects), doubt in zip(values_NS.tolist(), doubt_N.tolist(), strict=True)
        ]

    def preference(self, one: Scored, other: Scored) -> float:
        """The chance that the first of two images of a prompt is preferred, as `loss.pairwise_loss` has it."""
        unit = float(self.std[0])
        noise = 1 + MACKAY * unit**2 * (one.uncertainty**2 + other.uncertainty**2)
        return 1 / (1 + math.exp(-unit * (one.score - other.score) / math.sqrt(noise)))

    def score(self, prompts: Sequence[str], images: Sequence[Image.Image], batch_size: int = 32) -> list[Scored]:
        """Score each image for the prompt at the same place.

        Args:
            prompts: as many as images.
            images: any mode and size; they are scaled and cropped to a square.
            batch_size: images that share a forward pass.
        """
        if len(prompts) != len(images):
            raise ValueError(f"{len(prompts)} prompts and {len(images)} images: give one prompt for each image")
        found = []
        for start in range(0, len(images), batch_size):
            chosen = slice(start, start + batch_size)
            found += self.score_squares(prompts[chosen], self.inputs.squares(images[chosen]))
        return found

    @torch.inference_mode()
    def score_squares(self, prompts: Sequence[str], squares_NCHW: torch.Tensor | np.ndarray) -> list[Scored]:
        """Score images that are scaled and cropped already, as `squares.squares` does it, in one forward pass."""
        self.eval()
        given = (torch.as_tensor(squares_NCHW), *self.inputs.tokens(prompts))
        squares, ids, mask = (part.to(self.mean.device) for part in given)
        return self.normalised(self(self.inputs.normalised(squares), ids, mask))

    @classmethod
    def from_backbone(
        cls, location: str, revision: str | None = None, scores: tuple[str, ...] = (OVERALL, *ASPECTS), seed: int = 0
    ) -> Self:
        """A model that has learnt nothing yet: a trained backbone, and heads with random weights.

        Args:
            location: folder or hub id of a BLIP or CLIP.
            revision: of a hub id.
            scores: names of the scores, the overall one first.
            seed: of the heads.

        Raises:
            InputError: if there is no such backbone.
        """
        backbone, backbone_config = load_backbone(location, revision)
        tokenizer, image_processor = load_processors(location, revision)
        inputs = InputSizes(
            text_length=backbone.text_length,
            image_size=backbone_config.vision_config.image_size,
            image_mean=image_processor.image_mean,
            image_std=image_processor.image_std,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(VPScoreConfig(scores=scores, inputs=inputs), backbone, backbone_config, tokenizer)

    def save_pretrained(self, folder: Path) -> None:
        """Write the model into a folder: weights in safetensors, and what is needed to use them."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backbone_config.save_pretrained(folder / BACKBONE)
        self.inputs.tokenizer.save_pretrained(folder / BACKBONE)
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "auto") -> Self:
        """A model as `save_pretrained` left it, ready to score in float32.

        Args:
            folder: local or s3://, gs://.
            device: see `devices.choose`.

        Raises:
            InputError: if there is none in the folder, or a part is missing or broken, or the device is not there.
        """
        folder = brought_here(str(folder))
        try:
            written = (folder / CONFIG).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"no VP-Score at {folder}: {CONFIG} is not there. Write the folder of a trained one"
            ) from error
        try:
            config = VPScoreConfig.model_validate_json(written)
            backbone_config = AutoConfig.from_pretrained(folder / BACKBONE)
            tokenizer = AutoTokenizer.from_pretrained(folder / BACKBONE)
            model = cls(config, backbone_of(backbone_config), backbone_config, tokenizer)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (ValidationError, OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"the VP-Score at {folder} cannot be loaded: {error}") from error
        with (folder / WEIGHTS).open("rb") as file:
            model.digest = content_id(hashlib.file_digest(file, "sha256").hexdigest(), written)
        return model.to(choose(device, "float32", "float32")[0]).eval()
