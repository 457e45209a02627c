"""The engine `transformers`: any image-text-to-text model, or one of text, in this process, held to a JSON schema as it
generates.
"""

import functools
import json
import logging
from typing import TYPE_CHECKING, Any

from visionprefer import devices
from visionprefer.engine_settings import EngineSettings
from visionprefer.errors import InputError, missing_extra
from visionprefer.judging.engine import Reply, Request, in_batches
from visionprefer.judging.rubric import JSON_FORM
from visionprefer.models import Model

if TYPE_CHECKING:
    import torch


class TransformersEngine:
    """Runs a model with `generate`, a batch at a time.

    Every request draws its tokens with a generator of its own, so that an answer does not depend on its neighbours'
    luck.

    Raises:
        InputError: if transformers cannot load the model.
    """

    def __init__(self, settings: EngineSettings, model: Model, reads_images: bool = True) -> None:
        try:
            import transformers
        except ImportError as error:
            raise missing_extra("transformers", "local") from error

        logging.getLogger("transformers").setLevel(logging.ERROR)
        transformers.utils.logging.disable_progress_bar()
        self.settings = settings
        self.name = model.label
        self.device, self.dtype = devices.choose(settings.device, settings.dtype, on_gpu="bfloat16")
        try:
            reader, kind = transformers.AutoTokenizer, transformers.AutoModelForCausalLM
            if reads_images:
                reader, kind = transformers.AutoProcessor, transformers.AutoModelForImageTextToText
            self.processor = reader.from_pretrained(model.location, revision=model.revision)
            self.model = kind.from_pretrained(model.location, revision=model.revision, dtype=self.dtype)
        except Exception as error:  # loaders raise errors of every kind
            wanted = "an image-text-to-text model" if reads_images else "a model of text"
            raise InputError(f"model: {model.name!r} cannot be loaded as {wanted}: {error}") from error
        self.model = self.model.to(self.device).eval()
        self.tokenizer = self.processor.tokenizer if reads_images else self.processor
        self.reads_images = reads_images
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._grammar = None
        if settings.structured:
            self._grammar = _Grammar(self.tokenizer, self.model.config.get_text_config().vocab_size)

    def ask(self, requests: list[Request]) -> list[Reply]:
        """Answer all requests, in batches of the recipe's size."""
        return in_batches(requests, self.settings.batch_size, self._generate)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        held = ", replies held to their schema" if self._grammar else ""
        return f"{self.name} runs in {str(self.dtype).removeprefix('torch.')} on {self.device}{held}"

    def _generate(self, requests: list[Request]) -> list[Reply]:
        import torch
        from transformers import LogitsProcessorList

        padding: dict[str, Any] = {"padding": True}
        inputs = self.processor.apply_chat_template(
            [[{"role": "user", "content": _content(request)}] for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"processor_kwargs": padding} if self.reads_images else padding),
        ).to(self.device)
        if self.reads_images:
            inputs = inputs.to(self.dtype)
        start = inputs["input_ids"].shape[1]
        processors = LogitsProcessorList([_SeededSampling(requests)])
        if self._grammar:
            processors.insert(0, self._grammar.processor([request.schema for request in requests], start))
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=processors,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        prompt_tokens = inputs["attention_mask"].sum(dim=1).tolist()
        return [self._reply(tokens[start:], count) for tokens, count in zip(output, prompt_tokens, strict=True)]

    def _reply(self, tokens: "torch.Tensor", prompt_tokens: int) -> Reply:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        ids = tokens.tolist()
        length = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
        text = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
        return Reply(text, int(prompt_tokens), length, cut_off=ids[length - 1] not in ends)


def _content(request: Request) -> str | list[dict[str, Any]]:
    if not request.images:
        return request.text
    images = [{"type": "image", "image": image} for image in request.images]
    return [*images, {"type": "text", "text": request.text}]


class _SeededSampling:
    """Sampling as the likeliest token of logits / temperature + Gumbel noise, the noise from each request's seed.

    Reference: the Gumbel-max trick, e.g. Maddison et al. 2014 (arXiv 1411.0030) section 2.
    """

    def __init__(self, requests: list[Request]) -> None:
        import torch

        self.temperatures = [request.temperature for request in requests]
        self.generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]

    def __call__(self, _: "torch.Tensor", scores_BV: "torch.Tensor") -> "torch.Tensor":
        import torch

        if not any(self.temperatures):
            return scores_BV
        noisy = scores_BV.float()
        for row, (temperature, generator) in enumerate(zip(self.temperatures, self.generators, strict=True)):
            if temperature:
                uniform = torch.rand(noisy.shape[1], generator=generator).clamp_(1e-20, 1 - 1e-7).to(noisy.device)
                noisy[row] = noisy[row] / temperature - torch.log(-torch.log(uniform))
        return noisy


class _Grammar:
    """Schemas of replies, compiled for one tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise missing_extra("llguidance", "local") from error

        self.tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary)
        self.compiled = functools.cache(
            lambda schema: llguidance.LLMatcher.grammar_from_json_schema(json.loads(schema), JSON_FORM)
        )

    def processor(self, schemas: list[dict[str, Any]], start: int) -> "_HeldToGrammar":
        from llguidance import LLMatcher

        matchers = [LLMatcher(self.tokenizer, self.compiled(json.dumps(schema))) for schema in schemas]
        return _HeldToGrammar(matchers, start, self.tokenizer.eos_token)


class _HeldToGrammar:
    """Leaves each row only the tokens that can go on to a reply of the schema's form."""

    def __init__(self, matchers: list[Any], start: int, end: int) -> None:
        self.matchers = matchers
        self.start = start
        self.end = end

    def __call__(self, input_ids: "torch.Tensor", scores_BV: "torch.Tensor") -> "torch.Tensor":
        import torch
        from llguidance.torch import allocate_token_bitmask, fill_next_token_bitmask

        if input_ids.shape[1] > self.start:
            for matcher, token in zip(self.matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        bits = allocate_token_bitmask(len(self.matchers), scores_BV.shape[1])
        for row, matcher in enumerate(self.matchers):
            if not matcher.is_stopped():
                fill_next_token_bitmask(matcher, bits, row)
        allowed = (bits.unsqueeze(-1) >> torch.arange(32, dtype=torch.int32)) & 1
        allowed_BV = allowed.flatten(1)[:, : scores_BV.shape[1]].bool()
        for row, matcher in enumerate(self.matchers):
            if matcher.is_stopped():  # the object is complete
                allowed_BV[row] = False
                allowed_BV[row, self.end] = True
        allowed_BV = allowed_BV.to(scores_BV.device)
        return scores_BV.masked_fill(~allowed_BV, float("-inf"))
