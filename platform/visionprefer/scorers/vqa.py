"""VQA score: a model that answers questions about images is asked whether the image shows what its prompt says.

Shapes: N questions about an image each, V words of the vocabulary.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BlipForQuestionAnswering

from visionprefer import devices
from visionprefer.errors import InputError
from visionprefer.models import Model, find_model
from visionprefer.schema import content_id

QUESTION = "Question: {} Choices:['yes','no'] Answer:"  # AGFSync's
WHOLE_PROMPT = 'Does this figure show "{}"? Please answer yes or no.'  # VQAScore's

Questions = Mapping[str, Sequence[str]]  # by prompt, those whose right answer is yes


class Answer(NamedTuple):
    """The chances that an answer begins with yes, and with no; they do not add up to 1."""

    yes: float
    no: float


class VQAScorer:
    """With questions: the share that is answered yes. Without: the chance that the answer is yes when the prompt itself
    is made a question.

    References: AGFSync (arXiv 2403.13352) Eq. 2; VQAScore (arXiv 2404.01291) section 3, whose chance of the answer
    "Yes" is here that of its first token, in any spelling (yes, Yes, after a space or not).
    """

    name = "vqa"

    def __init__(self, model: Model, vqa: Any, processor: Any, questions: Questions | None, device: str) -> None:
        self.judge = model.label
        self.digest = content_id(model.digest, QUESTION if questions else WHOLE_PROMPT, dict(questions or {}))
        self.questions = questions
        self.device, self.dtype = devices.choose(device, "auto", on_gpu="bfloat16")
        self.model, self.processor = vqa.to(self.device, self.dtype).eval(), processor
        # Questions that share a forward pass. BLIPs know no chat, and what pads their questions changes their answers.
        self.batch_size = 16 if processor.chat_template else 1
        processor.tokenizer.padding_side = "left"
        yes, no = (_first_tokens(processor.tokenizer, word) for word in ("yes", "no"))
        self.yes, self.no = sorted(yes - no), sorted(no - yes)
        if not self.yes or not self.no:
            raise InputError(f"scorer: in the words of {model.name!r} yes and no begin alike. Write another model")

    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Score each image for the prompt at the same place, 0 to 1; NaN where the prompt has no question."""
        asked = [self._questions(prompt) for prompt in prompts]
        pairs = [(image, text) for image, texts in zip(images, asked, strict=True) for text in texts]
        answers = iter(self.answers([image for image, _ in pairs], [text for _, text in pairs]))
        found = []
        for texts in asked:
            given = [next(answers) for _ in texts]
            points = [answer.yes if self.questions is None else float(answer.yes > answer.no) for answer in given]
            found.append(sum(points) / len(points) if points else math.nan)
        return found

    def answers(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[Answer]:
        """What the model answers to each text about the image at the same place."""
        found: list[Answer] = []
        for start in range(0, len(texts), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            found += self._batch([image.convert("RGB") for image in images[chosen]], list(texts[chosen]))
        return found

    def _questions(self, prompt: str) -> list[str]:
        if self.questions is None:
            return [WHOLE_PROMPT.format(prompt)]
        return [QUESTION.format(question) for question in self.questions.get(prompt, ())]

    @torch.inference_mode()
    def _batch(self, images: list[Image.Image], texts: list[str]) -> list[Answer]:
        if self.processor.chat_template:
            asked = [
                [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
                for image, text in zip(images, texts, strict=True)
            ]
            inputs = self.processor.apply_chat_template(
                asked,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        else:
            inputs = self.processor(images=images, text=texts, return_tensors="pt")
        # One token is generated, and not one forward pass made, since with it models that have a decoder of their own
        # and those that go on with the question are asked alike.
        output = self.model.generate(
            **inputs.to(self.device, self.dtype),
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,
        )
        chances_NV = output.logits[0].float().softmax(dim=-1)
        yes_N, no_N = chances_NV[:, self.yes].sum(dim=1), chances_NV[:, self.no].sum(dim=1)
        return [Answer(*pair) for pair in zip(yes_N.tolist(), no_N.tolist(), strict=True)]


def load_vqa(location: str, questions: str | None = None, device: str = "auto") -> VQAScorer:
    """Load a model that answers questions: LLaVA, BLIP-2 and other image-text-to-text models, or BLIP's own.

    Args:
        location: folder or hub id.
        questions: JSON file of questions, see `read_questions`; None: each prompt is its own question.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: if there is no such model, or the questions cannot be read.
    """
    known = read_questions(Path(questions)) if questions else None
    model = find_model(location, "transformers")
    _, dtype = devices.choose(device, "auto", on_gpu="bfloat16")
    try:
        config = AutoConfig.from_pretrained(model.location, revision=model.revision)
        is_blip = config.architectures == ["BlipForQuestionAnswering"]
        kind = BlipForQuestionAnswering if is_blip else AutoModelForImageTextToText
        processor = AutoProcessor.from_pretrained(model.location, revision=model.revision)
        vqa = kind.from_pretrained(model.location, revision=model.revision, dtype=dtype)
    except Exception as error:  # loaders raise errors of every kind
        raise InputError(
            f"scorer: {location!r} cannot be loaded as a model that answers questions: {error}. "
            "Write the folder or hub id of a LLaVA or BLIP-2, or of BLIP for question answering"
        ) from error
    return VQAScorer(model, vqa, processor, known, device)


def read_questions(file: Path) -> dict[str, list[str]]:
    """Questions by prompt, from a JSON object of lists; the right answer to each is yes.

    Raises:
        InputError: if the file holds none.
    """
    wanted = 'Write a JSON object: {"a red circle": ["Is there a circle?", "Is the circle red?"]}'
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no questions can be read there: {error}. {wanted}") from error
    if not isinstance(found, dict) or not found:
        raise InputError(f"{file} holds no questions by prompt. {wanted}")
    for prompt, questions in found.items():
        if not isinstance(questions, list) or not all(isinstance(question, str) for question in questions):
            raise InputError(f"{file}: what stands under {prompt!r} is no list of questions. {wanted}")
    return found


def _first_tokens(tokenizer: Any, word: str) -> set[int]:
    spellings = [before + form for before in ("", " ") for form in (word, word.capitalize())]
    return {tokenizer(text, add_special_tokens=False).input_ids[0] for text in spellings}
