"""Opens the source 'folder': any tree of image files, without annotations.

Geometry is netdissect's: resize to 256x256, center crop 224.
"""

import dataclasses
import os
from pathlib import Path

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_files
from jdissect.data.formats import is_image
from jdissect.data.images import CROPPED, decode_cropped
from jdissect.data.source import Annotations, Example


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Images of a folder, sorted by name.

    Attributes:
        root: the folder.
        names: relative paths with '/'.
        paths: the image files, in the order of `names`.
        smallest: side in pixels below which an image counts as unreadable.
        exif_rotation: rotate photographs by their EXIF orientation.
    """

    root: paths.Path
    names: tuple[str, ...]
    paths: tuple[str, ...] = dataclasses.field(repr=False)
    image_shape: tuple[int, int] = (CROPPED, CROPPED)
    annotations: Annotations | None = None
    smallest: int = 1
    exif_rotation: bool = False

    def file(self, index: int) -> str:
        """Returns the path of image `index`."""
        return self.paths[index]

    def read(self, index: int) -> Example:
        """Reads image `index`; raises UnreadableImage if it is corrupt."""
        path, name = self.paths[index], self.names[index]
        pixels = decode_cropped(path, name, self.smallest, self.exif_rotation)
        return Example(pixels, labels=None, annotated=None)

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each file; see `content_hashes.hash_files`."""
        files = [paths.to_path(path) for path in self.paths[only]]
        return hash_files(files, cache_dir, f"folder {self.root}")


def open_folder(
    path: str, num_images: int = 0, exif_rotation: bool = False
) -> FolderSource:
    """Opens a folder with all image files under it, including unreadable ones.

    Hidden files and folders and other extensions are left out. Links to folders are
    followed, except back into a folder that contains the link. A dangling link stays
    in the list and is reported as unreadable.

    Args:
        path: the folder.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF orientation.

    Returns:
        the source, names in byte order.

    Raises:
        UserError: the folder does not exist or contains no image files.
    """
    if not path:
        raise UserError("source 'folder' needs config.data.path, a folder of images.")
    root = paths.absolute(paths.from_user(path).expanduser())
    if not root.exists():
        raise UserError(f"config.data.path: {root} does not exist.")
    if not root.is_dir():
        raise UserError(
            f"config.data.path: {root} is a file; source 'folder' needs a folder."
        )
    if paths.is_remote(root):
        found = _image_objects(root)
    else:
        found = _image_files(root)
    found.sort(key=os.fsencode)
    if not found:
        raise UserError(
            f"config.data.path: {root} has no image files "
            "(jpg, jpeg, png, bmp, webp, gif, tif, ...)."
        )
    if num_images:
        found = found[:num_images]
    return FolderSource(
        root=root,
        # File names may be undecodable bytes, but names are written to UTF-8 files.
        names=tuple(
            os.fsencode(name).decode("utf-8", "backslashreplace") for name in found
        ),
        paths=tuple(str(root / name) for name in found),
        exif_rotation=exif_rotation,
    )


def _image_objects(root: paths.Path) -> list[str]:
    """Like `_image_files`, for an object store: one listing per folder."""

    def refuse(error: OSError) -> None:
        raise error

    with paths.reaching(root):
        # On Python 3.11 only epath has it, which comes without types.
        walked = list(root.walk(on_error=refuse))  # type: ignore[union-attr]
    # The first is `root` itself; it may lack its gs://, and then all others do too.
    found = [
        (folder / name).relative_to(walked[0][0]).as_posix()
        for folder, _, files in walked
        for name in files
    ]
    return [
        name
        for name in found
        if not any(part.startswith(".") for part in name.split("/")) and is_image(name)
    ]


def _image_files(root: Path) -> list[str]:
    """Returns the relative paths of images under `root`, in no particular order."""
    found = []
    folders: list[tuple[Path, str, frozenset]] = [(root, "", frozenset())]
    while folders:
        folder, prefix, above = folders.pop()
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue
            with os.scandir(folder) as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(
                f"{printable(str(folder))} cannot be listed: {error.strerror}."
            ) from None
        for entry in entries:
            name = prefix + entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder, is_file = False, False
            if is_folder:
                folders.append((Path(entry.path), f"{name}/", above | {here}))
            elif is_image(entry.name) and (is_file or entry.is_symlink()):
                found.append(name)
    return found
