"""The oracle says of pictures by the image models what a person says who looked at them first.

The rule of the labels is the world's: an object is of the shape and colour that it is most like, however badly it is
drawn; fragments are no objects; objects that touch are two. Where the eye could not tell, and would not bet, its guess
is not certain.
"""

import csv
from collections import Counter
from pathlib import Path

from PIL import Image

from visionprefer.blocksworld.oracle import assess
from visionprefer.blocksworld.renderer import SIZE

# 200 pictures for held-out prompts, in rows of 20, and a line for each: model, prompt, whether it is fully right, and
# whether the eye is certain of it.
HERE = Path(__file__).parent
ACROSS = 20


def test_fully_right_is_what_the_eye_says():
    """Of what the eye is certain of 19 in 20 at least, and with its guesses 22 in 25."""
    with (HERE / "by_eye.tsv").open(newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    pictures = Image.open(HERE / "by_eye.png")
    assert Counter(line["model"] for line in lines) == {"blocks-sd": 100, "blocks-sd-small": 100}
    differ = {"yes": [], "no": []}  # by whether the eye is certain
    for place, line in enumerate(lines):
        left, top = place % ACROSS * SIZE, place // ACROSS * SIZE
        found = assess(pictures.crop((left, top, left + SIZE, top + SIZE)), line["prompt"])
        assert found is not None
        if found.fully_right != (line["fully_right"] == "yes"):
            differ[line["certain"]].append((place, line, [fact.sentence for fact in found.facts if not fact.holds]))
    certain = sum(line["certain"] == "yes" for line in lines)
    assert len(differ["yes"]) <= 0.05 * certain, differ["yes"]
    assert len(differ["yes"] + differ["no"]) <= 0.12 * len(lines), differ["no"]
