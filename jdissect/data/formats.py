"""Recognizes image files by name, and explains why some cannot be read.

All image files are listed, so that none is dropped silently. Those that PIL does not
decode are skipped, with a reason that says what to do.
"""

import re

_READ = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "bmp", "dib"),
        *("webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "tga", "avif"),
        *("jp2", "j2k", "jpx", "jpf", "jpc", "j2c", "ico", "icns", "cur", "psd"),
        *("pcx", "dds", "sgi", "qoi", "xbm", "xpm"),
    )
)
# Camera raw formats. Many are TIFF files of which PIL would read the small preview.
_RAW = frozenset(
    (
        *("raw", "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "srw"),
        *("orf", "rw2", "rwl", "raf", "pef", "x3f", "3fr", "fff", "erf", "kdc", "dcr"),
        *("mos", "mrw", "iiq", "mef", "gpr"),
    )
)
_HEIF = frozenset(("heic", "heics", "heif", "heifs", "hif"))
_DRAWINGS = frozenset(("svg", "svgz", "eps", "wmf", "emf"))
_OTHERS = frozenset(
    (
        *("avifs", "jxl", "jxr", "wdp", "hdp", "jls", "jph", "bpg", "flif", "mng"),
        *("jng", "psb", "xcf", "kra", "exr", "hdr", "pfm", "dpx", "fits", "dcm"),
        *("dicom",),
    )
)
_ALL = _READ | _RAW | _HEIF | _DRAWINGS | _OTHERS

# Formats PIL identifies by content but must not load: EPS is a program that Ghostscript
# would run, and FITS has no known value range.
REFUSED = frozenset(("EPS", "FITS"))

# Downloaded files have names like 'x.jpg?width=300' and 'x.jpg_large'.
_EXTENSION = re.compile(r"\.([a-z0-9]+)(?:[?!:@_ ].*)?", re.DOTALL)


def is_image(name: str) -> bool:
    """Returns whether a file name is that of an image, readable or not."""
    return _extension(name) in _ALL


def is_raw(name: str) -> bool:
    """Returns whether a file name is that of a camera raw file."""
    return _extension(name) in _RAW


def reason(name: str) -> str:
    """Returns a short reason why a file that PIL does not know cannot be read."""
    extension = _extension(name)
    kind = extension.upper()
    if extension in _RAW:
        return f"{kind} is a camera raw file; develop it into JPEG, PNG or TIFF"
    if extension in _HEIF:
        return (
            f"{kind} is not read by Pillow; convert it to JPEG or PNG, for example "
            "with the package pillow-heif"
        )
    if extension in _DRAWINGS:
        return f"{kind} is a vector drawing; render it to PNG"
    if extension == "avif":
        return "not an image that PIL can identify; AVIF needs Pillow 11.3 or later"
    if extension in _OTHERS:
        return f"{kind} is not read by Pillow; convert it to JPEG, PNG or TIFF"
    return "not an image that PIL can identify"


def _extension(name: str) -> str:
    """Returns the extension in lower case, without the dot; '' if there is none."""
    base = name.rpartition("/")[2]
    place = base.rfind(".")
    match = _EXTENSION.fullmatch(base[place:].lower()) if place > 0 else None
    return match[1] if match else ""
