"""Prompts become images: any diffusers text-to-image pipeline, planned rows in, image rows out."""

import inspect
import io
import logging
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from visionprefer import devices
from visionprefer.errors import InputError, missing_extra
from visionprefer.models import Model
from visionprefer.recipe import ImageSettings
from visionprefer.schema import FAILED_IMAGES, IMAGES, content_id

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]

EMBEDDINGS = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class GenerateImages:
    """A stage: one image for each planned row.

    Each image has a generator of its own, seeded by its id, and every batch has the planned shape, so that an image's
    bytes depend neither on what shares its batch nor on which actor makes it.

    Columns in: PLAN. Columns out: IMAGES for rows done, FAILED_IMAGES for rows failed; each planned row is in one.

    References: noise on the prompt embedding is AGFSync (arXiv 2403.13352) Eq. 1.
    """

    def __init__(self, settings: ImageSettings, models: list[Model]) -> None:
        self.settings = settings
        self.models = {model.digest: model for model in models}
        self.device, self.dtype = devices.choose(settings.device, settings.dtype, on_gpu="float16")
        self._loaded: tuple[str, Any] | None = None  # one pipeline at a time: blocks come sorted by model

    def __call__(self, plan: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Make the images of some rows of the plan."""
        done: list[Row] = []
        failed: list[Row] = []
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in plan.to_pylist():
            groups[row["model_digest"], row["guidance_scale"], row["num_inference_steps"]].append(row)
        for (digest, *_), rows in groups.items():
            pipeline = self._pipeline(digest)
            for start in range(0, len(rows), self.settings.batch_size):
                self._make(pipeline, rows[start : start + self.settings.batch_size], done, failed)
        return pa.Table.from_pylist(done, schema=IMAGES), pa.Table.from_pylist(failed, schema=FAILED_IMAGES)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return f"images are generated in {str(self.dtype).removeprefix('torch.')} on {self.device}"

    def _pipeline(self, digest: str) -> Any:
        if self._loaded is None or self._loaded[0] != digest:
            self._loaded = None  # frees the memory of the one before
            model = self.models[digest]
            pipeline = load_pipeline(model, self.device, self.dtype)
            if self.settings.prompt_embedding_noise and not embeddings_of(pipeline):
                raise InputError(
                    f"images.prompt_embedding_noise is {self.settings.prompt_embedding_noise}, and {model.name!r} is a "
                    f"{type(pipeline).__name__}, which takes other embeddings than Stable Diffusion. Write 0"
                )
            self._loaded = (digest, pipeline)
        return self._loaded[1]

    def _make(self, pipeline: Any, rows: list[Row], done: list[Row], failed: list[Row]) -> None:
        """Make one batch. If it raises, each of its rows is tried alone, so that only the culprit fails."""
        try:
            pixels, unsafe = self._denoise(pipeline, rows)
        except Exception as error:  # any library below may raise anything; the reason becomes a row
            if _is_out_of_memory(error):
                raise InputError(self._smaller_batches()) from error
            if len(rows) > 1:
                for row in rows:
                    self._make(pipeline, [row], done, failed)
            else:
                failed.append(rows[0] | {"error": f"{type(error).__name__}: {error}"})
            return
        sound = []
        for row, image, flagged in zip(rows, pixels, unsafe, strict=True):
            reason = _flaw(image, flagged)
            if reason:
                failed.append(row | {"error": reason})
            else:
                sound.append((row, image, flagged))
        with ThreadPoolExecutor() as threads:  # compressing 512² pixels takes a tenth as long as drawing them
            done.extend(threads.map(lambda each: self._finished(*each), sound))

    def _smaller_batches(self) -> str:
        size = self.settings.batch_size
        smaller = f"images.batch_size={size // 2}" if size > 1 else "a smaller images.height and images.width"
        return (
            f"images.batch_size is {size}, and {self.device} has too little memory for it. Write {smaller} and another "
            "--out, since that makes other images; or go on here with more memory"
        )

    def _denoise(self, pipeline: Any, rows: list[Row]) -> tuple[np.ndarray, list[bool | None]]:
        """Pixels (len(rows), height, width, 3) in 0 to 1, and the safety checker's word on each."""
        import torch

        padded = rows + [rows[-1]] * (self.settings.batch_size - len(rows))
        generators = [torch.Generator("cpu").manual_seed(row["seed"]) for row in padded]
        with torch.inference_mode():
            output = pipeline(
                **self._condition(pipeline, padded),
                guidance_scale=rows[0]["guidance_scale"],
                num_inference_steps=rows[0]["num_inference_steps"],
                height=self.settings.height,
                width=self.settings.width,
                generator=generators,
                output_type="np",
            )
        flags = getattr(output, "nsfw_content_detected", None) or [None] * len(padded)
        return output.images[: len(rows)], list(flags)[: len(rows)]

    def _condition(self, pipeline: Any, rows: list[Row]) -> dict[str, Any]:
        """The prompts or, where noise is planned, their perturbed embeddings."""
        prompts = [row["prompt"] for row in rows]
        negative = None
        if self.settings.negative_prompt is not None:
            negative = [self.settings.negative_prompt] * len(rows)
        if not self.settings.prompt_embedding_noise:
            return {"prompt": prompts, "negative_prompt": negative}
        encoded = pipeline.encode_prompt(
            prompt=prompts,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=rows[0]["guidance_scale"] > 1,
            negative_prompt=negative,
        )
        condition = dict(zip(embeddings_of(pipeline), encoded, strict=True))
        condition["prompt_embeds"] = _perturbed(condition["prompt_embeds"], rows)
        return condition

    def _finished(self, row: Row, pixels: np.ndarray, unsafe: bool | None) -> Row:
        image = Image.fromarray((pixels * 255).round().astype("uint8"))
        buffer = io.BytesIO()
        image.save(buffer, self.settings.format, lossless=True)
        return row | {
            "width": image.width,
            "height": image.height,
            "unsafe": None if unsafe is None else bool(unsafe),
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "image": {"bytes": buffer.getvalue(), "path": f"{row['image_id']}.{self.settings.format}"},
        }


def load_pipeline(model: Model, device: "torch.device", dtype: "torch.dtype") -> Any:
    """Load a diffusers pipeline, ready to generate; LoRA weights are added to those of their base.

    Raises:
        InputError: if diffusers cannot load it, with diffusers' reason.
    """
    try:
        import diffusers
        import torch
        import transformers
    except ImportError as error:
        raise missing_extra("diffusers", "local") from error

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if model.base:
        pipeline = load_pipeline(model.base, device, dtype)
        pipeline.load_lora_weights(model.location)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        return pipeline
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            model.location, revision=model.revision, variant=model.variant, dtype=dtype
        )
    except Exception as error:  # loaders raise errors of every kind
        raise InputError(f"model {model.name!r} cannot be loaded as a diffusers pipeline: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # bfloat16 on a CPU is thirty times slower without, a GPU a little
    return pipeline


def embeddings_of(pipeline: Any) -> list[str]:
    """What `encode_prompt` returns, in order, if that is as in Stable Diffusion (2) or its XL (4); else empty."""
    encode = inspect.signature(getattr(pipeline, "encode_prompt", lambda: None)).parameters
    needed = {name for name, parameter in encode.items() if parameter.default is parameter.empty}
    given = {"prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance", "negative_prompt"}
    if not needed <= given <= encode.keys():
        return []
    taken = {
        name for name in inspect.signature(pipeline.__call__).parameters if re.search(r"prompt_(embeds|att)", name)
    }
    return next((names for names in (EMBEDDINGS[:2], EMBEDDINGS) if taken == set(names)), [])


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | RuntimeError) and any(sign in str(error).lower() for sign in OUT_OF_MEMORY)


def _perturbed(embedding_BLD: "torch.Tensor", rows: list[Row]) -> "torch.Tensor":
    """c + σn (AGFSync Eq. 1), n drawn for each image by its id."""
    import torch

    noise = torch.stack(
        [
            row["prompt_embedding_noise"]
            * torch.randn(
                embedding_BLD.shape[1:],
                generator=torch.Generator("cpu").manual_seed(int(content_id("noise", row["image_id"])[:16], 16) >> 1),
            )
            for row in rows
        ]
    )
    return embedding_BLD + noise.to(embedding_BLD)


def _flaw(pixels: np.ndarray, unsafe: bool | None) -> str | None:
    """Why an image cannot be used; None if it can."""
    if not np.isfinite(pixels).all():
        return f"the model returned NaN or infinity in {np.count_nonzero(~np.isfinite(pixels))} of {pixels.size} values"
    if pixels.max() == 0:
        return "withheld by the pipeline's safety checker" if unsafe else "the model returned a black image"
    return None
