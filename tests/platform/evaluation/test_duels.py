"""Who wins is counted from the model's side, whatever the order in which a scorer names the two images."""

import numpy as np
import pyarrow as pa
import pytest

from visionprefer.evaluation.duels import Meeting, duels, of_preferences, of_scores
from visionprefer.judging.scores import Scores
from visionprefer.schema import PREFERENCES

MEETINGS = [Meeting(f"p{n // 2}", "a prompt", "tuned", "base", f"t{n}", f"b{n}") for n in range(8)]


def preferences(labels: list[float]) -> pa.Table:
    """Labels of the base's image, which is image 0, as in a run."""
    rows = [
        {"prompt_id": f"p{n // 2}", "image_id_0": f"b{n}", "image_id_1": f"t{n}", "aspect": "overall", "label": label}
        for n, label in enumerate(labels)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCES)


def test_wins_ties_and_losses_of_the_tuned_model() -> None:
    [duel] = duels(MEETINGS, {"judge": of_preferences(preferences([0, 0, 0, 0, 0, 0.5, 0.5, 1]))})
    assert (duel.model, duel.other, duel.scorer, duel.aspect) == ("tuned", "base", "judge", "overall")
    assert (duel.meetings, duel.wins, duel.ties, duel.losses) == (8, 5, 2, 1)
    assert duel.win_rate == pytest.approx(6 / 8)
    assert duel.low < duel.win_rate <= duel.high


def test_images_that_a_scorer_says_nothing_of_do_not_meet() -> None:
    [duel] = duels(MEETINGS, {"judge": of_preferences(preferences([0, 1, 0.5]))})
    assert (duel.meetings, duel.wins, duel.ties, duel.losses) == (3, 1, 1, 1)
    assert duels(MEETINGS, {"judge": of_preferences(preferences([]))}) == []


def test_scores_are_compared_and_images_without_one_left_out() -> None:
    images = pa.table({"image_id": [f"{side}{n}" for n in range(3) for side in "tb"]})
    values = np.array([[2.0], [1.0], [1.0], [1.0], [3.0], [np.nan]])
    [duel] = duels(MEETINGS[:3], {"reward": of_scores(Scores(images, ["overall"], values), MEETINGS[:3])})
    assert (duel.meetings, duel.wins, duel.ties, duel.losses) == (2, 1, 1, 0)
