"""Small slides in the layouts of the scanners' makers, as OpenSlide and tifffile read them.

Written after the public descriptions of the formats (openslide.org/formats); what real scanners
write beside this (labels, focus maps, overlapping tiles) is not here.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SIDE = 128  # of a tile
PLAIN = {"photometric": "rgb", "metadata": None, "software": False}
TILED = {**PLAIN, "tile": (SIDE, SIDE), "compression": "jpeg", "compressionargs": {"level": 95}}


def jpeg(pixels: Pixels, **options: int) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95, subsampling=0, **options)
    return file.getvalue()


def svs(
    path: Path, levels: list[Pixels], compression: str, said: str, icc: bytes | None = None
) -> Path:
    """Aperio: tiled levels with descriptions, and a thumbnail after the first."""
    height, width = levels[0].shape[:2]
    description = f"Aperio Image Library v12.0.0\n{width}x{height} ({SIDE}x{SIDE}) |{said}"
    options = {**TILED, "compression": compression}
    if compression != "jpeg":
        del options["compressionargs"]
    with tifffile.TiffWriter(path) as writer:
        for index, level in enumerate(levels):
            stored = level
            if compression == "APERIO_JP2000_YCBC":
                stored = np.asarray(Image.fromarray(level).convert("YCbCr"))
            writer.write(stored, description=description, iccprofile=icc, **options)
            if index == 0:
                thumb = np.ascontiguousarray(level[::8, ::8])
                writer.write(thumb, rowsperstrip=16, description=description, **PLAIN)
    return path


def ndpi(path: Path, levels: list[Pixels], mpp: float, power: float) -> Path:
    """Hamamatsu: a classic TIFF whose offsets have 64 bits; a level is one JPEG strip with
    restart markers (to which OpenSlide adds levels of its own)."""
    data = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4
    for index, level in enumerate(levels):
        height, width = level.shape[:2]
        strip, blob = len(data), jpeg(level, restart_marker_blocks=8)
        data += blob
        extra, per_cm = len(data), round(10_000 / (mpp * 2**index))
        data += struct.pack("<4I", per_cm, 1, per_cm, 1) + b"Hamamatsu\0"
        lens = struct.unpack("<I", struct.pack("<f", power / 2**index))[0]
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 7),
            (262, 3, 1, 6), (271, 2, 10, extra + 16), (273, 4, 1, strip), (277, 3, 1, 3),
            (278, 4, 1, height), (279, 4, 1, len(blob)), (282, 5, 1, extra), (283, 5, 1, extra + 8),
            (296, 3, 1, 3), (65420, 3, 1, 1), (65421, 11, 1, lens), (65424, 9, 1, 0),
        ]  # fmt: skip
        struct.pack_into("<Q", data, link, len(data))
        data += struct.pack("<H", len(tags))
        for tag in tags:
            data += struct.pack("<HHII", *tag)
        link = len(data)
        data += struct.pack("<Q", 0) + bytes(4 * len(tags))  # and the high halves of the values
    path.write_bytes(data)
    return path


def scn(
    path: Path,
    levels: list[Pixels],
    mpp: float,
    power: int,
    corner: tuple[int, int] = (0, 0),
    margin: tuple[int, int] = (0, 0),
) -> Path:
    """Leica: a BigTIFF whose XML places images, in nanometres, on the glass; `corner` of the
    scan and the `margin` beyond it in px."""
    sides = [(level.shape[1], level.shape[0]) for level in levels]
    nm = [round(side * mpp * 1000) for side in sides[0]]
    at = [round(px * mpp * 1000) for px in corner]
    glass = [a + b + round(px * mpp * 1000) + 1 for a, b, px in zip(at, nm, margin, strict=True)]
    dimensions = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{i}" ifd="{i}"/>' for i, (w, h) in enumerate(sides)
    )
    xml = (
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:1">'
        f'<collection name="c" uuid="urn:uuid:2" '
        f'sizeX="{glass[0]}" sizeY="{glass[1]}">'
        f'<image name="i" uuid="urn:uuid:3"><pixels sizeX="{sides[0][0]}" sizeY="{sides[0][1]}">'
        f'{dimensions}</pixels><view sizeX="{nm[0]}" sizeY="{nm[1]}" '
        f'offsetX="{at[0]}" offsetY="{at[1]}"/>'
        f"<scanSettings><objectiveSettings><objective>{power}</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for index, level in enumerate(levels):
            per_cm = 10_000 / (mpp * 2**index)
            writer.write(
                level, description=xml if index == 0 else None, resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER", **TILED,
            )  # fmt: skip
    return path


def bif(path: Path, levels: list[Pixels], mpp: float | None, power: int) -> Path:
    """Ventana: a label with the scanner's XML, then the levels; the first one's XML says how its
    tiles meet, numbered from the bottom up and there and back."""
    across, down = levels[0].shape[1] // SIDE, levels[0].shape[0] // SIDE

    def number(column: int, row: int) -> int:
        up = down - 1 - row
        return up * across + (across - 1 - column if up % 2 else column) + 1

    joint = (
        '<TileJointInfo FlagJoined="1" Confidence="100" Direction="{}" Tile1="{}" Tile2="{}" '
        'OverlapX="0" OverlapY="0"/>'
    )
    joints = [
        joint.format("RIGHT", number(c, r), number(c + 1, r))
        for r in range(down)
        for c in range(across - 1)
    ] + [
        joint.format("UP", number(c, r), number(c, r - 1))
        for r in range(1, down)
        for c in range(across)
    ]
    scale = "" if mpp is None else f'ScanRes="{mpp}"'
    first = f'<iScan Z-layers="1" Magnification="{power}" {scale}/>'
    stitched = (
        f'<EncodeInfo Ver="2"><SlideInfo/><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'NumRows="{down}" NumCols="{across}" Width="{SIDE}" Height="{SIDE}" Pos-X="0" Pos-Y="0">'
        f"{''.join(joints)}</ImageInfo></SlideStitchInfo>"
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        label = np.full((64, 64, 3), 200, np.uint8)
        writer.write(label, description="Label Image", extratags=[xml_packet(first)], **PLAIN)
        for index, level in enumerate(levels):
            writer.write(
                level, description=f"level={index} mag={power / 2**index:g} quality=95",
                extratags=[xml_packet(stitched)] if index == 0 else [], **TILED,
            )  # fmt: skip
    return path


def xml_packet(text: str) -> tuple[int, str, int, bytes, bool]:
    return 700, "B", len(text), text.encode(), True


def mrxs(
    path: Path, levels: list[Pixels], mpp: float, power: int, blank: tuple[int, int] = (0, 0)
) -> Path:
    """3DHISTECH: a thumbnail named .mrxs beside a folder with a description, an index and the
    tiles as JPEG files in a row; a tile of level i covers 2^i by 2^i tiles of level 0. The first
    `blank` columns and rows of tiles were not scanned."""
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg(np.ascontiguousarray(levels[-1])))
    across, down = levels[0].shape[1] // SIDE, levels[0].shape[0] // SIDE
    sections = [f"LAYER_0_LEVEL_{i}_SECTION" for i in range(len(levels))]
    lines = [
        "[GENERAL]", "SLIDE_VERSION = 01.02", "SLIDE_ID = AB12", f"IMAGENUMBER_X = {across}",
        f"IMAGENUMBER_Y = {down}", f"OBJECTIVE_MAGNIFICATION = {power}",
        "[HIERARCHICAL]", "HIER_COUNT = 1", "NONHIER_COUNT = 0", "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level", f"HIER_0_COUNT = {len(levels)}",
        *(f"HIER_0_VAL_{i}_SECTION = {section}" for i, section in enumerate(sections)),
        "[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat",
    ]  # fmt: skip
    for index, section in enumerate(sections):
        lines += [
            f"[{section}]", "OVERLAP_X = 0", "OVERLAP_Y = 0", "IMAGE_FORMAT = JPEG",
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**index}", "IMAGE_FILL_COLOR_BGR = 16777215",
            f"MICROMETER_PER_PIXEL_Y = {mpp * 2**index}", f"DIGITIZER_WIDTH = {SIDE}",
            f"DIGITIZER_HEIGHT = {SIDE}", f"IMAGE_CONCAT_FACTOR = {int(index > 0)}",
        ]  # fmt: skip
    (folder / "Slidedat.ini").write_text("\n".join(lines) + "\n")

    data, pages = bytearray(b"AB12"), []
    for index, level in enumerate(levels):
        page = []
        level = np.pad(level, [*((0, -side % SIDE) for side in level.shape[:2]), (0, 0)])
        for row in range(level.shape[0] // SIDE):
            for column in range(level.shape[1] // SIDE):
                if (column + 1) << index <= blank[0] or (row + 1) << index <= blank[1]:
                    continue
                top, left = row * SIDE, column * SIDE
                blob = jpeg(np.ascontiguousarray(level[top : top + SIDE, left : left + SIDE]))
                place = (row * across + column) * 2**index
                page.append((place, len(data), len(blob), 0))
                data += blob
        pages.append(page)
    (folder / "Data0000.dat").write_bytes(data)

    start = b"01.02AB12"
    roots = len(start)
    table = roots + 8
    heads = table + 4 * len(pages)
    at = heads + 8 * len(pages)
    index_file = bytearray(start + struct.pack("<2i", table, table))
    index_file += struct.pack(f"<{len(pages)}i", *(heads + 8 * i for i in range(len(pages))))
    body = bytearray()
    for page in pages:
        index_file += struct.pack("<2i", 0, at + len(body))
        body += struct.pack("<2i", len(page), 0)
        for entry in page:
            body += struct.pack("<4i", *entry)
    (folder / "Index.dat").write_bytes(index_file + body)
    return path
