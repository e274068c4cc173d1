#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows.

Every step starts from `old.manifest`. What a good one gives lies beside it; no difference is computed here: steps and
manifests are both spelled out.
"""

import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "pack"))
from holdfast_store import *  # noqa: E402,F403

KEY = bytes(range(32))
files, expect = {}, {}
A, B, H, S, U, X, Y, Z, PACK = (hashlib.sha256(bytes([n])).digest() for n in range(9))
EMPTY = hashlib.sha256(b"").digest()

# The release before: its contents are A, B, H, S, U, in places 0 to 4.
OLD_FILES = {
    "a.txt": dict(mode=0o644, size=10, stored=60, digest=A),
    "b.bin": dict(size=1000, stored=900, digest=B),
    "c/d.txt": dict(mode=0o644, size=10, stored=60, digest=A),
    "empty": dict(mode=0o644, size=0, stored=0, digest=EMPTY),
    "help.html": dict(mode=0o644, size=300, stored=200, digest=H, place=1),
    "settings.ini": dict(mode=0o644, size=7, stored=50, digest=S, policy=1),
}
MODULES = [module("client", "1.4.0"), module("help", "7")]
OLD = dict(serial=5, version="1.4.0", modules=MODULES, updaters=[updater(digest=U)], ignore=["settings.ini"])
NEW = dict(OLD, serial=6, version="1.5.0", published=1790001000)


def release(of, changes=None):
    """The manifest with the files of the old release, but for `changes`: None takes one away."""
    known = {**OLD_FILES, **(changes or {})}
    listed = [file(path, **known[path]) for path in sorted(known, key=str.encode) if known[path] is not None]
    return manifest(KEY, files=listed, **of)


def option(item):
    return b"\0" if item is None else b"\1" + item


def changed(skip, digest, size, stored):
    return varint(skip) + digest + signed(size) + signed(stored)


def altered(skip, mode=0o644, policy=0, place=0, stored=60):
    return varint(skip) + varint(mode) + varint(policy) + varint(place) + varint(stored)


def renamed(first, count, at, length, instead):
    return signed(first) + varint(count) + varint(at) + varint(length) + text(instead)


def pack(length=500, number=1):
    return PACK + varint(length) + varint(number)


def part(digest=Z, raw_len=100, stored_len=90):
    return digest + varint(raw_len) + varint(stored_len)


def patch(sources, targets, parts=None):
    return many(sources, signed) + many(targets, signed) + many([part()] if parts is None else parts)


def step(gives=None, start=5, serial=6, version="1.5.0", published=1790001000, modules=None, updaters=None, ignore=None,
         removed=(), copied=(), renames=(), changes=(), alters=(), added=(), pack=None, patches=(), tail=b""):
    """`gives` only lends its blinding, the last 16 bytes of a manifest."""
    blinding = bytes(16) if gives is None else gives[-16:]
    return (varint(start) + varint(serial) + text(version) + signed(published) + blinding
            + option(None if modules is None else many(modules)) + option(None if updaters is None else many(updaters))
            + option(None if ignore is None else many(ignore, text)) + many(removed, varint) + many(copied, signed)
            + many(renames) + many(changes) + many(alters) + many(added) + option(pack) + many(patches) + tail)


def good(name, gives, patches=None, **fields):
    """`patches` of a good one: (sources, targets, where its frames begin, their length) beside what is encoded."""
    encoded, said = zip(*patches) if patches else ((), ())
    files[name + ".step"] = step(gives, patches=encoded, **fields)
    files[name + ".manifest"] = gives
    named = [{"sources": [d.hex() for d in sources], "targets": [d.hex() for d in targets], "offset": offset,
              "stored_bytes": stored} for sources, targets, offset, stored in said]
    expect[name + ".step"] = {"expect": "ok", "gives": name + ".manifest", "patches": named}


def bad(name, outcome, data=None, **fields):
    files[name + ".step"] = step(**fields) if data is None else data
    expect[name + ".step"] = {"expect": outcome}


files["old.manifest"] = release(OLD)

good("only-the-version", release(NEW))
good("file-grows", release(NEW, {"b.bin": dict(size=1200, stored=1000, digest=X)}), changes=[changed(1, X, 200, 100)])
good("file-shrinks", release(NEW, {"b.bin": dict(size=1, stored=49, digest=X)}), changes=[changed(1, X, -999, -851)])
good("two-files-change", release(NEW, {"a.txt": dict(mode=0o644, size=11, stored=61, digest=X),
                                       "help.html": dict(mode=0o644, size=299, stored=200, digest=Y, place=1)}),
     changes=[changed(0, X, 1, 1), changed(3, Y, -1, 0)])
good("files-removed", release(NEW, {"a.txt": None, "help.html": None}), removed=[0, 3])
good("change-counts-what-is-left", release(NEW, {"a.txt": None, "b.bin": None, "empty": dict(mode=0o644, size=5, stored=55, digest=X)}),
     removed=[0, 0], changes=[changed(1, X, 5, 55)])
good("files-added", release(NEW, {"0": dict(size=1, digest=X), "c/a": dict(size=2, digest=Y), "z": dict(size=3, digest=Z)}),
     added=[file("0", size=1, digest=X), file("c/a", size=2, digest=Y), file("z", size=3, digest=Z)])

b_bin, d_txt = OLD_FILES["b.bin"], OLD_FILES["c/d.txt"]
good("file-renamed", release(NEW, {"b.bin": None, "bin/b": b_bin}), renames=[renamed(1, 1, 0, 5, "bin/b")])
good("directory-renamed", release(NEW, {path: None for path in OLD_FILES} | {"acme-1.5/" + path: OLD_FILES[path] for path in OLD_FILES}),
     renames=[renamed(0, 6, 0, 0, "acme-1.5/")])
good("directory-and-file-renamed", release(NEW, {"c/d.txt": None, "e/f.txt": d_txt, "empty": None, "full": dict(OLD_FILES["empty"])}),
     renames=[renamed(2, 1, 0, 1, "e"), renamed(0, 1, 0, 5, "full"), renamed(-2, 1, 2, 1, "f")])
good("renamed-within-letters", release(NEW, {"a.txt": None, "a\u00e4\u00f6.txt": OLD_FILES["a.txt"]}), renames=[renamed(0, 1, 1, 0, "\u00e4\u00f6")])
good("file-removed-and-another-renamed", release(NEW, {"a.txt": None, "c/d.txt": None, "c/e.txt": dict(d_txt, digest=X, size=11, stored=61)}),
     removed=[0], renames=[renamed(1, 1, 2, 1, "e")], changes=[changed(1, X, 1, 1)])
good("renamed-and-changed", release(NEW, {"b.bin": None, "bin/b.bin": dict(b_bin, size=1200, stored=1000, digest=X)}),
     renames=[renamed(1, 1, 0, 0, "bin/")], changes=[changed(1, X, 200, 100)])
good("renamed-and-altered", release(NEW, {"b.bin": None, "d.bin": dict(b_bin, mode=0o644, place=1)}),
     renames=[renamed(1, 1, 0, 1, "d")], alters=[altered(1, mode=0o644, place=1, stored=900)])
good("file-copied", release(NEW, {"b/c.bin": b_bin}), copied=[1], renames=[renamed(6, 1, 0, 5, "b/c.bin")])
good("file-moved-and-copied", release(NEW, {"b.bin": None, "bin/b.bin": b_bin, "sbin/b.bin": b_bin}), copied=[1],
     renames=[renamed(1, 1, 0, 0, "bin/"), renamed(4, 1, 0, 0, "sbin/")])
good("files-copied-and-altered", release(NEW, {"h/help.html": dict(OLD_FILES["help.html"], policy=1), "h/settings": OLD_FILES["settings.ini"], "o/b.bin": b_bin}),
     copied=[4, 0, -5], renames=[renamed(6, 2, 0, 0, "h/"), renamed(0, 1, 0, 0, "o/"), renamed(-2, 1, 10, 4, "")],
     alters=[altered(6, policy=1, place=1, stored=200)])
good("mode-policy-module-altered",
     release(NEW, {"a.txt": dict(size=10, stored=60, digest=A), "c/d.txt": dict(mode=0o644, size=10, stored=60, digest=A, policy=1),
                   "settings.ini": dict(mode=0o644, size=7, stored=50, digest=S, place=1)}),
     alters=[altered(0, mode=0o755), altered(1, policy=1), altered(2, policy=0, place=1, stored=50)])
good("only-the-cost-altered", release(NEW, {"b.bin": dict(size=1000, stored=950, digest=B)}), alters=[altered(1, mode=0o755, stored=950)])
good("changed-and-altered", release(NEW, {"b.bin": dict(mode=0o644, size=1001, stored=901, digest=X)}),
     changes=[changed(1, X, 1, 1)], alters=[altered(1, mode=0o644, stored=901)])
other = dict(modules=[module("client", "1.5.0"), module("help", "8")], updaters=[updater("a"), updater("b")], ignore=["logs/**"])
good("modules-updaters-patterns-replaced", release({**NEW, **other}), **other)
good("lists-emptied", release({**NEW, "updaters": [], "ignore": []}), updaters=[], ignore=[])
good("appended-fields", release(NEW), tail=b"new fields")

# Of what these give the contents are A, X, H, Y, U: places 0 to 4.
patched = release(NEW, {"b.bin": dict(size=1200, stored=1000, digest=X),
                        "settings.ini": dict(mode=0o644, size=9, stored=52, digest=Y, policy=1)})
changes = [changed(1, X, 200, 100), changed(3, Y, 2, 2)]
good("patch-of-one-file", patched, [(patch([1], [1]), ([B], [X], 0, 90))], changes=changes, pack=pack(90))
good("patches-of-several-parts", patched, changes=changes, pack=pack(500), patches=[
    (patch([3, -3, 2], [3, -3], [part(), part(stored_len=91)]), ([S, B, U], [Y, X], 0, 181)),
    (patch([0, -1], [1], [part(raw_len=300, stored_len=319)]), ([A, A], [X], 181, 319))])
good("patch-from-nothing", patched, [(patch([], [4]), ([], [U], 0, 90))], changes=changes, pack=pack())
good("patch-without-parts", patched, [(patch([1], [1], []), ([B], [X], 0, 0))], changes=changes, pack=pack(0))

whole = files["patches-of-several-parts.step"]
bad("nothing", "Malformed", b"")
bad("cut", "Malformed", whole[:-1])
bad("endless-number", "Malformed", b"\xff" * 20)
bad("count-beyond-end", "Malformed", step()[:-2] + varint(2**60))
bad("policy-unknown", "Malformed", alters=[altered(0, policy=2)])
bad("place-over-32-bits", "Malformed", pack=pack(), patches=[patch([2**31], [0])])
bad("patch-without-targets", "Malformed", pack=pack(), patches=[patch([0], [])])
bad("patches-without-a-pack", "Malformed", patches=[patch([0], [0])])
bad("patch-without-parts-and-pack", "Malformed", patches=[patch([0], [0], [])])
bad("patches-past-their-pack", "Malformed", pack=pack(179), patches=[patch([0], [0]), patch([1], [1])])
bad("pack-over-limit", "Malformed", pack=pack((1 << 40) + 1))
bad("part-empty", "Malformed", pack=pack(), patches=[patch([0], [0], [part(raw_len=0)])])
bad("part-over-limit", "TooLarge", pack=pack(1 << 21), patches=[patch([0], [0], [part(raw_len=(1 << 20) + 1)])])
bad("part-frame-too-short", "Malformed", pack=pack(), patches=[patch([0], [0], [part(stored_len=32)])])
bad("part-frame-over-limit", "TooLarge", pack=pack(), patches=[patch([0], [0], [part(raw_len=1, stored_len=130)])])
bad("from-another-release", "Malformed", start=4)
bad("removed-beyond-the-files", "Malformed", removed=[6])
bad("removed-further-beyond-the-files", "Malformed", removed=[5, 0])
bad("removed-at-the-end-of-numbers", "Malformed", removed=[0, 2**32 - 1, 2**32 - 1])
bad("copied-beyond-the-files", "Malformed", copied=[6])
bad("copied-beyond-the-files-from-behind", "Malformed", copied=[5, 0])
bad("copied-before-the-first", "Malformed", copied=[-1])
bad("copied-at-the-end-of-numbers", "Malformed", copied=[2**31 - 1])
bad("copied-past-the-end-of-numbers", "Malformed", copied=[0, 2**31 - 1])
bad("copied-under-its-own-name", "Path", copied=[1])
bad("renamed-beyond-the-files", "Malformed", renames=[renamed(6, 1, 0, 1, "x")])
bad("renamed-beyond-what-is-left", "Malformed", removed=[0], renames=[renamed(5, 1, 0, 1, "x")])
bad("renamed-further-beyond-the-files", "Malformed", renames=[renamed(5, 2, 0, 1, "x")])
bad("renamed-before-the-first", "Malformed", renames=[renamed(-1, 1, 0, 1, "x")])
bad("renamed-back-before-the-first", "Malformed", renames=[renamed(0, 1, 0, 1, "x"), renamed(-2, 1, 0, 1, "y")])
bad("renamed-at-the-end-of-numbers", "Malformed", renames=[renamed(2**31 - 1, 1, 0, 1, "x")])
bad("renamed-past-the-end-of-numbers", "Malformed", renames=[renamed(0, 1, 0, 1, "x"), renamed(2**31 - 1, 1, 0, 1, "x")])
bad("renamed-too-often", "TooLarge", renames=[renamed(0, 2**18 + 1, 0, 1, "x")])
bad("renamed-too-often-together", "TooLarge", renames=[renamed(0, 2**17, 0, 1, "x"), renamed(0, 2**17 + 1, 0, 1, "x")])
bad("renamed-beyond-the-path", "Malformed", renames=[renamed(0, 1, 6, 0, "x")])
bad("renamed-past-the-path", "Malformed", renames=[renamed(0, 1, 0, 6, "x")])
bad("renamed-at-the-end-of-lengths", "Malformed", renames=[renamed(0, 1, 2**32 - 1, 2**32 - 1, "x")])
bad("renamed-amid-a-letter", "Malformed", renames=[renamed(0, 1, 1, 0, "\u00e4"), renamed(-1, 1, 2, 0, "x")])
bad("renamed-half-a-letter", "Malformed", renames=[renamed(0, 1, 1, 0, "\u00e4"), renamed(-1, 1, 1, 1, "x")])
bad("renamed-to-nothing", "Path", renames=[renamed(0, 1, 0, 5, "")])
bad("renamed-to-climb", "Path", renames=[renamed(0, 6, 0, 0, "../")])
bad("renamed-to-another", "Path", renames=[renamed(0, 1, 0, 5, "b.bin")])
bad("renamed-to-one-name", "Path", renames=[renamed(0, 1, 0, 5, "x"), renamed(0, 1, 0, 5, "X")])
bad("renamed-below-a-file", "Path", renames=[renamed(0, 1, 0, 0, "b.bin/")])
bad("renamed-to-a-device", "Path", renames=[renamed(0, 1, 0, 1, "con")])
bad("renamed-too-long", "Path", renames=[renamed(0, 1, 0, 0, "x/" * 20 + "x" * 120 + "/" + "x" * 80)])
bad("renamed-longer-than-any-path", "Path", renames=[renamed(0, 1, 0, 0, "x" * 716), renamed(-1, 1, 0, 716, "")])
bad("changed-beyond-the-files", "Malformed", changes=[changed(6, X, 0, 0)])
bad("changed-beyond-what-is-left", "Malformed", removed=[0], changes=[changed(5, X, 0, 0)])
bad("changed-at-the-end-of-numbers", "Malformed", changes=[changed(2**32 - 1, X, 0, 0)])
bad("altered-beyond-the-files", "Malformed", alters=[altered(3), altered(2)])
bad("altered-to-setuid", "Malformed", alters=[altered(0, mode=0o4755)])
bad("altered-to-no-module", "Malformed", alters=[altered(0, place=2)])
bad("module-taken-away", "Malformed", modules=[module("client", "1.5.0")])
bad("size-below-nothing", "TooLarge", changes=[changed(0, X, -11, 0)])
bad("size-over-4-gib", "TooLarge", changes=[changed(0, X, 2**32 - 10, 0)])
bad("added-is-there-already", "Path", added=[file("a.txt")])
bad("added-twice", "Path", added=[file("new"), file("new")])
bad("added-climbs", "Path", added=[file("../escape")])
bad("added-below-a-file", "Path", added=[file("a.txt/b")])
bad("serial-zero", "Malformed", serial=0)
bad("version-empty", "Malformed", version="")
bad("patterns-climb", "Malformed", ignore=["../**"])
for name, place in {"negative": [-1], "beyond-the-contents": [5], "beyond-the-contents-from-behind": [4, 0],
                    "back-before-the-first": [1, -3], "at-the-end-of-numbers": [2**31 - 1],
                    "past-the-end-of-numbers": [0, 2**31 - 1], "at-the-lowest-number": [-(2**31)],
                    "past-the-lowest-number": [0, -(2**31)]}.items():
    bad("source-" + name, "Malformed", pack=pack(), patches=[patch(place, [0])])
    bad("target-" + name, "Malformed", pack=pack(), patches=[patch([0], place)])
bad("patch-gives-more-than-4-gib", "Malformed", changes=[changed(0, X, 2**32 - 11, 0)], pack=pack(),
    patches=[patch([], [0, -1])])

files["expect.json"] = json.dumps(
    {"key": {"number": 1, "key": KEY.hex()}, "from": "old.manifest", "steps": expect}, indent=1).encode() + b"\n"
if __name__ == "__main__":
    write_or_check(HERE, files, "--check" in sys.argv)
