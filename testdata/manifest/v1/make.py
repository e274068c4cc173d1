#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows."""

import hashlib
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "pack"))
from holdfast_store import *  # noqa: E402,F403

KEY = bytes(range(32))
files, expect = {}, {}
D = hashlib.sha256(b"content").digest()


def module(name="client", version="1.0.0"):
    return text(name) + text(version)


def file(path="run.sh", mode=0o755, size=7, stored=50, digest=D, policy=0, place=0):
    return text(path) + varint(mode) + varint(size) + varint(stored) + digest + varint(policy) + varint(place)


def updater(platform="linux-x86_64", version=(1, 2, 3), size=1000, stored=900, digest=D):
    return text(platform) + b"".join(map(varint, version)) + varint(size) + varint(stored) + digest


def chunk_list(pack=D, key=1, digest=D, raw_len=100, stored_len=90):
    return pack + varint(key) + digest + varint(raw_len) + varint(stored_len)


def edge(start=1, pack=D, length=1000, key=1, digest=D, raw_len=100, stored_len=90):
    return varint(start) + pack + varint(length) + varint(key) + digest + varint(raw_len) + varint(stored_len)


def body(product="Acme Notes", channel="stable", serial=1, version="1.0.0", published=1790000000, modules=None,
         files=None, updaters=(), ignore=(), chunks=None, edges=(), tail=b""):
    return (text(product) + text(channel) + varint(serial) + text(version) + signed(published)
            + many([module()] if modules is None else modules) + many([file()] if files is None else files)
            + many(updaters) + many(ignore, text) + (chunk_list() if chunks is None else chunks) + many(edges)
            + tail)


def sealed(content, number=1, magic=b"HOLDFMAN", form=1, zero=0):
    head = magic + struct.pack("<HHII", form, zero, number, len(content))
    return head + seal(KEY, MANIFEST, content, UNNAMED)


def put(name, outcome, data):
    files[name + ".manifest"], expect[name + ".manifest"] = data, outcome


def case(name, outcome, **fields):
    put(name, outcome, sealed(body(**fields)))


def paths(name, outcome, *names):
    case(name, outcome, files=[file(path) for path in names])


case("minimal", "ok")
case("full", "ok", modules=[module(), module("help", "7")], updaters=[updater(), updater("windows-x86_64")],
     files=[file("bin/run.sh"), file("help/index.html", 0o644, place=1), file("settings.ini", 0o644, policy=1)],
     ignore=["settings.ini", "logs/**"])
case("no-files", "ok", files=[])
case("appended-fields", "ok", tail=b"new fields")
paths("paths-of-many-scripts", "ok", "Straße.txt", "Привет/мир.txt", "日本語.txt")
good = sealed(body())
put("other-magic", "Malformed", sealed(body(), magic=b"HOLDFPAN"))
put("unknown-format", "UnknownFormat", sealed(body(), form=2))
put("reserved-not-zero", "Malformed", sealed(body(), zero=1))
put("unknown-key", "UnknownKey", sealed(body(), number=2))
put("header-cut", "Malformed", good[:19])
put("nothing", "Malformed", b"")
put("frame-cut", "Undecryptable", good[:-1])
put("frame-flipped", "Undecryptable", good[:60] + bytes([good[60] ^ 1]) + good[61:])
put("length-in-header-changed", "Undecryptable", good[:16] + bytes([good[16] ^ 1]) + good[17:])
put("length-over-limit", "TooLarge", good[:16] + struct.pack("<I", 0xFFFFFFFF) + good[20:])
put("body-cut", "Malformed", sealed(body()[:-1]))
put("string-beyond-end", "Malformed", sealed(varint(2**60) + b"x"))
put("string-not-utf8", "Malformed", sealed(text(b"\xff\xfe") + body()[11:]))
put("endless-number", "Malformed", sealed(text("Acme") + text("stable") + b"\xff" * 20))
put("more-files-than-bytes", "Malformed", sealed(
    text("Acme") + text("stable") + varint(1) + text("1") + signed(1) + many([module()]) + varint(2**40)))
