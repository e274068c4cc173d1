#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "pack"))
from holdfast_store import *  # noqa: E402,F403

KEY = bytes(range(32))
files, expect = {}, {}


def put(name, outcome, data):
    files[name + ".manifest"], expect[name + ".manifest"] = data, outcome


def case(name, outcome, **fields):
    put(name, outcome, manifest(KEY, **fields))


def paths(name, outcome, *names):
    case(name, outcome, files=[file(path) for path in names])


case("minimal", "ok")
case("full", "ok", modules=[module(), module("help", "7")], updaters=[updater(), updater("windows-x86_64")],
     files=[file("bin/run.sh"), file("help/index.html", 0o644, place=1), file("settings.ini", 0o644, policy=1)],
     ignore=["settings.ini", "logs/**"])
case("no-files", "ok", files=[])
case("appended-fields", "ok", tail=b"new fields")
paths("paths-of-many-scripts", "ok", "Straße.txt", "Привет/мир.txt", "日本語.txt")
good = manifest(KEY)
put("nothing", "Malformed", b"")
put("cut-in-the-blinding", "Malformed", good[:-1])
put("string-beyond-end", "Malformed", varint(2**60) + b"x")
put("string-not-utf8", "Malformed", text(b"\xff\xfe") + good[11:])
put("endless-number", "Malformed", text("Acme") + text("stable") + b"\xff" * 20)
put("more-files-than-bytes", "Malformed",
    text("Acme") + text("stable") + varint(1) + text("1") + signed(1) + many([module()]) + varint(2**40))
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
    write_or_check(HERE, files, "--check" in sys.argv)
