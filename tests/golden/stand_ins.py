"""What the original programs import and a CPU without torchvision lacks.

None of it is the originals' code. PyTorch's `.cuda()` becomes the identity. Of
torchvision the few transforms that netdissect uses are here, on Pillow. The CUDA
kernel of Precise RoI pooling is compiled as it stands for the CPU: its text is read
from the checkout, and each thread runs in turn.
"""

import ctypes
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

_PRELUDE = """
#include <cmath>
#include <cstdlib>
#include <type_traits>
#define __device__
#define __global__
#define __forceinline__ inline
struct Index { int x; };
static Index blockIdx{0}, blockDim{1}, threadIdx{0}, gridDim{1};
typedef int cudaStream_t;
typedef int cudaError_t;
static const int cudaSuccess = 0;
static int cudaGetLastError() { return 0; }
static const char* cudaGetErrorString(int) { return ""; }
template <class A, class B> typename std::common_type<A, B>::type max(A a, B b)
{ return a > b ? a : b; }
template <class A, class B> typename std::common_type<A, B>::type min(A a, B b)
{ return a < b ? a : b; }
static void atomicAdd(float* place, float value) { *place += value; }
static void cudaMemsetAsync(void*, int, size_t, int) {}
"""
_LAUNCH = """
extern "C" void every_thread(const float* data, const float* rois, float* out,
    int channels, int height, int width, int rows, int columns, float scale, int n) {
  gridDim.x = n;
  for (blockIdx.x = 0; blockIdx.x < n; ++blockIdx.x)
    PrRoIPoolingForward(n, data, rois, out, channels, height, width, rows, columns,
                        scale);
}
"""


def compiled_pooling(netdissect: Path, folder: Path):
    """`prroi_pool2d` by the kernel of the checkout `netdissect`, built in `folder`."""
    source = netdissect / "netdissect" / "upsegmodel" / "prroi_pool" / "src"
    kernel = (source / "prroi_pooling_gpu_impl.cu").read_text()
    kernel = re.sub(r"<<<.*?>>>", "", kernel, flags=re.DOTALL)
    (folder / "pooling.cpp").write_text(_PRELUDE + kernel + _LAUNCH)
    library = folder / "pooling.so"
    flags = ["-O1", "-w", "-shared", "-fPIC", f"-I{source}"]
    subprocess.run(
        ["g++", *flags, str(folder / "pooling.cpp"), "-o", str(library)], check=True
    )
    every_thread = ctypes.CDLL(str(library)).every_thread

    def pool(features, rois, rows, columns, scale):
        features, rois = features.contiguous(), rois.contiguous()
        out = torch.empty(len(rois), features.shape[1], rows, columns)
        places = (ctypes.c_void_p(t.data_ptr()) for t in (features, rois, out))
        sizes = (*features.shape[1:], rows, columns)
        every_thread(*places, *sizes, ctypes.c_float(scale), out.numel())
        return out

    return pool


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    def __init__(self, size):
        self.size = size  # (height, width)

    def __call__(self, image):
        return image.resize(self.size[::-1], Image.Resampling.BILINEAR)


class CenterCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        left, top = ((side - self.size) // 2 for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


class ToTensor:
    def __call__(self, image):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255)


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, pixels):
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std


class Never:
    """A transform that nothing here is an instance of."""


def install(netdissect: Path, folder: Path):
    """Puts the checkout on the path, and all stand-ins where it looks for them."""
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    transforms = types.ModuleType("torchvision.transforms")
    for one in (Compose, Resize, CenterCrop, ToTensor, Normalize):
        setattr(transforms, one.__name__, one)
    transforms.RandomCrop = transforms.RandomResizedCrop = Never
    loading = types.ModuleType("torchvision.datasets.folder")
    loading.default_loader = lambda path: Image.open(path).convert("RGB")
    datasets = types.ModuleType("torchvision.datasets")
    datasets.folder = loading
    vision = types.ModuleType("torchvision")
    vision.transforms, vision.datasets = transforms, datasets
    nearest = types.ModuleType("statsmodels.stats.correlation_tools")
    nearest.cov_nearest = nearest.corr_nearest = None  # imported and never called
    kernel = "netdissect.upsegmodel.prroi_pool.functional"
    pooling = types.ModuleType(kernel)
    pooling.prroi_pool2d = compiled_pooling(netdissect, folder)
    for module in (vision, transforms, datasets, loading, nearest, pooling):
        sys.modules[module.__name__] = module
    sys.path.insert(0, str(netdissect))
    return pooling.prroi_pool2d
