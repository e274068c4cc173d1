#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows."""

import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "pack"))
from holdfast_store import *  # noqa: E402,F403

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
LIMIT = {MANIFEST: 12 << 20, CHUNK_LIST: 16 << 20, STEP: 8 << 20}
NAMES = {MANIFEST: "manifest", CHUNK_LIST: "chunk-list", STEP: "step"}
TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 3
files, expect = {}, {}


def put(name, kind, outcome, data):
    files[name + ".sealed"] = data
    expect[name + ".sealed"] = {"kind": kind, "expect": outcome}


for kind, called in NAMES.items():
    good = sealed(KEY, kind, TEXT)
    put(called, kind, "ok", good)
    put(called + "-empty", kind, "ok", sealed(KEY, kind, b""))
    put(called + "-as-long-as-may-be", kind, "Undecryptable", good[:16] + struct.pack("<I", LIMIT[kind]) + good[20:])
    put(called + "-over-its-limit", kind, "TooLarge", good[:16] + struct.pack("<I", LIMIT[kind] + 1) + good[20:])
    other = MANIFEST if kind != MANIFEST else STEP
    put(called + "-with-the-name-of-another", kind, "Malformed", sealed(KEY, kind, TEXT, magic=MAGIC[other]))
    put(called + "-with-the-frame-of-another", kind, "Undecryptable", sealed(KEY, other, TEXT, magic=MAGIC[kind]))

good = sealed(KEY, MANIFEST, TEXT)
put("nothing", MANIFEST, "Malformed", b"")
put("header-cut", MANIFEST, "Malformed", good[:19])
put("header-alone", MANIFEST, "Malformed", good[:20])
put("unknown-magic", MANIFEST, "Malformed", sealed(KEY, MANIFEST, TEXT, magic=b"HOLDFPAN"))
put("unknown-format", MANIFEST, "UnknownFormat", sealed(KEY, MANIFEST, TEXT, form=2))
put("reserved-not-zero", MANIFEST, "Malformed", sealed(KEY, MANIFEST, TEXT, zero=1))
put("unknown-key", MANIFEST, "UnknownKey", sealed(KEY, MANIFEST, TEXT, number=2))
put("other-key-of-that-number", MANIFEST, "Undecryptable", sealed(OTHER, MANIFEST, TEXT))
put("frame-cut", MANIFEST, "Undecryptable", good[:-1])
put("frame-longer", MANIFEST, "Undecryptable", good + b"\0")
put("frame-flipped", MANIFEST, "Undecryptable", good[:60] + bytes([good[60] ^ 1]) + good[61:])
put("length-in-header-changed", MANIFEST, "Undecryptable", good[:16] + bytes([good[16] ^ 1]) + good[17:])
head, bomb = good[:16] + struct.pack("<I", 100), zstd(bytes(1 << 20))
put("bomb", MANIFEST, "Malformed", head + seal_compressed(KEY, MANIFEST, UNNAMED, 100, bomb))

files["expect.json"] = json.dumps(
    {"key": {"number": 1, "key": KEY.hex()}, "content": TEXT.decode(), "sealed": expect}, indent=1).encode() + b"\n"
if __name__ == "__main__":
    write_or_check(HERE, files, "--check" in sys.argv)
