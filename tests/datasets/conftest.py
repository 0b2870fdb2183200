"""Small data sets that the tests of sources share, written by hand."""

import types

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def config():
    """Makes what `open_source` needs of config.data."""

    def make(source, path="", **changes):
        defaults = {"split": "", "num_images": 0, "strict": False, "name": ""}
        return types.SimpleNamespace(
            source=source, path=str(path), **(defaults | changes)
        )

    return make


def _save_image(path, height=30, width=40, seed=0, **options):
    """Saves a random RGB image and returns its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture(name="save_image")
def save_image_fixture():
    """Saves a random RGB image."""
    return _save_image


def _save_mask(path, numbers):
    """Saves label numbers as Broden codes them: red + 256 * green."""
    numbers = np.asarray(numbers)
    coded = np.stack([numbers % 256, numbers // 256, 0 * numbers], -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coded.astype(np.uint8)).save(path)


@pytest.fixture(name="save_mask")
def save_mask_fixture():
    """Saves a mask as Broden codes it."""
    return _save_mask


@pytest.fixture
def photos(tmp_path):
    """Five images, the third of them corrupt."""
    for i in range(5):
        _save_image(tmp_path / "photos" / f"{i}.png", seed=i)
    (tmp_path / "photos" / "2.png").write_bytes(b"not an image")
    return tmp_path / "photos"


BRODEN_TABLES = {
    # door is a part by coverage although more images have it as an object; lamp ties,
    # so the later category of category.csv, part, wins. 4 and 5 are gaps.
    "label.csv": """number,name,category,frequency,coverage,syns
1,sky,object(9),9,9.0,
2,"door, wooden",object(8);part(3),8,1.0,"door;""gate"" 2"
3,lamp,object(2);part(2),2,1.0,
6,street,scene(4),4,4.0,
7,-,object(1),1,1.0,
300,handle,part(1),1,1.0,
""",
    "category.csv": """name,first,last,count,frequency
object,1,3,3,20
part,2,300,3,6
scene,6,6,1,4
""",
    "c_object.csv": """code,number,name,frequency,coverage
1,1,sky,9,9.0
2,2,"door, wooden",8,1.5
3,3,lamp,2,0.25
4,7,-,1,1.0
""",
    "c_part.csv": """code,number,name,frequency,coverage
1,2,"door, wooden",3,2.5
2,3,lamp,2,0.25
3,300,handle,1,1.0
""",
    "c_scene.csv": "code,number,name,frequency,coverage\n1,6,street,4,4.0\n",
    "index.csv": """image,split,ih,iw,sh,sw,object,part,scene
a/mixed.jpg,train,8,12,2,3,a/mixed_object.png,a/p1.png;300;a/p2.png,6
a/empty.jpg,val,8,12,2,3,,,
a/zero.jpg,train,8,12,2,3,a/zero_object.png,,
b/whole.jpg,train,8,12,2,3,1;7,,
b/cross.jpg,val,8,12,2,3,b/cross_object.png,,
""",
}


@pytest.fixture
def broden(tmp_path):
    """A Broden folder of five images, 8x12 pixels, masks 2x3."""
    root = tmp_path / "broden"
    images = root / "images"
    images.mkdir(parents=True)
    for name, text in BRODEN_TABLES.items():
        (root / name).write_text(text)
    for seed, name in enumerate(["a/mixed", "a/empty", "a/zero", "b/whole", "b/cross"]):
        _save_image(images / f"{name}.jpg", 8, 12, seed)
    _save_mask(images / "a/mixed_object.png", [[0, 1, 1], [7, 0, 0]])
    _save_mask(images / "a/p1.png", [[0, 0, 0], [0, 0, 300]])
    _save_mask(images / "a/p2.png", [[0, 2, 0], [0, 0, 0]])
    _save_mask(images / "a/zero_object.png", np.zeros((2, 3), int))
    _save_mask(images / "b/cross_object.png", [[3, 3, 0], [0, 0, 0]])
    return root
