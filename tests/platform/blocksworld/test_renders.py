"""Renders with captions are images that a run takes over."""

from visionprefer.blocksworld.renders import write_renders
from visionprefer.blocksworld.scenes import split_of
from visionprefer.blocksworld.wording import understand
from visionprefer.existing import list_existing


def test_renders_are_taken_over_with_captions_of_the_training_split(tmp_path):
    write_renders(tmp_path / "renders", 30, 0, 0.4)
    found = list_existing(str(tmp_path / "renders"))
    assert len(found.images) == 30
    assert not found.rejected
    assert all(split_of(understand(image.prompt)) == "training" for image in found.images)


def test_mistakes_change_captions_and_no_picture(tmp_path):
    prompts, pictures = [], []
    for mistakes in (0.0, 0.9):
        folder = tmp_path / str(mistakes)
        write_renders(folder, 30, 0, mistakes)
        prompts.append([image.prompt for image in list_existing(str(folder)).images])
        pictures.append([path.read_bytes() for path in sorted(folder.glob("*.png"))])
    assert pictures[0] == pictures[1]
    assert sum(a != b for a, b in zip(*prompts, strict=True)) > 10
