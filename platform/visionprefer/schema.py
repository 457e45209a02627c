"""The tables as Arrow schemas, and ids from content.

Paid for (GPU hours or money; written once, never rewritten): plan, images, replies.
Derived (pure functions of the above, rebuilt whole): judgements, preferences, training, oracle.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa

ASPECTS = ("prompt_following", "aesthetic", "fidelity", "harmlessness")
OVERALL = "overall"

# Hugging Face's image struct: `datasets` decodes it when the schema says so in its metadata.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def content_id(*parts: Any) -> str:
    """128 bits of the SHA-256 of the parts as canonical JSON, in hex: equal parts, equal id, on any machine."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def uniform(*parts: Any) -> float:
    """A number in [0, 1) drawn by hash, so that it depends on the parts and not on how many were drawn before."""
    return int(content_id(*parts)[:13], 16) / 16**13


def _hugging_face(schema: pa.Schema, features: dict[str, Any]) -> pa.Schema:
    """The schema with `datasets` features for the columns that hold images; the others it infers by itself."""
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def with_features(schema: pa.Schema) -> pa.Schema:
    """The schema with the metadata by which `datasets.load_dataset` decodes its image columns."""
    return _hugging_face(schema, {field.name: _feature(field.type) for field in schema})


PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),  # hash of the cleaned text
        ("prompt", pa.string()),
        ("split", pa.string()),  # "train" or "held_out", drawn by hash of the prompt
        ("source", pa.string()),  # file and line or row it was read from
    ]
)

REJECTED_PROMPTS = pa.schema([("prompt", pa.string()), ("source", pa.string()), ("reason", pa.string())])

_ASKED = [
    ("raw", pa.string()),  # the reply to the last asking, as it came
    ("asked", pa.int32()),  # how often this request was asked: 1, or 2 when the first reply was unusable
    ("prompt_tokens", pa.int64()),  # summed over the askings of the row's generation
    ("completion_tokens", pa.int64()),
    ("cost", pa.float64()),  # in the currency of the recipe's prices; null where nothing is charged
    ("error", pa.string()),  # null in replies that can be used
]

REPLIES_TO_PROMPTS = pa.schema(
    [
        ("request_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),  # before it is polished
        ("source", pa.string()),
        ("polisher", pa.string()),  # the model as the recipe names it
        ("polisher_digest", pa.string()),  # model digest and every setting that an answer depends on
        *_ASKED,
    ]
)

POLISHED = pa.schema(
    [
        ("prompt", pa.string()),  # as it is now
        ("before", pa.string()),
        ("changed", pa.bool_()),
        ("problems", pa.list_(pa.string())),  # those found: bias, inconsistency, unsafe
        ("rationale", pa.string()),
        ("source", pa.string()),  # file and line or row it was read from
        ("prompt_id", pa.string()),  # hash of the text as it is now
        ("request_id", pa.string()),  # the reply it was read from
    ]
)

PLAN = pa.schema(
    [
        ("image_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("split", pa.string()),
        ("candidate", pa.int32()),  # 0 … images_per_prompt − 1; times the models, where every model makes all
        ("seed", pa.int64()),  # 0 … 2⁶³ − 1, by hash; null for images that existed already
        ("model", pa.string()),  # as the recipe names it; null for images that existed already
        ("model_digest", pa.string()),
        ("guidance_scale", pa.float64()),
        ("num_inference_steps", pa.int32()),
        ("negative_prompt", pa.string()),
        ("batch_size", pa.int32()),  # images that share a denoising pass; short batches are padded to it
        ("prompt_embedding_noise", pa.float64()),  # σ of the noise on the prompt embedding (AGFSync Eq. 1)
        ("source", pa.string()),  # where an image that existed already lies; null for those to generate
        ("block", pa.int32()),  # images of one block are made, committed and, after a crash, redone together
    ]
)

IMAGES = with_features(
    pa.schema(
        [
            *[field for field in PLAN if field.name != "block"],
            ("width", pa.int32()),  # pixels
            ("height", pa.int32()),
            ("unsafe", pa.bool_()),  # the pipeline's safety checker's word; null where it has none
            ("device", pa.string()),
            ("dtype", pa.string()),
            ("image", IMAGE),
        ]
    )
)

FAILED_IMAGES = pa.schema([*[field for field in PLAN if field.name != "block"], ("error", pa.string())])

REPLIES = pa.schema(
    [
        ("request_id", pa.string()),
        ("image_ids", pa.list_(pa.string())),  # in the order shown: one, or all of a prompt
        ("prompt_id", pa.string()),
        ("judge", pa.string()),  # the model as the recipe names it
        ("judge_digest", pa.string()),  # model digest and every setting that an answer depends on
        ("rubric_digest", pa.string()),
        ("mode", pa.string()),  # "single": one image a request; "joint": all of a prompt
        ("repeat", pa.int32()),  # 0 for the first time these images are shown in this order
        *_ASKED,
    ]
)

JUDGEMENTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("prompt_id", pa.string()),
        ("scorer", pa.string()),  # an aspect of the judge, a CLIP score, a VQA score …
        ("score", pa.float64()),
        ("rank", pa.int32()),  # among the images shown together, 1 the best; null where none were
        ("rationale", pa.string()),  # null where the scorer gives none; in joint mode about all images
        ("judge", pa.string()),
        ("repeat", pa.int32()),  # of the request
        ("position", pa.int32()),  # of the image in the request, from 0
        ("request_id", pa.string()),  # the reply it was read from
    ]
)

PREFERENCES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("split", pa.string()),
        ("image_id_0", pa.string()),
        ("image_id_1", pa.string()),
        ("aspect", pa.string()),  # a scorer, or "overall": their weighted sum
        ("score_0", pa.float64()),
        ("score_1", pa.float64()),
        ("label", pa.float64()),  # 1 where image 0 is preferred, 0 where image 1 is, 0.5 a tie
        ("margin", pa.float64()),  # |score_0 − score_1|
    ]
)

PAIR = pa.struct([("aspect", pa.string()), ("chosen", pa.int32()), ("rejected", pa.int32()), ("margin", pa.float64())])

TRAINING = with_features(
    pa.schema(
        [
            ("prompt_id", pa.string()),
            ("prompt", pa.string()),
            ("split", pa.string()),
            ("image_ids", pa.list_(pa.string())),
            ("images", pa.list_(IMAGE)),
            ("pairs", pa.list_(PAIR)),  # chosen and rejected are positions in `images`; ties are left out
        ]
    )
)

# What the blocks world's oracle sees in each image that is done. Nothing that trains or selects reads it.
ORACLE = pa.schema(
    [
        ("image_id", pa.string()),
        ("prompt_id", pa.string()),
        ("applicable", pa.bool_()),  # false where the prompt is outside the blocks world, or no image can be decoded
        ("fully_right", pa.bool_()),  # this and all that follows: null where it is not applicable
        ("facts", pa.int32()),  # that the prompt states
        ("facts_held", pa.int32()),
        *[(aspect, pa.int32()) for aspect in ASPECTS],  # 1 to 5
        ("faults", pa.list_(pa.string())),  # a sentence for each fact that does not hold
    ]
)
