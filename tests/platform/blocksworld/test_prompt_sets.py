"""The prompt sets of the package are what their command writes; none that may be trained on is held out."""

import pytest

from visionprefer.blocksworld.prompt_sets import OBJECTS, SIZES, prompt_set
from visionprefer.blocksworld.scenes import Split, split_of
from visionprefer.blocksworld.wording import understand
from visionprefer.errors import InputError
from visionprefer.prompts.cleaning import read_prompts
from visionprefer.recipe import PromptSettings


def shipped(name: str) -> list[str]:
    read = read_prompts(PromptSettings(path=f"builtin:{name}", near_duplicate=None), seed=0)
    assert read.kept["source"][0].as_py() == f"builtin:{name}.txt:1"
    return read.kept["prompt"].to_pylist()


@pytest.mark.parametrize("split", SIZES)
def test_a_recipe_reads_what_the_command_writes(split: Split) -> None:
    assert shipped(f"blocks-{split}") == prompt_set(split)


@pytest.mark.parametrize("split", SIZES)
def test_every_prompt_is_of_its_split_and_no_two_ask_for_the_same(split: Split) -> None:
    descriptions = [description for description in map(understand, prompt_set(split)) if description]
    assert len(set(descriptions)) == SIZES[split]
    assert {split_of(description) for description in descriptions} == {split}
    assert {description.objects for description in descriptions} == set(OBJECTS[split])


def test_a_wrong_name_is_told_with_the_right_ones() -> None:
    with pytest.raises(InputError, match="Write builtin:blocks-held-out or builtin:blocks-training"):
        read_prompts(PromptSettings(path="builtin:blocks"), seed=0)
