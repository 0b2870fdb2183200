"""Chooses the folder in `config.data.path` that an evaluation uses.

A dissection uses all images under the path and ignores splits, while a config may name
a split for other sources ('validation' of ImageNet). With the same flags, an evaluation
uses the class folders that exist.
"""

import ml_collections

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.datasets.labelled import WNID_NAME

# Names of folders that contain class folders rather than being some.
_SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
)


def chosen(
    config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, str]:
    """Returns the config with a split that exists.

    Args:
      config: `data.source`, `.path` and `.split` select the images.

    Returns:
      the config itself, or a copy whose split is '' if the path has class folders but
      no folder of the split's name; and a line that says so.

    Raises:
      UserError: neither exists. The message says what does, and what to give.
    """
    data = config.data
    if data.source != "folder" or not data.path:
        return config, ""
    root = paths.from_user(data.path).expanduser()
    if not root.is_dir() or (data.split and (root / data.split).is_dir()):
        return config, ""
    folders = sorted(n for n in paths.folders_in(root) if not n.startswith("."))
    splits = [name for name in folders if name.lower() in _SPLITS]
    if splits and (data.split or splits == folders):
        has = "has the folders"
        if data.split:
            has = f"has no folder '{data.split}' (config.data.split), but"
        raise UserError(
            f"{root} {has} {', '.join(splits)}; give the one "
            f"that holds the class folders, such as --config.data.split={splits[-1]}"
        )
    if not data.split:
        return config, ""
    if not folders and not _has_wnids(root):
        raise UserError(
            f"{root} has no class folders; evaluation needs FOLDER/CLASS/*.jpg, "
            f"where FOLDER is config.data.path, or its folder '{data.split}' "
            "(config.data.split)"
        )
    config = config.copy_and_resolve_references()
    note = f"{root} has no folder '{data.split}'; using its own class folders"
    config.data.split = ""
    return config, note


def _has_wnids(root: paths.Path) -> bool:
    """Returns whether a folder has images that are named by their class."""
    return any(WNID_NAME.match(path.name) for path in root.iterdir())
