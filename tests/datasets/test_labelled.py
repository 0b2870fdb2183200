"""Images with classes: folders, TFDS, scenes; and batches of them."""

import io
import pickle
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.datasets.labelled import imagenet_wnids, open_labelled
from jdissect.evaluation.batches import central_crop, evaluation_batches
from jdissect.training.batches import canvas_shape, training_batches


@pytest.fixture
def settings():
    """Makes what `open_labelled` needs of config.data."""

    def make(source, path="", name="", **more):
        return types.SimpleNamespace(source=source, path=str(path), name=name, **more)

    return make


@pytest.fixture
def folder(tmp_path, save_image):
    """Twelve images of four classes; names sort otherwise than letters do."""
    for index, name in enumerate(["Zebra", "ant", "ant", "ärmel", "fox"] * 2 + ["fox"]):
        size = (20 + index, 61 - 3 * index)
        save_image(tmp_path / "set" / name / f"{index}.png", *size, seed=index)
    save_image(tmp_path / "set" / "fox" / "deep" / "x.jpg", 300, 100, seed=99)
    return tmp_path / "set"


def test_folder(folder, settings):
    images = open_labelled(settings("folder", folder), "")
    assert images.classes == ("Zebra", "ant", "fox", "ärmel")
    assert images.stored is None and len(images.names) == 12
    for index, name in enumerate(images.names):
        assert images.classes[images.label(index)] == name.split("/")[0]
        image, label = images.read(index)
        assert label == images.label(index)
        with Image.open(folder / name) as expected:
            np.testing.assert_array_equal(image, expected)
    inner = open_labelled(settings("folder", folder.parent), "set")
    assert inner.names == images.names
    known = ("fox", "ärmel", "bird", "ant", "Zebra")
    again = open_labelled(settings("folder", folder), "", classes=known)
    assert again.classes == known
    assert [known[again.label(n)] for n in range(12)] == [
        images.classes[images.label(n)] for n in range(12)
    ]


def test_some_images_of_a_folder_are_of_all_classes(folder, settings):
    images = open_labelled(settings("folder", folder), "", num_images=6)
    assert len(images.names) == 6
    assert {images.label(index) for index in range(6)} == {0, 1, 2, 3}


def test_wnids(tmp_path, settings, save_image):
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000 and list(wnids) == sorted(wnids)
    assert (wnids[0], wnids[-1]) == ("n01440764", "n15075141")
    # Numbers that every ImageNet network has: tench, tabby, toilet tissue.
    assert wnids.index("n02123045") == 281 and wnids.index("n15075141") == 999
    for name in ("n15075141_roll.png", "n01440764_tench.JPEG", "n02123045_tabby.jpg"):
        save_image(tmp_path / "flat" / name)
    sample = settings("folder", tmp_path / "flat")
    images = open_labelled(sample, "", classes=wnids)
    assert images.names[0] == "n01440764_tench.JPEG"
    assert [images.label(index) for index in range(3)] == [0, 281, 999]
    for name in ("n02123045/a.png", "n15075141/b.png"):
        save_image(tmp_path / "in folders" / name)
    folders = settings("folder", tmp_path / "in folders")
    images = open_labelled(folders, "", classes=wnids)
    assert [images.label(index) for index in range(2)] == [281, 999]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: (root / "cat").mkdir(), "class folders without images: cat"),
        (lambda root: (root / "fox" / "0.png").rename(root / "0.png"), "0.png; put"),
    ],
)
def test_folders_that_are_refused(tmp_path, settings, save_image, make, message):
    save_image(tmp_path / "fox" / "0.png")
    save_image(tmp_path / "ox" / "1.png")
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        open_labelled(settings("folder", tmp_path), "")


def test_other_refusals(folder, settings):
    with pytest.raises(UserError, match="'broden', which has no classes"):
        open_labelled(settings("broden", folder), "")
    with pytest.raises(UserError, match="does not know: Zebra, fox, ärmel; it knows"):
        open_labelled(settings("folder", folder), "", classes=("ant", "bee"))
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_labelled(settings("folder", folder), "nowhere")
    with pytest.raises(UserError, match="needs config.data.path"):
        open_labelled(settings("folder"), "train")


@pytest.fixture
def numbered(tmp_path, save_image):
    """Makes class folders of these names, each with an image."""

    def make(*names):
        root = tmp_path / "numbered"
        for seed, name in enumerate(names):
            save_image(root / name / "x.png", 8, 8, seed)
        return root

    return make


