#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. Source: docs/formats/device-image.md, Regions."""

import pathlib
import sys
from struct import pack
from zlib import crc32

HERE = pathlib.Path(__file__).resolve().parent
REGION = 512
FILE = bytes(7 * i % 256 for i in range(100))


def footer(length, magic=b"HOLDFREG", version=1):
    fields = pack("<8sHHI12x", magic, version, 0, length)
    return fields + pack("<I", crc32(fields))


def region(end):
    return FILE.ljust(REGION - 32, b"\xff") + end


flipped = bytearray(footer(100))
flipped[12] ^= 1
VECTORS = {
    "file-of-100-bytes.region": region(footer(100)),
    "erased.region": b"\xff" * REGION,
    "footer-checksum-wrong.region": region(bytes(flipped)),
    "footer-half-written.region": region(footer(100)[:16] + b"\xff" * 16),
    "longer-than-its-region.region": region(footer(REGION - 31)),
    "unknown-format.region": region(footer(100, version=2)),
    "unknown-magic.region": region(footer(100, magic=b"HOLDFREH")),
}

for name, data in VECTORS.items():
    path = HERE / name
    if sys.argv[1:] == ["--check"]:
        assert path.read_bytes() == data, name + " is not what this program writes"
    else:
        path.write_bytes(data)
