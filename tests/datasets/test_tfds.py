"""The source 'tfds', on a tiny data set that TFDS itself prepares here."""

import hashlib
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data import content_hashes
from jdissect.data.images import decode_cropped
from jdissect.data.loader import batches
from jdissect.datasets import open_source
from jdissect.datasets.tfds import TfdsSource


def photograph(index):
    """The encoded bytes of a photograph; the fourth is corrupt."""
    if index == 3:
        return b"corrupt"
    file = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def prepare(folder, dataset, features, example, file_format="array_record"):
    """Prepares a data set of six examples, split 'validation', version 1.2.0."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"validation": self._generate_examples()}

        def _generate_examples(self):
            for index in range(6):
                yield index, example(index)

    Tiny(data_dir=folder, file_format=file_format).download_and_prepare()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(
        folder,
        "tiny_photos",
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=6),
        },
        lambda index: {"image": io.BytesIO(photograph(index)), "label": index},
    )
    prepare(
        folder,
        "tiny_numbers",
        {"label": tfds.features.ClassLabel(num_classes=6)},
        lambda index: {"label": index},
    )
    return folder


@pytest.mark.parametrize(
    ("dtype", "channels"), [(np.uint8, 1), (np.uint8, 4), (np.uint16, 1)]
)
def test_images_of_other_kinds(tmp_path, config, dtype, channels):
    """One channel is grey, a fourth is left out, of 16 bits the high ones count."""
    shape = (256, 256, channels) if channels > 1 else (256, 256)
    largest = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, largest, shape).astype(dtype)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    image = tfds.features.Image(shape=(None, None, channels), dtype=dtype)
    prepare(
        tmp_path,
        "kinds",
        {"picture": image, "fine": tfds.features.ClassLabel(num_classes=3)},
        lambda index: {"picture": io.BytesIO(file.getvalue()), "fine": 2},
    )
    source = open_source(config("tfds", tmp_path, name="kinds"))
    assert source.label == "fine" and source.classes == ("0", "1", "2")
    expected = (pixels >> (8 * (pixels.itemsize - 1))).reshape(256, 256, channels)
    expected = np.broadcast_to(expected[16:240, 16:240, :3], (224, 224, 3))
    np.testing.assert_array_equal(source.read(0).pixels, expected)
    turned = open_source(config("tfds", tmp_path, name="kinds", exif_rotation=True))
    np.testing.assert_array_equal(turned.read(0).pixels, expected)


def test_data_sets_without_photographs(tmp_path, prepared, config):
    """Numbers under the name 'image'; metadata of a feature that needs TensorFlow."""
    prepare(
        tmp_path,
        "tensors",
        {"image": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)},
        lambda index: {"image": np.zeros((4, 4, 3), np.uint8)},
    )
    message = r"no image feature of 8 or 16 bits; it has image \(Tensor uint8\)"
    with pytest.raises(UserError, match=message):
        open_source(config("tfds", tmp_path, name="tensors"))
    shutil.copytree(prepared / "tiny_photos", tmp_path / "tiny_photos")
    features = tmp_path / "tiny_photos" / "1.2.0" / "features.json"
    features.write_text(
        features.read_text().replace("image_feature.Image", "video_feature.Video")
    )
    with pytest.raises(UserError, match="'tiny_photos' cannot be opened: ") as caught:
        open_source(config("tfds", tmp_path, name="tiny_photos"))
    assert "\n" not in str(caught.value)


def test_reading(prepared, config):
    """TFDS shuffles on preparing, so photographs are recognised by their bytes."""
    source = open_source(config("tfds", prepared, name="tiny_photos"))
    assert source.names == tuple(f"tiny_photos/1.2.0/validation/{i}" for i in range(6))
    assert source.image_shape == (224, 224)
    assert source.annotations is None
    hashes = source.content_hashes(None)
    written = {hashlib.sha256(photograph(i)).hexdigest(): i for i in range(6)}
    assert set(hashes) == set(written)
    batch = next(batches(source, 6))
    for slot, digest in enumerate(hashes):
        number = written[digest]
        if number == 3:
            assert batch.skipped == ((slot, "not an image that PIL can identify"),)
        else:
            pixels = decode_cropped(io.BytesIO(photograph(number)), "x")
            np.testing.assert_array_equal(batch.pixels[slot], pixels)


def test_worker_processes(prepared, config):
    source = open_source(config("tfds", prepared, name="tiny_photos:1.2.0"))
    (here,), (there,) = batches(source, 6), batches(source, 6, workers=1)
    np.testing.assert_array_equal(here.pixels, there.pixels)


def test_splits_and_numbers(prepared, config):
    def names(**changes):
        return open_source(
            config("tfds", prepared, name="tiny_photos", **changes)
        ).names

    assert names(split="validation[:2]") == (
        "tiny_photos/1.2.0/validation[:2]/0",
        "tiny_photos/1.2.0/validation[:2]/1",
    )
    assert len(names(num_images=4)) == 4
    assert len(names(num_images=40)) == 6


def test_hashes_are_kept(prepared, config, tmp_path, monkeypatch):
    monkeypatch.setattr(content_hashes, "_SETTLED_NS", -1)

    def hashes(**changes):
        source = open_source(config("tfds", prepared, name="tiny_photos", **changes))
        return source.content_hashes(tmp_path)

    first, whole = hashes(num_images=2), hashes()
    assert whole[:2] == first
    monkeypatch.setattr(TfdsSource, "_encoded", None)  # no record is read any more
    assert hashes() == whole
    assert hashes(num_images=3) == whole[:3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "needs config.data.name"),
        ({"name": "nosuch"}, r"nosuch is not prepared in .*download_and_prepare\(\)"),
        ({"name": "tiny_photos:9.0.0"}, "is not prepared in"),
        ({"name": "a b/c:!"}, "config.data.name: data set 'a b/c:!' cannot be opened"),
        (
            {"name": "tiny_photos", "split": "test"},
            "no split 'test'; it has validation",
        ),
        ({"name": "tiny_photos", "split": "validation[:x]"}, "config.data.split"),
        ({"name": "tiny_numbers"}, "no image feature of 8 or 16 bits; it has label"),
    ],
)
def test_errors(prepared, config, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("tfds", prepared, **changes))
    assert "\n" not in str(caught.value)


def test_no_random_access(prepared, config, tmp_path):
    """Data sets prepared without a word on the format are TFRecord files."""
    folder = tmp_path / "tiny_photos" / "1.2.0"
    folder.mkdir(parents=True)
    for file in (prepared / "tiny_photos" / "1.2.0").iterdir():
        data = file.read_bytes()
        if file.suffix == ".json":
            data = data.replace(b"array_record", b"tfrecord")
        (folder / file.name.replace("array_record", "tfrecord")).write_bytes(data)
    with pytest.raises(UserError, match=r"no random access \(format tfrecord\)"):
        open_source(config("tfds", tmp_path, name="tiny_photos"))


def test_tensorflow_is_not_imported(prepared):
    code = (
        "import sys\nfrom jdissect.datasets.tfds import open_tfds\n"
        f"open_tfds('tiny_photos', {str(prepared)!r}).content_hashes(None)\n"
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