def labels_by_class(images):
    """{class folder: number}, of the images themselves."""
    return {
        name.split("/")[0]: images.read(index)[1]
        for index, name in enumerate(images.names)
    }


def test_numbered_class_folders(numbered, settings):
    """As text 14 of 16 classes would get another number than they are named by."""
    root = numbered(*map(str, range(16)))
    with pytest.raises(UserError) as caught:
        open_labelled(settings("folder", root), "")
    message = str(caught.value)
    assert "as text 15 comes before 2, as a number after it" in message
    assert "config.data.class_order=text (PyTorch's ImageFolder), number," in message
    assert "\n" not in message

    def labels(**more):
        return labels_by_class(open_labelled(settings("folder", root, **more), ""))

    assert labels(class_order="number") == {str(n): n for n in range(16)}
    as_text = sorted(map(str, range(16)))
    assert labels(class_order="text") == {n: i for i, n in enumerate(as_text)}
    # A network's own list decides by name.
    own = tuple(as_text[::-1])
    for order in ("", "number"):
        chosen = settings("folder", root, class_order=order)
        images = open_labelled(chosen, "", classes=own)
        assert images.classes == own
        assert labels_by_class(images) == {n: i for i, n in enumerate(own)}


@pytest.mark.parametrize(
    ("names", "as_text"),
    [
        ("2 10", None),
        ("007 2 10", None),
        ("-1 -2 0", None),
        ("0.5 2.5 10.5", None),
        ("0 1 2 9", "0 1 2 9"),
        ("000 002 010", "000 002 010"),
        ("7", "7"),
        ("10 2 cat", "10 2 cat"),
        ("class_2 class_10", "class_10 class_2"),
        ("n01440764 n02123045", "n01440764 n02123045"),
        ("\u0662 \u0661\u0660", "\u0661\u0660 \u0662"),  # digits of another script
    ],
)
def test_which_names_are_ambiguous(numbered, settings, names, as_text):
    chosen = settings("folder", numbered(*names.split()))
    if as_text is None:
        with pytest.raises(UserError, match="class folders named by numbers"):
            open_labelled(chosen, "")
    else:
        assert open_labelled(chosen, "").classes == tuple(as_text.split())


@pytest.mark.parametrize(
    ("names", "as_numbers"),
    [
        ("10 007 2 -3", "-3 2 007 10"),
        ("10.5 2.25", "2.25 10.5"),
        ("class_10 class_2", "class_2 class_10"),
        ("10 cat 2 b3", "2 10 b3 cat"),
        ("v2_10 v2_9 v10_1", "v2_9 v2_10 v10_1"),
    ],
)
def test_number_order(numbered, settings, names, as_numbers):
    chosen = settings("folder", numbered(*names.split()), class_order="number")
    assert open_labelled(chosen, "").classes == tuple(as_numbers.split())


def test_classes_from_a_file(numbered, settings, tmp_path):
    root, file = numbered("2", "10", "ärmel"), tmp_path / "classes.txt"

    def opened():
        return open_labelled(settings("folder", root, class_order=str(file)), "")

    with pytest.raises(UserError, match="classes.txt does not exist; use 'text'"):
        opened()
    # As a spreadsheet saves it: a byte order mark, line ends of Windows.
    file.write_bytes("\ufeffärmel\r\n10\r\nunseen\r\n2\r\n\r\n".encode())
    assert opened().classes == ("ärmel", "10", "unseen", "2")
    assert labels_by_class(opened()) == {"ärmel": 0, "10": 1, "2": 3}
    for content, message in [
        ("ärmel\n10\n", "does not list all classes of .*numbered: 2"),
        ("ärmel\n10\n2\n10\n", "lists class 10 twice"),
    ]:
        file.write_text(content, "utf-8")
        with pytest.raises(UserError, match=message):
            opened()
    file.write_bytes(b"\xff\xfe1\0")
    with pytest.raises(UserError, match="classes.txt is not UTF-8 text"):
        opened()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        opened()


