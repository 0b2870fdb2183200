"""An evaluation with the very flags of a dissection."""

import pytest

from jdissect.base.errors import UserError
from jdissect.configs import baseline
from jdissect.evaluation import folder_split, run


def photos(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def config_of(folder, split="validation"):
    config = baseline.get_config("imagenet")
    assert config.data.split == "validation"
    config.data.source, config.data.path = "folder", str(folder)
    config.data.split = split
    return config


@pytest.mark.parametrize(
    "names", [("cat/a.jpg", "dog/b.jpg"), ("n01440764_tench.JPEG",)]
)
def test_classes_of_the_folder_itself(tmp_path, names):
    config = config_of(photos(tmp_path, *names))
    found, note = folder_split.chosen(config)
    assert found.data.split == "" and config.data.split == "validation"
    said = f"{tmp_path} has no folder 'validation'; using its own class folders"
    assert note == said


def test_the_split_that_is_there(tmp_path):
    photos(tmp_path, "validation/cat/a.jpg", "train/cat/b.jpg")
    config = config_of(tmp_path)
    assert folder_split.chosen(config) == (config, "")
    for split in ("", "val"):
        with pytest.raises(UserError, match="--config.data.split=validation") as error:
            folder_split.chosen(config_of(tmp_path, split))
        assert "train, validation; give the one that" in str(error.value)


def test_a_class_that_is_called_like_a_split(tmp_path):
    photos(tmp_path, "test/a.jpg", "cat/b.jpg")
    config = config_of(tmp_path, "")
    assert folder_split.chosen(config) == (config, "")


def test_photographs_without_classes(tmp_path):
    with pytest.raises(UserError, match="has no class folders; evaluation needs"):
        folder_split.chosen(config_of(photos(tmp_path, "a.jpg")))


def test_other_sources_and_folders(tmp_path):
    for config in (
        baseline.get_config(),
        baseline.get_config("imagenet"),
        config_of(tmp_path / "nowhere"),
        config_of(""),
    ):
        assert folder_split.chosen(config) == (config, "")


def test_evaluate_on_the_folder_of_a_dissection(
    trained, tiny, class_folders, capsys, tmp_path
):
    """The same numbers as by naming the folder in the path or in the split."""
    found = []
    for path, split in (
        (class_folders / "validation", "validation"),
        (class_folders / "validation", ""),
        (class_folders, "validation"),
    ):
        config = config_of(path, split)
        config.model.name = "tiny"
        config.model.weights = str(trained[0] / "model")
        config.train.image_size = 32
        config.data.batch_size = 8
        config.cache.dir = str(tmp_path / "cache")
        found.append(run.evaluate(config))
        error = capsys.readouterr().err
        assert ("using its own class folders" in error) == (len(found) == 1)
    assert found[0] == found[1] == {**found[2], "split": ""}
    assert found[0]["images"] == 15
