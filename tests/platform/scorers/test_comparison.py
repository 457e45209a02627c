"""Scorers side by side, worked by hand on the run built by hand."""

from typing import Any

import pyarrow as pa
import pytest
from run_by_hand import image_id

from visionprefer.errors import InputError
from visionprefer.judging.trust import AspectAgreement
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.scorers.comparison import ScorerAgreement, agreement_of_judge, compare, tables
from visionprefer.scorers.scoring import DIGEST, SCORES, file_of

RED, ALONE = "a red circle", "one alone"


def known(*pairs: tuple[str, int, int, str, float]) -> pa.Table:
    rows = [
        {
            "image_id_0": image_id(prompt, first),
            "image_id_1": image_id(prompt, second),
            "aspect": aspect,
            "label": label,
        }
        for prompt, first, second, aspect, label in pairs
    ]
    return pa.Table.from_pylist([row | {"prompt_id": f"p{row['image_id_0'][0]}"} for row in rows])


KNOWN = known(
    (RED, 0, 1, OVERALL, 1.0),
    (RED, 0, 2, OVERALL, 1.0),
    (RED, 1, 2, OVERALL, 1.0),
    (RED, 0, 3, OVERALL, 0.5),  # a tie, which says nothing
    (ALONE, 0, 1, OVERALL, 0.0),
    (RED, 1, 2, "harmlessness", 0.0),
)


def scored(run: RunFolder, name: str, values: dict[str, float | None]) -> None:
    rows: list[dict[str, Any]] = [
        {"image_id": image, "prompt_id": f"p{image[0]}", "scorer": name, "judge": f"{name} model", "score": score}
        for image, score in values.items()
    ]
    written = pa.Table.from_pylist([{n: row.get(n) for n in SCORES.names} for row in rows], schema=SCORES)
    run.store.write_table(file_of(name), written.replace_schema_metadata({DIGEST: b"1"}))


def test_each_scorer_is_set_against_every_aspect_that_is_known(run: RunFolder) -> None:
    scored(run, "clip", {"0-0": 30.0, "0-1": 20.0, "0-2": 25.0, "0-3": 1.0, "3-0": 5.0, "3-1": 5.0})
    scored(run, "vqa", {"0-0": 0.9, "0-1": None, "0-2": 0.1, "9-9": 0.5})
    clip, vqa = compare(run, KNOWN)
    assert (clip.scorer, clip.judge, clip.images) == ("clip", "clip model", 6)
    assert list(clip.aspects) == [OVERALL, "harmlessness"]
    # Right on 0-1 and 0-2, wrong on 1-2; a tie on the images of the other prompt.
    assert (clip.aspects[OVERALL].pairs, clip.aspects[OVERALL].agreement) == (4, 2.5 / 4)
    assert (clip.aspects["harmlessness"].pairs, clip.aspects["harmlessness"].agreement) == (1, 1.0)
    assert (vqa.images, vqa.aspects[OVERALL].pairs, vqa.aspects[OVERALL].agreement) == (2, 1, 1.0)
    assert vqa.aspects["harmlessness"].pairs == 0


def test_a_split_alone_counts(run: RunFolder) -> None:
    scored(run, "clip", {"0-0": 30.0, "0-1": 20.0, "1-0": 1.0, "1-2": 2.0})
    nasty = pa.Table.from_pylist(
        [{"prompt_id": "p1", "image_id_0": "1-0", "image_id_1": "1-2", "aspect": OVERALL, "label": 0.0}]
    )
    [held_out] = compare(run, pa.concat_tables([KNOWN, nasty], promote_options="default"), "held_out")
    assert (held_out.images, held_out.aspects[OVERALL].pairs, held_out.aspects[OVERALL].agreement) == (2, 1, 1.0)


def test_the_judge_stands_beside_them_each_aspect_by_its_own_score(run: RunFolder) -> None:
    judge = agreement_of_judge(run, KNOWN)
    assert (judge.scorer, judge.judge, judge.images) == ("judge", "judge", 10)  # the reply about one image failed
    # Overall 4.5, 3.0 and 3.0: right, right and a tie. Harmlessness 3 and 4: right.
    assert (judge.aspects[OVERALL].pairs, judge.aspects[OVERALL].agreement) == (3, 2.5 / 3)
    assert judge.aspects["harmlessness"].agreement == 1.0


def test_the_tables_have_a_row_for_each_and_others_beside_them(run: RunFolder) -> None:
    scored(run, "clip", {"0-0": 30.0, "0-1": 20.0, "0-2": 25.0})
    of_vpscore = AspectAgreement(pairs=3, agreement=1.0, low=0.4, high=1.0, tie_rate=0.0)
    vpscore = ScorerAgreement(scorer="vpscore", judge="runs/vpscore", images=4, aspects={OVERALL: of_vpscore})
    leading, others = tables([*compare(run, KNOWN), vpscore], "people")
    assert leading.title == "Agreement with people, overall"
    assert leading.columns == ["scorer", "model", "images", "pairs", "agreement", "95 % interval"]
    clip, own = leading.rows
    assert clip[:5] == ["clip", "clip model", "3", "3", "66.7 %"]
    assert own == ["vpscore", "runs/vpscore", "4", "3", "100.0 %", "40.0 to 100.0 %"]
    assert others.columns == ["scorer", "harmlessness"]
    assert others.rows == [["clip", "100.0 %"], ["vpscore", "–"]]
    assert len(tables([vpscore], "people")) == 1


def test_what_cannot_be_compared_is_told(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"no scorer has written there\. Write --scorer clip=LOCATION"):
        compare(run, KNOWN)
    scored(run, "clip", {"0-0": 30.0})
    with pytest.raises(InputError, match="of the known pairs none is about two images that have a score"):
        compare(run, KNOWN)
    with pytest.raises(InputError, match=r"no image of split validation\. Write --split all"):
        compare(run, KNOWN, "validation")
