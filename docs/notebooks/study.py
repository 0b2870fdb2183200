# %% [markdown]
# # The study: five networks, five training recipes
#
# Networks trained with mixing recipes classify better than a baseline; do their units
# detect as many concepts? The package has five small ResNets, trained on drawn scenes
# without mixing and with Cutout, Mixup, CutMix and SaliencyMix. Scenes come with
# their own masks, so no segmenter is needed.

# %%
import jdissect

scenes = jdissect.scenes.open_scenes("probe", 64)
names = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
found = {
    name: jdissect.dissect(
        f"shipped:{name}", scenes, segmenter="annotations", layers="layer4"
    ).replace(model=name)
    for name in names
}
found["mixup"]

# %% [markdown]
# A unit's concept is the one of highest IoU. Counts by category, at three IoU
# thresholds:

# %%
found["mixup"].plot()

# %% [markdown]
# What a unit responds to most, dark where it does not fire:

# %%
found["mixup"].show(int(found["mixup"].best_iou.argmax()))

# %% [markdown]
# All units as a table:

# %%
table = found["mixup"].to_pandas()
table.sort_values("iou", ascending=False).head(8)

# %% [markdown]
# The five networks beside each other:

# %%
import pandas

pandas.DataFrame(
    {name: result.unique_concepts(0.04) for name, result in found.items()}
).T

# %% [markdown]
# A unit's concept is the best of hundreds, so with 64 images chance adds many. The
# cross-fitted count chooses the concepts on one half of the images and judges them on
# the other; its interval says how much it depends on the selection of images.

# %%
from jdissect.analysis import uncertainty

for name, result in found.items():
    total = uncertainty.estimates(result).counts[0.04]["total"]
    low, high = total.interval
    print(
        f"{name:12} {total.count} concepts, cross-fitted {total.cross_fitted:.0f}, "
        f"95 % interval {low:.0f} to {high:.0f}"
    )

# %% [markdown]
# `python -m jdissect.study` does the same for 5,000 scenes from the command line,
# with UPerNet's labels, and writes figures and pages;
# `jdissect.load("runs/study/mixup")` reads them here.
