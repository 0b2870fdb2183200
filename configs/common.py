"""What every config has; each model's file changes what is its own."""

import ml_collections


def get_common() -> ml_collections.ConfigDict:
    """A config with every key and its default."""
    config = ml_collections.ConfigDict()

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet50"  # of jdissect.models; '' = what the weights are of
    config.model.weights = ""  # a converted checkpoint's folder
    config.model.layers = ("layer4",)  # feature maps to probe; a,b,c on a command line

    config.data = ml_collections.ConfigDict()
    config.data.source = "folder"  # 'folder', 'broden', 'tfds'
    config.data.path = (
        ""  # folder of the images; tfds: its data_dir, '' for the default
    )
    config.data.name = ""  # tfds: the data set, such as 'imagenet2012'
    config.data.split = ""  # tfds: the split; broden: '' for all rows
    config.data.class_order = ""  # of class folders: 'text', 'number', or a list's path
    config.data.exif_rotation = False  # turn photographs as their EXIF says
    config.data.num_images = 0  # the first so many; 0 = all
    config.data.batch_size = 32  # images a device a step; cores are devices, up to 4
    config.data.workers = 0  # processes that decode; 0 = threads of this one
    config.data.strict = False  # stop at an unreadable image instead of skipping it

    config.train = ml_collections.ConfigDict()
    config.train.width = 64  # units of a ResNet's stem
    config.train.last_stride = 2  # of a ResNet's layer4; 1 for pictures of 112 pixels
    config.train.split = "train"  # tfds, scenes: split; folder: folder in data.path
    config.train.validation_split = "validation"  # likewise; '' for no evaluation
    config.train.num_images = 0  # of the training split; 0 = all
    config.train.validation_images = 0  # of the validation split; 0 = all
    config.train.image_size = 224  # side of the network's images, pixels
    config.train.canvas = 0  # larger photographs are reduced to it; 0 = 16/7 image_size
    config.train.epochs = 300
    config.train.batch_size = 256  # images a step, of all devices together
    config.train.bn_group = 64  # images that are normalized together
    config.train.learning_rate = 0.1  # of the first epoch
    config.train.milestones = (0.25, 0.5, 0.75)  # times 0.1 from these; shares, epochs
    config.train.momentum = 0.9  # Nesterov's
    config.train.weight_decay = 1e-4  # of every parameter
    config.train.seed = 0  # start, order of images, augmentation
    config.train.log_every = 50  # steps between lines of metrics.jsonl
    config.train.checkpoint_every = 0  # steps; 0 = once a minute; and every epoch's end

    config.augment = ml_collections.ConfigDict()
    config.augment.recipe = "none"  # 'none', 'cutout', 'mixup', 'cutmix', 'saliencymix'
    config.augment.alpha = 1.0  # lambda ~ Beta(alpha, alpha)
    config.augment.group = 0  # images that exchange among themselves; 0 = the batch
    # One lambda and box for a batch; unset: for mixup and cutmix, not for saliencymix
    config.augment.one_box_per_batch = ml_collections.config_dict.placeholder(bool)
    config.augment.crop = True  # random resized crop; False: the whole image, resized
    config.augment.crop_area = 0.08  # smallest share of the image that a crop takes
    config.augment.flip = True  # left to right, every other image
    config.augment.jitter = 0.4  # largest share of brightness, contrast, saturation
    config.augment.lighting = 0.1  # deviation along the colours' main axes

    config.segmenter = ml_collections.ConfigDict()
    config.segmenter.name = "upernet"  # 'upernet', 'annotations', 'colornames'
    config.segmenter.upernet = ""  # converted checkpoint's folder
    config.segmenter.color = ""  # checkpoint's folder, 'colornames', '' for none
    config.segmenter.quarters = "netdissect"  # 'netdissect', 'all', 'none'
    config.segmenter.batch_size = 8  # images a device a call

    config.quantile = 0.01  # share of pixels above a unit's threshold, at most
    config.iou_thresholds = (0.03, 0.04, 0.05)  # a unit detects a concept above
    config.mask_size = (
        0  # side of the mask grid, pixels; 0 = the annotation's own, or 56
    )
    config.topk = 5  # images of highest activation to keep a unit
    config.dtype = "float32"  # 'float32', 'bfloat16'; of the network
    config.report = True  # write report.html into the run directory
    config.checkpoint_every = 0  # steps from save to save; 0 = about a minute
    config.mesh = ml_collections.ConfigDict()
    config.mesh.unit = 1  # devices that share an image's units; divides a process's
    config.parallel = "shard_map"  # 'shard_map', 'pmap': the same bits

    config.cache = ml_collections.ConfigDict()
    config.cache.dir = ""  # '' = ~/.cache/jdissect
    config.cache.max_gb = 20.0  # of label maps, the oldest go first; 0 = no bound
    config.cache.features = "auto"  # between passes: 'memory', 'disk', 'none' = anew
    return config


# Probe images of the study's variants: source, data set and split.
STUDY_DATA = {
    "scenes": ("scenes", "", "probe"),
    "imagenet": ("tfds", "imagenet2012", "validation"),
    "places": ("tfds", "places365_small", "validation"),
}


def get_study(name: str, variant: str) -> ml_collections.ConfigDict:
    """One of the paper's five ResNet-50s.

    Args:
      name: of the recipe.
      variant: a key of STUDY_DATA; '' is 'scenes', the small world with networks that
        come with the package.
    """
    from jdissect.base.errors import UserError

    variant = variant or "scenes"
    if variant not in STUDY_DATA:
        there = ", ".join(STUDY_DATA)
        raise UserError(
            f"configs/{name}.py has no variant '{variant}'; it has: {there}"
        )
    config = get_common()
    config.data.source, config.data.name, config.data.split = STUDY_DATA[variant]
    if variant == "scenes":
        _use_scenes(config, name)
    return config


def _use_scenes(config: ml_collections.ConfigDict, name: str) -> None:
    """Shipped networks, and how they were trained: in minutes on two cores."""
    config.model.weights = f"shipped:{name}"
    config.segmenter.upernet = "shipped:upernet"
    config.segmenter.color = "colornames"
    # Concepts are then those of the pictures' own masks, which have no quarters.
    config.segmenter.quarters = "none"
    config.data.batch_size = 50
    config.train.width = 12
    config.train.last_stride = 1
    # The side at which the crops of pictures of 112 show things as large as they are
    # there, on average.
    config.train.image_size = 80
    config.train.epochs = 8
    config.train.batch_size = 64
    config.train.bn_group = 32
    config.train.learning_rate = 0.05
    config.train.milestones = (0.5, 0.75, 0.9)
    config.augment.crop_area = 0.25
