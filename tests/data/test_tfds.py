"""The source 'tfds', on a tiny data set that TFDS itself prepares here."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jdissect.data import hashing, open_source
from jdissect.data.images import decode_cropped
from jdissect.data.loader import batches
from jdissect.data.tfds import TfdsSource
from jdissect.errors import UserError


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
    monkeypatch.setattr(hashing, "_SETTLED_NS", -1)

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
        "import sys\nfrom jdissect.data.tfds import open_tfds\n"
        f"open_tfds('tiny_photos', {str(prepared)!r}).content_hashes(None)\n"
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
