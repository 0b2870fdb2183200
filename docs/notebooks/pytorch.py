# %% [markdown]
# # My own PyTorch model
#
# A network is converted once, and is then dissected by JAX. Here a small one is
# trained first, so that its units have something to detect: it says which of three
# colors a picture has most of.

# %%
import numpy as np
import torch

import jdissect

torch.manual_seed(0)
scenes = jdissect.scenes.open_scenes("probe", 96)
pixels = np.stack([scenes.read(index).pixels for index in range(96)])
images = torch.tensor(pixels).permute(0, 3, 1, 2) / 255
labels = images.mean(dim=(2, 3)).argmax(dim=1)

model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 24, 5, stride=2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(24, 48, 3, stride=2),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(48, 3),
)
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(40):
    loss = torch.nn.functional.cross_entropy(model((images - 0.5) / 0.25), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")

# %% [markdown]
# Three lines: convert, dissect, look. The module normalizes nothing by itself, so
# `mean` and `std` say how pixels become its inputs. `3` is the second ReLU, by its
# dotted name in the module.

# %%
jdissect.convert_torch(
    model.eval(), images[:1], "3", "mine", mean=[0.5] * 3, std=[0.25] * 3
)
result = jdissect.dissect("mine", pixels, segmenter="colornames", layers="3")
result

# %%
result.plot("Colors that a small network detects")

# %% [markdown]
# The unit of highest IoU, and the table of all units:

# %%
result.show(int(result.best_iou.argmax()))

# %%
result.to_pandas().sort_values("iou", ascending=False).head(6)

# %% [markdown]
# Photographs of your own: `jdissect.dissect("mine", "PHOTOGRAPHS", ...)`, or a
# `DataLoader`. Objects, parts and materials:
# `segmenter=jdissect.segmenters.UPerNet(FOLDER)`. Masks of your own: a loader of
# (image, mask) with `concepts=` in place of `segmenter=`.
