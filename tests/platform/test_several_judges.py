"""What several judges said has one mean, whoever reads it: that of the judges, not that of their replies."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from run_by_hand import with_oracle

from visionprefer.align.best import best_images
from visionprefer.align.recipe import FinetuneRecipe
from visionprefer.audit import write_audit
from visionprefer.evaluation.evaluation import write_evaluation
from visionprefer.gallery import Gallery
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.scorers.comparison import agreement_of_judge
from visionprefer.statistics import statistics

IMAGES = {
    "models": [{"model": "owner/small"}, {"model": "large"}],
    "every_model": True,
    "images_per_prompt": 1,
    "block_size": 4,
}
SECOND_IS_BETTER = pa.table(
    {"prompt_id": ["p0"], "image_id_0": ["0-0"], "image_id_1": ["0-1"], "aspect": [OVERALL], "label": [0.0]}
)


@pytest.fixture
def judged(make_run: Callable[..., RunFolder]) -> RunFolder:
    """Of two images one judge gave 4 and 3 four times, another 1 and 5 once: means 2.5 and 4, of replies 3.4 twice."""
    run = make_run({"a cat": ("train", [[4] * 4, [3] * 4])}, images=IMAGES)
    first = run.judgements()
    second = first.set_column(
        first.column_names.index("score"),
        "score",
        pa.array([{"0-0": 1.0, "0-1": 5.0}[image] for image in first["image_id"].to_pylist()]),
    ).set_column(first.column_names.index("judge"), "judge", pa.array(["another"] * first.num_rows))
    run.store.write_table("judgements.parquet", pa.concat_tables([*[first] * 4, second]))
    return run


def test_in_statistics_and_where_the_judge_meets_the_oracle(judged: RunFolder) -> None:
    found = statistics(with_oracle(judged, {"0-0": [1] * 4, "0-1": [5] * 4}))
    assert [source.means[OVERALL] for source in found.sources] == [2.5, 4.0]
    assert found.oracle is not None and found.oracle.aspects[OVERALL].agreement == 1.0


def test_in_the_gallery(judged: RunFolder) -> None:
    [images] = Gallery(judged).judged(["p0"]).values()
    assert [image.overall for image in images] == [2.5, 4.0]


def test_in_what_is_learnt_from(judged: RunFolder) -> None:
    assert best_images(judged, FinetuneRecipe(name="r", model="m")) == ["0-1"]


def test_in_audits(judged: RunFolder) -> None:
    assert write_audit(judged, SECOND_IS_BETTER, "people").aspects[OVERALL].agreement == 1.0
    assert agreement_of_judge(judged, SECOND_IS_BETTER).aspects[OVERALL].agreement == 1.0


def test_in_evaluations(judged: RunFolder) -> None:
    write_evaluation(judged, {})
    assert "+1.50" in judged.store.read("evaluation.html").decode()
