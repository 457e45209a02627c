"""Scorers by the names that people write."""

import re
from collections.abc import Callable

import transformers

from visionprefer.errors import InputError
from visionprefer.scorers.aesthetic import load_aesthetic
from visionprefer.scorers.clip import load_clip, load_pickscore
from visionprefer.scorers.hpsv2 import load_hpsv2
from visionprefer.scorers.imagereward import load_imagereward
from visionprefer.scorers.scoring import Scorer
from visionprefer.scorers.vqa import load_vqa

LOADERS: dict[str, Callable[[str, str | None, str], Scorer]] = {
    "clip": load_clip,
    "laion_aesthetic": load_aesthetic,
    "imagereward": load_imagereward,
    "pickscore": load_pickscore,
    "hpsv2": load_hpsv2,
    "vqa": load_vqa,
}


def load_scorer(text: str, device: str = "auto") -> Scorer:
    """Load a scorer as it is written: [LABEL:]NAME=LOCATION[,BESIDE].

    Args:
        text: a label, where one NAME is wanted of several checkpoints; the name, of LOADERS; where the checkpoint lies;
            and what is needed beside it, where the loader's default is not meant (a processor, CLIP or tokenizer), or,
            for vqa, a file of questions.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: if there is no such scorer, or it cannot be loaded.
    """
    written = re.fullmatch(r"(?:([\w.-]+):)?(\w+)=([^,]+)(?:,(.+))?", text)
    if written is None or written[2] not in LOADERS:
        raise InputError(
            f"--scorer {text}: write NAME=LOCATION, with one of these names: {', '.join(LOADERS)}; "
            "or LABEL:NAME=LOCATION,BESIDE"
        )
    transformers.utils.logging.disable_progress_bar()
    label, name, location, beside = written.groups()
    scorer = LOADERS[name](location, beside, device)
    scorer.name = label or name
    return scorer
