"""The vocabulary of the world 'scenes': its concepts and their numbers.

Numbers run through objects, parts, materials and colors, from 1; 0 means no label. A
part with an object's name (door, wall, window) has the object's number, as in UPerNet's
vocabulary.
"""

# Any change to a pixel or a label of any picture needs a new version.
GENERATOR_VERSION = 1

SIDE = 112  # pixels; pictures and label maps are square
MAPS = ("object", "part", "material", "color")  # label maps of a picture, in this order

# The classes that a classifier distinguishes.
CLASSES = (
    "bathroom",
    "beach",
    "bedroom",
    "classroom",
    "desert",
    "farm",
    "forest",
    "garden",
    "harbour",
    "kitchen",
    "living room",
    "mountain lake",
    "office",
    "playground",
    "railway station",
    "street",
)

OBJECT_PARTS: dict[str, tuple[str, ...]] = {
    # background
    "sky": ("cloud", "sun"),
    "mountain": ("peak",),
    "water": ("foam",),
    "sand": (),
    "grass": (),
    "field": ("furrow",),
    "road": ("lane marking", "kerb"),
    "pavement": ("kerb",),
    "quay": ("coping", "bollard"),
    "platform": ("coping",),
    "track": ("rail", "sleeper"),
    "wall": ("skirting board",),
    "floor": (),
    "ceiling": (),
    # plants and rocks
    "rock": (),
    "tree": ("trunk", "crown"),
    "fir": ("trunk", "crown"),
    "palm": ("trunk", "frond"),
    "bush": ("berry",),
    "flower": ("stem", "petal"),
    "cactus": ("stem", "branch"),
    # people and animals
    "person": ("head", "hair", "torso", "arm", "leg", "shoe"),
    "dog": ("head", "ear", "torso", "leg", "tail"),
    "cow": ("head", "horn", "torso", "leg", "tail", "udder"),
    # vehicles
    "car": ("body", "window", "wheel", "door", "headlight"),
    "bus": ("body", "window", "wheel", "door", "headlight"),
    "tractor": ("body", "cab", "wheel", "exhaust"),
    "train": ("body", "window", "wheel", "door", "headlight"),
    "boat": ("hull", "mast", "sail", "cab"),
    # structures
    "house": ("wall", "roof", "door", "window", "chimney"),
    "building": ("wall", "window", "door", "balcony", "cornice"),
    "barn": ("wall", "roof", "door"),
    "lighthouse": ("tower", "lantern", "door"),
    "crane": ("mast", "jib", "cable", "counterweight"),
    "container": ("door",),
    "fence": ("post", "rail"),
    "bench": ("seat", "backrest", "leg"),
    "streetlight": ("pole", "lantern"),
    "traffic light": ("pole", "housing", "lens"),
    "sign": ("pole", "board"),
    "umbrella": ("pole", "canopy"),
    "ball": ("stripe",),
    "slide": ("chute", "ladder"),
    "swing": ("frame", "rope", "seat"),
    # furniture and interior
    "chair": ("seat", "backrest", "leg"),
    "table": ("top", "leg", "drawer"),
    "sofa": ("seat", "backrest", "arm", "cushion"),
    "bed": ("headboard", "mattress", "blanket", "pillow", "leg"),
    "cabinet": ("door", "handle", "top"),
    "stove": ("door", "hob", "knob"),
    "refrigerator": ("door", "handle"),
    "sink": ("basin", "tap"),
    "bathtub": ("basin", "tap"),
    "toilet": ("bowl", "tank", "lid"),
    "mirror": ("frame", "pane"),
    "towel": ("stripe",),
    "lamp": ("shade", "stand"),
    "window": ("frame", "pane", "sill"),
    "door": ("frame", "panel", "handle"),
    "curtain": ("rod",),
    "painting": ("frame", "canvas"),
    "bookcase": ("shelf", "book"),
    "television": ("frame", "screen"),
    "computer": ("screen", "stand", "keyboard"),
    "clock": ("dial", "frame"),
    "plant": ("pot", "leaf"),
    "carpet": ("border",),
    "blackboard": ("frame", "writing"),
    "bottle": ("neck",),
    "cup": ("handle",),
}

MATERIALS = (
    "air",
    "asphalt",
    "brick",
    "ceramic",
    "fabric",
    "foliage",
    "glass",
    "grass",
    "hair",
    "leather",
    "metal",
    "paper",
    "plaster",
    "plastic",
    "rubber",
    "sand",
    "shingle",
    "skin",
    "snow",
    "soil",
    "stone",
    "tile",
    "water",
    "wood",
)

COLORS = (
    "black",
    "blue",
    "brown",
    "gray",
    "green",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
)

OBJECTS = tuple(OBJECT_PARTS)
PARTS = tuple(dict.fromkeys(part for parts in OBJECT_PARTS.values() for part in parts))

CONCEPTS: tuple[tuple[str, str], ...] = (
    ("-", ""),
    *((name, "object") for name in OBJECTS),
    *((name, "part") for name in PARTS if name not in OBJECT_PARTS),
    *((name, "material") for name in MATERIALS),
    *((name, "color") for name in COLORS),
)

_NUMBER = {concept: number for number, concept in enumerate(CONCEPTS)}

OBJECT_NUMBER = {name: _NUMBER[name, "object"] for name in OBJECTS}
PART_NUMBER = {
    name: _NUMBER[name, "object" if name in OBJECT_PARTS else "part"] for name in PARTS
}
MATERIAL_NUMBER = {name: _NUMBER[name, "material"] for name in MATERIALS}
COLOR_NUMBER = {name: _NUMBER[name, "color"] for name in COLORS}
