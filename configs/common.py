"""Defines the keys and defaults of every config; each model's file changes its own."""

import ml_collections


def get_common() -> ml_collections.ConfigDict:
    """Returns a config with every key and its default."""
    config = ml_collections.ConfigDict()

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet50"  # in jdissect.models; '' = as the weights say
    config.model.weights = ""  # folder of a converted checkpoint
    config.model.layers = ("layer4",)  # feature maps to probe; as flag: a,b,c
    config.model.python = ""  # instead: 'package.module:function' that makes a network
    # Of the images of a model.python that does not state its own: of channels in 0..1
    config.model.mean = (0.485, 0.456, 0.406)
    config.model.std = (0.229, 0.224, 0.225)
    config.model.size = 0  # side in pixels to resize them to; 0 = as they are
    # Units that are not channels: FILE for one layer, or LAYER:FILE,LAYER:FILE
    config.model.units = ""
    config.model.baseline = ""  # instead: 'rotation' of its layers, or 'untrained'
    config.model.baseline_seed = 0  # of the rotation, or of the initial parameters

    config.data = ml_collections.ConfigDict()
    # 'scenes', 'folder', 'tfds', 'huggingface'; with masks: 'broden', 'masks', 'coco',
    # 'ade20k', 'voc', 'pascal_context', 'huggingface'; of the network: 'generator'
    config.data.source = "folder"
    config.data.path = ""  # folder of the images; tfds: data_dir, '' for the default
    config.data.name = ""  # tfds: the data set, such as 'imagenet2012'
    config.data.split = ""  # tfds: the split; broden: '' for all rows
    config.data.annotations = (
        ""  # coco: file; pascal_context: folder; huggingface: column
    )
    config.data.ignore = -1  # masks: a number that means no label; -1 = only 0
    config.data.class_order = ""  # of class folders: 'text', 'number', or a file
    config.data.exif_rotation = False  # rotate photographs by their EXIF
    config.data.num_images = 0  # take the first ones; 0 = all; generator: latents
    config.data.seed = 0  # generator: seed of the latents
    config.data.batch_size = 32  # per device and step; up to 4 cores are devices
    config.data.workers = 0  # decoding processes; 0 = threads of this process
    config.data.strict = False  # stop at an unreadable image instead of skipping it

    config.train = ml_collections.ConfigDict()
    config.train.width = 64  # units of a ResNet's stem
    config.train.last_stride = 2  # stride of a ResNet's layer4; 1 for 112-pixel images
    config.train.split = "train"  # tfds, scenes: split; folder: folder in data.path
    config.train.validation_split = "validation"  # likewise; '' for no evaluation
    config.train.num_images = 0  # images of the training split; 0 = all
    config.train.validation_images = 0  # images of the validation split; 0 = all
    config.train.image_size = 224  # side of the network's images, pixels
    config.train.canvas = 0  # larger photographs are reduced to it; 0 = 16/7 image_size
    config.train.epochs = 300
    config.train.batch_size = 256  # images per step, on all devices together
    config.train.bn_group = 64  # images that are normalized together
    config.train.learning_rate = 0.1  # in the first epoch
    config.train.milestones = (0.25, 0.5, 0.75)  # drops to 0.1x here; shares, or epochs
    config.train.momentum = 0.9  # Nesterov momentum
    config.train.weight_decay = 1e-4  # on every parameter
    config.train.seed = 0  # for initialization, image order, augmentation
    config.train.log_every = 50  # steps between lines of metrics.jsonl
    config.train.checkpoint_every = 0  # steps; 0 = every minute; also at epoch ends
    config.train.metrics = ()  # beside metrics.jsonl: 'tensorboard', 'wandb'

    config.augment = ml_collections.ConfigDict()
    config.augment.recipe = "none"  # 'none', 'cutout', 'mixup', 'cutmix', 'saliencymix'
    config.augment.alpha = 1.0  # lambda ~ Beta(alpha, alpha)
    config.augment.group = 0  # images that mix with each other; 0 = the whole batch
    # One lambda and box per batch; unset: for mixup and cutmix, not for saliencymix
    config.augment.one_box_per_batch = ml_collections.config_dict.placeholder(bool)
    config.augment.crop = True  # random resized crop; False: the whole image, resized
    config.augment.crop_area = 0.08  # smallest share of the image that a crop takes
    config.augment.flip = True  # mirror left to right with probability 1/2
    config.augment.jitter = 0.4  # largest share of brightness, contrast, saturation
    config.augment.lighting = 0.1  # deviation along the principal color axes

    config.segmenter = ml_collections.ConfigDict()
    config.segmenter.name = "upernet"  # 'upernet', 'annotations', 'colornames'
    config.segmenter.upernet = ""  # folder of a converted checkpoint, or of ade20k's
    config.segmenter.color = ""  # checkpoint folder, 'colornames', '' for none
    config.segmenter.quarters = "netdissect"  # 'netdissect', 'all', 'none'
    config.segmenter.batch_size = 8  # images per device and call

    config.quantile = 0.01  # maximum share of pixels above a unit's threshold
    config.tail = "upper"  # where units fire: 'upper', 'lower', 'both' (12+ and 12-)
    config.iou_thresholds = (0.03, 0.04, 0.05)  # a unit detects a concept above
    config.mask_size = (
        0  # side of the mask grid in pixels; 0 = the annotations' own, or 56
    )
    config.topk = 5  # images of highest activation to keep per unit
    config.dtype = "float32"  # of the network: 'float32', 'bfloat16'
    config.report = True  # write report.html into the run directory
    config.checkpoint_every = 0  # steps between saves; 0 = about a minute
    config.mesh = ml_collections.ConfigDict()
    config.mesh.unit = 1  # devices that share units; divides a process's devices
    config.parallel = "shard_map"  # 'shard_map', 'pmap': same bits
    config.kernels = ""  # counting kernels: 'cpu', 'gpu', 'tpu'; '' = by device

    config.cache = ml_collections.ConfigDict()
    config.cache.dir = ""  # '' = ~/.cache/jdissect
    config.cache.max_gb = 20.0  # limit for label maps, oldest deleted first; 0 = none
    # Between passes: 'device' (its memory), 'memory', 'disk', 'none'
    config.cache.features = "auto"
    return config


# Probe images of the study's variants: source, data set and split.
STUDY_DATA = {
    "scenes": ("scenes", "", "probe"),
    "imagenet": ("tfds", "imagenet2012", "validation"),
    "places": ("tfds", "places365_small", "validation"),
}


def get_study(name: str, variant: str) -> ml_collections.ConfigDict:
    """Returns the config of one of the paper's five ResNet-50s.

    Args:
      name: name of the recipe.
      variant: a key of STUDY_DATA; '' is 'scenes', the small procedural world whose
        networks come with the package.
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
    """Uses the shipped networks, trained in minutes on two cores."""
    config.model.weights = f"shipped:{name}"
    config.segmenter.upernet = "shipped:upernet"
    config.segmenter.color = "colornames"
    # Concepts are those of the pictures' own masks, which have no quarters.
    config.segmenter.quarters = "none"
    config.data.batch_size = 50
    config.train.width = 12
    config.train.last_stride = 1
    # At this side, random crops of 112-pixel pictures show things at their original
    # size, on average.
    config.train.image_size = 80
    config.train.epochs = 8
    config.train.batch_size = 64
    config.train.bn_group = 32
    config.train.learning_rate = 0.05
    config.train.milestones = (0.5, 0.75, 0.9)
    config.augment.crop_area = 0.25
