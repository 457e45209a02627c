"""A run in which models drew from the same noise becomes figures, tables and a page, the worst regressions first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from run_by_hand import with_oracle

from visionprefer.errors import InputError
from visionprefer.evaluation.evaluation import Evaluation, tables, write_evaluation
from visionprefer.judging.scores import Scores
from visionprefer.run_folder import RunFolder

# By prompt the scores of the base's image and of the other model's.
SCORES = {
    "much better": ("held_out", [[1] * 4, [5] * 4]),
    "better": ("held_out", [[2] * 4, [3] * 4]),
    "alike": ("held_out", [[3] * 4, [3] * 4]),
    "much <b>worse": ("held_out", [[5] * 4, [1] * 4]),
    "lost": ("held_out", [[5] * 4, None]),
}
IMAGES = {
    "models": [{"model": "owner/small"}, {"model": "large"}],
    "every_model": True,
    "images_per_prompt": 1,
    "block_size": 4,
}


@pytest.fixture
def compared(make_run: Callable[..., RunFolder]) -> RunFolder:
    return make_run(SCORES, images=IMAGES)


def test_who_wins_is_written_down_and_shown(compared: RunFolder) -> None:
    found = write_evaluation(compared, {})
    assert found.models == ["owner/small", "large"]
    assert (found.prompts, found.meetings, found.sorted_by) == (4, 4, "judge")
    by_aspect = {duel.aspect: (duel.wins, duel.ties, duel.losses) for duel in found.duels}
    assert by_aspect["overall"] == by_aspect["fidelity"] == (2, 1, 1)
    assert Evaluation.model_validate_json(compared.store.read("evaluation.json")) == found
    assert [table.title for table in tables(found)] == ["Overall, against owner/small", "large against owner/small"]
    assert tables(found)[0].rows == [["large", "2", "62.5 %"]]
    page = compared.store.read("evaluation.html").decode()
    regressions, improvements = page.split('id="improvements"')
    assert "much &lt;b&gt;worse" in regressions and "alike" not in regressions + improvements
    assert improvements.index("much better") < improvements.index("better</bdi> <small>+1.00")
    assert "-4.00" in regressions and "+4.00" in improvements
    assert page.count("<img") == 6


def test_a_reward_model_counts_beside_the_judge_and_orders_the_page(compared: RunFolder) -> None:
    """It sees the opposite of the judge."""
    images = compared.images.table(["image_id", "candidate"])
    values = np.array([[float(candidate == 0)] for candidate in images["candidate"].to_pylist()])
    found = write_evaluation(compared, {"vpscore": Scores(images, ["overall"], values)})
    assert found.sorted_by == "vpscore"
    [duel] = [duel for duel in found.duels if duel.scorer == "vpscore"]
    assert (duel.wins, duel.losses) == (0, 4)
    assert tables(found)[0].columns == ["model", "vpscore #Win", "vpscore WinRate", "judge #Win", "judge WinRate"]


def test_the_oracle_says_who_is_fully_right(compared: RunFolder) -> None:
    seen: dict[str, Any] = {f"{n}-{side}": [5 if side else 4, 4, 4, 4] for n in range(4) for side in (0, 1)}
    found = write_evaluation(with_oracle(compared, seen), {})
    right = next(duel for duel in found.duels if duel.aspect == "fully right")
    assert (right.scorer, right.wins, right.ties, right.losses) == ("oracle", 4, 0, 0)
    assert {of.model: of.fully_right for of in found.oracle} == {"owner/small": 0.0, "large": 1.0}
    assert tables(found)[-1].title == "By the oracle"


def test_a_run_that_was_not_made_to_compare_is_told(make_run: Callable[..., RunFolder]) -> None:
    with pytest.raises(InputError, match=r"Run a recipe with images\.every_model: true"):
        write_evaluation(make_run(), {})


def test_a_reward_that_is_called_like_another_scorer_is_refused(compared: RunFolder) -> None:
    images = compared.images.table(["image_id", "candidate"])
    scores = Scores(images, ["overall"], np.zeros((images.num_rows, 1)))
    with pytest.raises(InputError, match="--reward: a folder is called 'judge', as another scorer is"):
        write_evaluation(compared, {"judge": scores})
