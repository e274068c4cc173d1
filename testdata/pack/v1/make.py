#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows."""

import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from holdfast_store import *  # noqa: E402,F403

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 3
files, frames, lists = {}, {}, {}


def sha(content):
    return hashlib.sha256(content).digest()


def frame(name, expect, stored, content=TEXT, kind=CHUNK, digest=None, raw_len=None, stored_len=None):
    files[name + ".frame"] = stored
    frames[name + ".frame"] = {
        "expect": expect,
        "kind": kind,
        "digest": (sha(content) if digest is None else digest).hex(),
        "raw_len": len(content) if raw_len is None else raw_len,
        "stored_len": len(stored) if stored_len is None else stored_len,
    }


good = seal(KEY, CHUNK, TEXT)
frame("chunk", "ok", good)
frame("one-byte", "ok", seal(KEY, CHUNK, b"x"), b"x")
frame("run-of-zeros", "ok", seal(KEY, CHUNK, bytes(200000)), bytes(200000))
frame("part-of-a-patch", "ok", seal(KEY, PATCH, TEXT), kind=PATCH)
for kind, called in {CHUNK_LIST: "chunk-list", MANIFEST: "manifest", STEP: "step"}.items():
    frame("unnamed-" + called, "ok", seal(KEY, kind, TEXT, UNNAMED), kind=kind, digest=UNNAMED)
for kind, called in {CHUNK: "chunk", PATCH: "part-of-a-patch"}.items():
    frame("unnamed-" + called, "WrongDigest", seal(KEY, kind, TEXT, UNNAMED), kind=kind, digest=UNNAMED)
flip = lambda at: good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]  # noqa: E731
frame("salt-flipped", "Undecryptable", flip(0))
frame("ciphertext-flipped", "Undecryptable", flip(40))
frame("tag-flipped", "Undecryptable", flip(len(good) - 1))
frame("other-key", "Undecryptable", seal(OTHER, CHUNK, TEXT))
frame("other-kind", "Undecryptable", good, kind=CHUNK_LIST)
frame("other-digest", "Undecryptable", good, digest=sha(b"other"))
frame("other-length", "Undecryptable", good, raw_len=len(TEXT) + 1)
frame("cut", "WrongLength", good[:-1], stored_len=len(good))
frame("longer", "WrongLength", good + b"\0", stored_len=len(good))
frame("shorter-than-salt-and-tag", "Malformed", good[:32])
frame("empty", "Malformed", b"")
frame("digest-of-other-content", "WrongDigest", seal(KEY, CHUNK, TEXT, sha(b"other")), digest=sha(b"other"))
bomb = zstd(bytes(1 << 20))
frame("bomb", "Malformed", seal_compressed(KEY, CHUNK, sha(bytes(100)), 100, bomb), bytes(100))
liar = zstd(bytes(1 << 20), claim=100)
frame("bomb-that-claims-less", "Malformed", seal_compressed(KEY, CHUNK, sha(bytes(100)), 100, liar), bytes(100))
frame("less-than-it-says", "Malformed", seal_compressed(KEY, CHUNK, sha(TEXT), len(TEXT), zstd(TEXT[:-1])))
frame("not-zstd", "Malformed", seal_compressed(KEY, CHUNK, sha(TEXT), len(TEXT), TEXT))
frame("content-over-limit", "TooLarge", good, raw_len=(1 << 20) + 1)
frame("frame-over-limit", "TooLarge", good, raw_len=1, stored_len=200)

A, B = sha(b"a"), sha(b"b")
FIRST, SECOND = sorted([A, B])


def pack(digest=A, length=1000, key=1):
    return digest + varint(length) + varint(key)


def chunk(digest=A, raw_len=100, place=0, offset=0, stored_len=90):
    return digest + varint(raw_len) + varint(place) + varint(offset) + varint(stored_len)


def content(digest=FIRST, size=100, chunks=(0,)):
    return digest + varint(size) + many(chunks, varint)


def chunk_list(name, expect, packs, chunks, contents, tail=b""):
    files[name + ".list"] = many(packs) + many(chunks) + many(contents) + tail
    lists[name + ".list"] = {"expect": expect}


chunk_list("none", "ok", [], [], [])
chunk_list("two-contents", "ok", [pack()], [chunk(), chunk(B, offset=90)],
           [content(FIRST, 200, (0, 1)), content(SECOND, 100, (1,))])
chunk_list("a-chunk-used-twice", "ok", [pack()], [chunk()], [content(FIRST, 200, (0, 0))])
chunk_list("empty-content", "ok", [], [], [content(FIRST, 0, ())])
chunk_list("appended-fields", "ok", [pack()], [chunk()], [content()], b"new fields")
chunk_list("no-such-pack", "Malformed", [pack()], [chunk(place=1)], [])
chunk_list("past-the-pack", "Malformed", [pack()], [chunk(offset=911)], [])
chunk_list("offset-overflows", "Malformed", [pack()], [chunk(offset=2**64 - 1)], [])
chunk_list("empty-chunk", "Malformed", [pack()], [chunk(raw_len=0)], [])
chunk_list("chunk-over-limit", "TooLarge", [pack()], [chunk(raw_len=(1 << 20) + 1)], [])
chunk_list("frame-over-limit", "TooLarge", [pack()], [chunk(stored_len=300)], [])
chunk_list("frame-too-short", "Malformed", [pack()], [chunk(stored_len=32)], [])
chunk_list("pack-over-limit", "TooLarge", [pack(length=(1 << 40) + 1)], [], [])
chunk_list("no-such-chunk", "Malformed", [pack()], [chunk()], [content(chunks=(1,))])
chunk_list("chunks-do-not-add-up", "Malformed", [pack()], [chunk()], [content(size=101)])
chunk_list("contents-out-of-order", "Malformed", [pack()], [chunk()], [content(SECOND), content(FIRST)])
chunk_list("content-twice", "Malformed", [pack()], [chunk()], [content(), content()])
whole = files["two-contents.list"]
for name, data in {"cut": whole[:-1], "count-beyond-end": varint(2**60), "nothing": b"", "endless-number": b"\xff" * 20}.items():
    files[name + ".list"] = data
    lists[name + ".list"] = {"expect": "Malformed"}

files["expect.json"] = json.dumps(
    {"key": {"number": 1, "key": KEY.hex()}, "frames": frames, "lists": lists}, indent=1).encode() + b"\n"
if __name__ == "__main__":
    for name, data in files.items():
        if "--check" in sys.argv:
            assert (HERE / name).read_bytes() == data, f"{name} differs"
        else:
            (HERE / name).write_bytes(data)
    if "--check" in sys.argv:
        # What the product wrote itself: the salt and the tag must be what this implementation computes.
        own = json.loads((HERE / "product.json").read_text())
        for name, of in own.items():
            stored = (HERE / name).read_bytes()
            compressed = open_compressed(KEY, of["kind"], bytes.fromhex(of["digest"]), of["raw_len"], stored)
            assert compressed.startswith(bytes.fromhex("28b52ffd")), f"{name} holds no zstd frame"
        print(f"{len(files)} vectors are as they should be, {len(own)} of the product's own are readable")
