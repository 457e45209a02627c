"""Tokenizers whose words are those of the blocks world. Other text falls to pieces, down to bytes; none is lost."""

import itertools
import json
import random
import re
from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.scenes import COLOURS, SHAPES, sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.wording import word
from visionprefer.judging.rubric import question
from visionprefer.random_models import SPECIAL_TOKENS, llava_tokenizer
from visionprefer.schema import ASPECTS

PROMPT_LENGTH = 48  # tokens; no prompt of the blocks world has more than 32


def prompts(count: int, seed: int = 0) -> list[str]:
    """Prompts of training scenes."""
    chance = random.Random(seed)
    return [word(sample("training", chance), chance) for _ in range(count)]


def clip_tokenizer() -> Any:
    """A CLIPTokenizer in which every word of the blocks world is one token."""
    merges = _merges(prompts(5_000))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=merges,
        model_max_length=PROMPT_LENGTH,
    )


def _merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Which pairs of pieces byte-pair encoding joins, in order."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=1024, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def judge_tokenizer() -> Any:
    """A tokenizer of bytes in which words of the blocks world, things, and stretches of the rubric, are one token each.

    Of two words, a thing would have to be looked for among others of its colour and others of its shape, which models
    as small as the judge learn slowly and do badly. Several are the token of one and an ending: as tokens of their own,
    those of which only one is ever shown in training would stay unknown.
    """
    tokenizer = Tokenizer(models.BPE())
    stretches = sorted(set(_stretches()), key=len, reverse=True)
    things = [f" {colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)]
    signs = [r" \(\d+", r",\d+\)", r" ?\w+", r' ?[^\s\w"]', '"', r"\s+"]
    pattern = "|".join([*map(re.escape, [*stretches, *things]), *signs])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[AddedToken(word, special=True) for word in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((stretches + things) * 2 + sentences(500), trainer)
    return llava_tokenizer(tokenizer)


def sentences(count: int, seed: int = 1) -> list[str]:
    """Prompts, and what a judge says of pictures."""
    chance = random.Random(seed)
    found = prompts(count, seed)
    for _ in range(count):
        description = sample("training", chance)
        verdict = labels.label(description, spoil(description, chance))
        found.extend(getattr(verdict, aspect).rationale for aspect in ASPECTS)
    return found


def _stretches(longest: int = 60) -> list[str]:
    """The fixed text of a request in stretches, and what stands between the words of a reply."""
    lines = [line for text in question("\0").split("\0") for line in text.splitlines(keepends=True)]
    parts = [part for line in lines for part in wrap(line, longest, drop_whitespace=False, replace_whitespace=False)]
    glue = json.dumps({aspect: {"rationale": "@", "score": "@"} for aspect in ASPECTS}).split("@")
    for index in range(2, len(glue), 2):
        glue[index - 1], glue[index] = glue[index - 1].removesuffix('"'), glue[index].removeprefix('"')
    return [*parts, *glue, "user: ", "\n\n", "\nassistant: "]


def bert_tokenizer() -> Any:
    """A BertTokenizer of the words of the blocks world, and of letters for any other."""
    words = sorted({part for text in prompts(5_000) for part in re.findall(r"\w+|[^\w\s]", text)})
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    )
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, model_max_length=PROMPT_LENGTH
    )