case("product-empty", "Malformed", product="")
case("product-with-control", "Malformed", product="Acme\n")
case("product-too-long", "Malformed", product="x" * 65)
case("channel-with-slash", "Malformed", channel="a/b")
case("version-empty", "Malformed", version="")
case("version-hidden", "Malformed", version="-rf")
case("serial-zero", "Malformed", serial=0)
case("module-twice", "Malformed", modules=[module(), module()])
case("module-missing", "Malformed", files=[file(place=1)])
case("mode-setuid", "Malformed", files=[file(mode=0o4755)])
case("mode-directory", "Malformed", files=[file(mode=0o40755)])
case("file-over-4-gib", "TooLarge", files=[file(size=2**32)])
case("policy-unknown", "Malformed", files=[file(policy=2)])
case("files-out-of-order", "Malformed", files=[file("b"), file("a")])
case("file-twice", "Path", files=[file("a"), file("a")])
case("updater-empty", "TooLarge", updaters=[updater(size=0)])
case("updater-over-limit", "TooLarge", updaters=[updater(size=(64 << 20) + 1)])
case("updaters-out-of-order", "Malformed", updaters=[updater("b"), updater("a")])
case("updater-platform-with-slash", "Malformed", updaters=[updater("../x")])
case("updaters-too-many", "TooLarge", updaters=[updater(f"p{n:02}") for n in range(17)])
case("ignore-too-many", "TooLarge", ignore=["x"] * 257)
case("ignore-does-not-compile", "Malformed", ignore=["[a"])
case("ignore-climbs", "Malformed", ignore=["../**"])
case("ignore-backtracks", "Malformed", ignore=["*a*a*a*a*a*a*a*b"])
case("chunk-list-over-limit", "TooLarge", chunks=chunk_list(raw_len=(16 << 20) + 1))
case("chunk-list-frame-too-short", "Malformed", chunks=chunk_list(stored_len=32))
case("patches-from-two-releases", "ok", serial=9, edges=[edge(3), edge(8, raw_len=1000, stored_len=1000)])
case("patches-out-of-order", "Malformed", serial=9, edges=[edge(8), edge(3)])
case("patches-from-itself", "Malformed", serial=9, edges=[edge(9)])
case("patches-from-too-many", "TooLarge", serial=99, edges=[edge(n) for n in range(1, 66)])
case("patch-set-past-its-pack", "Malformed", serial=9, edges=[edge(3, length=89)])
case("patch-set-over-limit", "TooLarge", serial=9, edges=[edge(3, raw_len=(4 << 20) + 1)])
paths("path-empty", "Path", "")
paths("path-parent", "Path", "../escape")
paths("path-parent-inside", "Path", "a/../../escape")
paths("path-dot", "Path", "./a")
paths("path-absolute", "Path", "/etc/passwd")
paths("path-double-slash", "Path", "a//b")
paths("path-ends-in-slash", "Path", "a/")
paths("path-backslash", "Path", "..\\escape")
paths("path-drive", "Path", "C:evil")
paths("path-stream", "Path", "a.txt:stream")
paths("path-nul", "Path", "a\0b")
paths("path-newline", "Path", "a\nb")
paths("path-wildcard", "Path", "a*")
paths("path-device", "Path", "dir/NUL")
paths("path-device-with-extension", "Path", "com1.txt")
paths("path-device-superscript", "Path", "LPT¹")
paths("path-trailing-dot", "Path", "a.")
paths("path-trailing-space", "Path", "a ")
paths("path-short-alias", "Path", "PROGRA~1")
paths("path-right-to-left", "Path", "gpj\u202eexe.txt")
paths("path-too-long", "Path", "/".join(["x" * 60] * 4))
paths("path-component-too-long", "Path", "x" * 121)
paths("path-too-deep", "Path", "/".join(["x"] * 33))
paths("path-case-twins", "Path", "README", "readme")
paths("path-case-twins-beyond-ascii", "Path", "ÄRGER", "ärger")
paths("path-directory-twins", "Path", "Lib/a", "lib/b")
paths("path-file-and-directory", "Path", "a", "a/b")

files["expect.json"] = json.dumps({"key": {"number": 1, "key": KEY.hex()}, "manifests": expect}, indent=1).encode() + b"\n"
if __name__ == "__main__":
    for name, data in files.items():
        if "--check" in sys.argv:
            assert (HERE / name).read_bytes() == data, f"{name} differs"
        else:
            (HERE / name).write_bytes(data)
    if "--check" in sys.argv:
        print(f"{len(files)} vectors are as they should be")