def test_order_of_a_network_that_names_no_classes(numbered, capsys):
    """'class_10' before 'class_2' is said, once the classes are numbered so."""
    from jdissect.configs.common import get_common

    from jdissect.evaluation.run import _for_network

    config = get_common()
    config.data.path = str(numbered("class_2", "class_10"))
    assert _for_network(config, 2, None).classes == ("class_10", "class_2")
    error = capsys.readouterr().err
    assert "text order, class_10 before class_2; give config.data.class_order" in error
    assert error.count("\n") == 1
    assert _for_network(config, 2, ["class_2", "class_10"]).label(0) == 1
    for order, classes in (
        ("text", "class_10 class_2"),
        ("number", "class_2 class_10"),
    ):
        config.data.class_order = order
        assert _for_network(config, 2, None).classes == tuple(classes.split())
    assert capsys.readouterr().err == ""


def photograph(index):
    file = io.BytesIO()
    pixels = np.full((30, 40 + index, 3), 40 * index, np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set that TFDS prepares: five images of three named classes, and a test
    split without labels."""
    folder = tmp_path_factory.mktemp("tfds")

    class Colors(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "colors"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(encoding_format="png"),
                        "label": tfds.features.ClassLabel(names=["dim", "mid", "lit"]),
                        "file_name": tfds.features.Text(),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples([0, 0, 1, 1, 2]),
                "test": self._generate_examples([-1, -1]),
            }

        def _generate_examples(self, labels):
            for index, label in enumerate(labels):
                yield (
                    index,
                    {
                        "image": io.BytesIO(photograph(index)),
                        "label": label,
                        "file_name": str(index),
                    },
                )

    Colors(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_tfds(prepared, settings):
    images = open_labelled(settings("tfds", prepared, "colors"), "train")
    assert images.classes == ("dim", "mid", "lit")
    assert len(images.names) == 5
    seen = {}
    for index in range(5):
        image, label = images.read(index)
        assert label == images.label(index)
        seen[image.width - 40] = label
        assert (np.asarray(image) == 40 * (image.width - 40)).all()
    assert seen == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}
    other = open_labelled(
        settings("tfds", prepared, "colors"), "train", 2, ("lit", "mid", "dim")
    )
    assert len(other.names) == 2
    by_name = settings("tfds", prepared, "colors", class_order="text")
    again = open_labelled(by_name, "train")
    assert again.classes == ("dim", "lit", "mid")
    assert [again.classes[again.label(n)] for n in range(5)] == [
        images.classes[images.label(n)] for n in range(5)
    ]
    assert [2 - other.label(n) for n in range(2)] == [images.label(n) for n in range(2)]
    (batch,) = training_batches(images, 5, (50, 50), seed=0, epoch=0, workers=1)
    assert sorted(batch.labels) == [0, 0, 1, 1, 2]
    assert [seen[width - 40] for _, width in batch.sizes] == batch.labels.tolist()


def test_tfds_refusals(prepared, settings):
    with pytest.raises(UserError, match=r"is not prepared in .*download_and_prepare"):
        open_labelled(settings("tfds", prepared, "imagenet2012"), "train")
    unlabelled = open_labelled(settings("tfds", prepared, "colors"), "test")
    with pytest.raises(UserError, match=r"test/0 has label -1, outside 0 \.\. 2"):
        next(evaluation_batches(unlabelled, 2, 32))
    with pytest.raises(UserError, match="does not know: mid"):
        open_labelled(
            settings("tfds", prepared, "colors"), "train", classes=("dim", "lit")
        )


def test_scenes(settings):
    images = open_labelled(settings("scenes"), "train", num_images=6)
    assert images.stored == (112, 112) and len(images.names) == 6
    assert canvas_shape(images, 224, 0) == (112, 112)
    (batch,) = training_batches(images, 6, (112, 112), seed=0, epoch=0)
    assert (batch.sizes == 112).all()
    (tested,) = evaluation_batches(images, 6, 224)
    assert tested.pixels.shape == (6, 112, 112, 3)
    for row, label in enumerate(tested.labels):
        np.testing.assert_array_equal(
            tested.pixels[row], images.source.read(row).pixels
        )
        assert label == images.label(row)
    with pytest.raises(UserError, match="no split 'nosuch'"):
        open_labelled(settings("scenes"), "nosuch")
    with pytest.raises(UserError, match="scenes have a fixed order"):
        open_labelled(settings("scenes", class_order="text"), "train")


def test_photographs_with_classes_are_turned_too(tmp_path, prepared, settings):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "cat" / "a.jpg", exif=exif)
    for turned, size in ((False, (20, 10)), (True, (10, 20))):
        chosen = settings("folder", tmp_path, exif_rotation=turned)
        assert open_labelled(chosen, "").read(0)[0].size == size
        chosen = settings("tfds", prepared, "colors", exif_rotation=turned)
        assert open_labelled(chosen, "train").source.exif_rotation == turned


def as_key(batch):
    return [row.tobytes() for row in batch.pixels]


def test_training_batches(folder, settings):
    """Every image once an epoch, but for the remainder, in orders of their own."""
    images = open_labelled(settings("folder", folder), "")
    shape = canvas_shape(images, 32, 0)
    assert shape == (74, 74) and canvas_shape(images, 224, 0) == (512, 512)

    def epoch(number, start=0, seed=0, workers=0):
        return list(
            training_batches(
                images,
                5,
                shape,
                seed=seed,
                epoch=number,
                start=start,
                workers=workers,
            )
        )

    first = epoch(0)
    assert len(first) == 2
    seen = [key for batch in first for key in as_key(batch)]
    assert len(set(seen)) == 10
    orders = {
        tuple(map(tuple, map(as_key, epoch(n, seed=s)))) for n in (0, 1) for s in (0, 1)
    }
    assert len(orders) == 4
    # From anywhere, by processes or threads, the same.
    for other in (epoch(0, workers=1), [first[0], *epoch(0, start=1)]):
        for one, two in zip(first, other, strict=True):
            for a, b in zip(one[:3], two[:3], strict=True):
                np.testing.assert_array_equal(a, b)
    by_pixels = {}
    for index in range(12):
        image, label = images.read(index)
        if max(image.size) <= 74:
            by_pixels[np.asarray(image).tobytes()] = label
    for batch in first:
        for pixels, (height, width), label in zip(*batch[:3], strict=True):
            assert not pixels[height:].any() and not pixels[:, width:].any()
            if (height, width) != (74, 25):  # the one of 300x100
                assert by_pixels[pixels[:height, :width].tobytes()] == label


def test_large_photographs_are_reduced(tmp_path, settings, save_image):
    pixels = save_image(tmp_path / "a" / "1.png", 300, 200, seed=1)
    save_image(tmp_path / "b" / "2.png", 10, 74, seed=2)
    images = open_labelled(settings("folder", tmp_path), "")
    (batch,) = training_batches(images, 2, (75, 75), seed=0, epoch=0)
    sizes = dict(zip(batch.labels.tolist(), batch.sizes.tolist(), strict=True))
    assert sizes == {0: [75, 50], 1: [10, 74]}
    row = batch.labels.tolist().index(0)
    exact = pixels.reshape(75, 4, 50, 4, 3).mean((1, 3))
    found = batch.pixels[row, :, :50]
    assert np.abs(found - exact).mean() < 12  # a triangle is wider than four pixels
    assert abs(found.mean() - exact.mean()) < 1


def test_an_image_that_cannot_be_read_is_replaced(tmp_path, settings, save_image):
    for index in range(4):
        save_image(tmp_path / "ab"[index % 2] / f"{index}.png", seed=index)
    (tmp_path / "a" / "2.png").write_bytes(b"nothing")
    images = open_labelled(settings("folder", tmp_path), "")
    (batch,) = training_batches(images, 4, (64, 64), seed=0, epoch=0)
    (name, reason), *rest = batch.replaced
    assert name == "a/2.png" and "identify" in reason and not rest
    assert len(set(as_key(batch))) == 3
    by_key = {}
    for key, label in zip(as_key(batch), batch.labels, strict=True):
        assert by_key.setdefault(key, label) == label
    with pytest.raises(UserError, match="a/2.png cannot be read"):
        list(training_batches(images, 4, (64, 64), seed=0, epoch=0, strict=True))
    (tested,) = evaluation_batches(images, 4, 32)
    assert tested.valid.sum() == 3 and tested.skipped[0][0] == "a/2.png"
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no image of a batch can be read, such as"):
        list(training_batches(images, 4, (64, 64), seed=0, epoch=0))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (100, 101), (256, 256)])
def test_central_crop(size):
    """Against the definition: resize, then take the middle."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    short = min(size)
    width, height = (int(256 * side / short) for side in size)
    large = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    top, left = int(round((height - 224) / 2.0)), int(round((width - 224) / 2.0))
    expected = large[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(np.asarray(central_crop(image, 224)), expected)


def test_sources_are_small_to_send(folder, settings):
    """What a worker process gets."""
    images = open_labelled(settings("folder", folder), "")
    again = pickle.loads(pickle.dumps(images))
    assert again.names == images.names and again.label(3) == images.label(3)
