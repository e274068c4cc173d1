#!/usr/bin/env python3
"""Writes the vectors in this directory; `make.py --check` compares instead. See expect.json for what each one shows.

The patches are written by the independent implementation beside the vectors, with copies and modes that are laid down here: an
encoder may find better ones, a decoder must give the same. Those in product.json are the product's own.
"""

import json
import pathlib
import sys
from hashlib import sha256
from struct import pack

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "independent"))
import patches  # noqa: E402
import zstd  # noqa: E402
from patches import ARM64, DATA, FILE, X86, Space  # noqa: E402

LZMA, LZMA_WORDS = ("lzma", 3, 0, 0), ("lzma", 0, 2, 2)
files, expect = {}, {}


# Small programs: functions that refer to each other and to tables, once more with bytes in between


def text(seed, length):
    """Bytes that look like no field of an instruction."""
    digests = b"".join(sha256(repr((seed, n)).encode()).digest() for n in range(length // 32 + 1))
    return bytes(0x30 + byte % 0x2F for byte in digests[:length])


def word(value):
    return pack("<I", value % 2**32)


class Layout:
    """Pieces one behind the other; their bytes are told once all places are known."""

    def __init__(self):
        self.pieces, self.places, self.at = [], {}, 0

    def add(self, name, length, tell=None):
        self.places[name] = self.at
        self.pieces.append((name, length, tell))
        self.at += length

    def image(self):
        out = b"".join((tell(self.places[name]) if tell else text(name, length)) for name, length, tell in self.pieces)
        assert len(out) == self.at
        return out

    def copies(self, old):
        """What both have, joined where it stands together in both; cut at odd places, too."""
        found = []
        for name, length, _ in self.pieces:
            if name not in old.places:
                continue
            to, start = self.places[name], old.places[name]
            if found and found[-1][0] + found[-1][2] == to and found[-1][1] + found[-1][2] == start:
                found[-1] = (*found[-1][:2], found[-1][2] + length)
            else:
                found.append((to, start, length))
        cut = []
        for to, start, length in found:
            if length > 200:
                cut += [(to, start, 101), (to + 101, start + 101, 70), (to + 172, start + 172, length - 172)]
            else:
                cut.append((to, start, length))
        return cut


CODE, DATA_DISTANCE, HEADER = 0x401000, 0x7F000, 96
FUNCTIONS = 24


def program(code, machine, more):
    """(layout, space). `more` bytes stand in front of some functions and tables, and the data is moved by 16 times that."""
    layout, data_base = Layout(), (code & ~0xFFF) + DATA_DISTANCE + 16 * more
    function = lambda n: code + layout.places[("body", n % FUNCTIONS)] - HEADER
    # Every fifth stands behind what is in the file.
    datum = lambda n: data_base + (
        end - start + 64 * n + more * (n // 2) if n % 5 == 0 else layout.places[("table", n % 4)] - start + 8 * n % 64
    )
    layout.add("header", HEADER)

    def x86(n):
        def tell(place):
            here = code + place - HEADER
            out = b"\xe8" + word(function(7 * n + 3) - here - 5)
            out += b"\x48\x8d\x05" + word(datum(n) - here - 12)
            out += b"\x0f\x84" + word(function(n + 2) - here - 18)
            out += b"\xc5\x10\x10\x0d" + word(datum(n + 1) - here - 26)
            out += b"\xbf" + word(datum(n + 2)) + b"\x48\x89\x04\x25" + word(datum(n + 3))
            return out + b"\xe8" + word(0x7000000) + bytes(n % 3)

        return 44 + n % 3, tell

    def arm64(n):
        def tell(place):
            here = code + place - HEADER
            target = datum(n) + 8
            pages = (target >> 12) - (here + 4 >> 12)
            page = 0x90000000 | n % 8 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
            add = 0x91000000 | (target & 0xFFF) << 10 | n % 8 << 5 | 9
            load = 0xF9400000 | (target & 0xFFF) >> 3 << 10 | n % 8 << 5 | 10
            wide = 0x3DC00000 | (target & 0xFFF) >> 4 << 10 | n % 8 << 5 | 11
            near = function(n + 1) - here - 20
            adr = 0x10000000 | (near & 3) << 29 | (near >> 2 & 0x7FFFF) << 5
            branch = 0x94000000 | (function(5 * n + 2) - here >> 2) & 0x3FFFFFF
            return b"".join(map(word, (branch, page, add, load, wide, adr)))

        return 24, tell

    for n in range(FUNCTIONS):
        if n % 9 == 4:
            layout.add(("inserted", n, more), more)
        if n % 7 == 5 and more:
            size, tell = (x86 if machine == X86 else arm64)(n + 11)
            layout.add(("new", n), size, tell)
        layout.add(("body", n), 20 + 4 * (n % 5))
        size, tell = (x86 if machine == X86 else arm64)(n)
        layout.add(("references", n), size, tell)
    layout.add("align", -layout.at % 8)
    start = layout.at
    tables = [
        lambda place: b"".join(word(function(n) - (data_base + place - start + 4 * n)) for n in range(40)),
        lambda place: b"".join(word(function(3 * n) - code) for n in range(40)),
        lambda place: b"".join(pack("<Q", (function, datum)[n % 2](n)) for n in range(20)),
        lambda place: b"".join(word(datum(n) - (data_base + place - start + 4 * n)) for n in range(40)),
    ]
    for n, table in enumerate(tables):
        layout.add(("grown", n, more), (more + 7) // 8 * 8)
        layout.add(("table", n), 160, table)
    for stride in (4, 8, 12, 16, 20, 24, 40, 44):
        grow = lambda place, stride=stride: b"".join(
            word(1000 * (n * 4 % stride) + 3 * n + 16 * more) for n in range(stride // 2)
        )
        layout.add(("growing", stride), 2 * stride, grow)
    end = layout.at
    layout.add("between", 40)
    symbols = layout.at
    for n in range(12):
        layout.add(("symbol", n), 24, lambda place, n=n: pack("<IIQQ", 90 + 7 * n + more, 0x120002, function(n), 40))
    layout.add("tail", 30)
    regions = [
        (HEADER, start - HEADER, code, start - HEADER, machine),
        (start, end - start, data_base, end - start + 0x1000, DATA),
        (symbols, 12 * 24, 0, 0, FILE),
    ]
    return layout, Space(regions, [code, data_base, code & ~0xFFFF])


class Pair:
    def __init__(self, name, code, new_code, machine):
        self.name = name
        (old, self.old_space), (new, self.new_space) = program(code, machine, 0), program(new_code, machine, 36)
        self.old, self.new, self.copies = old.image(), new.image(), new.copies(old)
        # Behind the data, where the file has none.
        _, length, address, _, _ = self.old_space.regions[1]
        moves = [(address + length, 0x400, 0x300), (address + length + 0x400, 0x900, -0x50), (address + 50, 70, 0x11)]
        self.spaces = self.old_space, self.new_space, moves
        files[name + ".old"], files[name + ".new"] = self.old, self.new

    def good(self, name, shows, modes, codecs=None):
        patch = patches.write(self.old, self.new, self.copies, modes, self.spaces, codecs)
        vector(name, shows, patch, self.name + ".old", self.name + ".new")


def vector(name, shows, patch, old, new, outcome="ok", reason=None):
    files[name + ".patch"] = patch
    expect[name + ".patch"] = {"shows": shows, "old": old, "new": new, "expect": outcome}
    if reason:
        expect[name + ".patch"]["reason"] = reason


MODES = ["nothing", "code", "code-absolute", "relative-to-code", "relative", "absolute"]
MODES += ["base-%d" % n for n in range(4)] + ["carried-%d" % n for n in patches.STRIDES] + ["symbols", "nearest"]
lzma_all = {name: LZMA for name in patches.STREAMS}
x86 = Pair("x86-64", CODE, CODE + 0x40, X86)
arm64 = Pair("arm64", CODE, CODE + 0x1040, ARM64)
windows = Pair("x86-64-high", 0x1_4000_1000, 0x1_4000_1000, X86)
for number, mode in enumerate(MODES):
    x86.good("mode-%02d-%s" % (number, mode), "every block in this mode", lambda n, number=number: number, lzma_all)
x86.good("modes-in-turn", "fields that reach from one block into the next", lambda n: n % 20, lzma_all)
x86.good("modes-code-and-tables", "the same, backwards", lambda n: (2, 1, 5, 4, 3, 0)[n % 6], lzma_all)
for number in (1, 2, 4, 5):
    arm64.good("arm64-mode-%02d" % number, "ARM64 code", lambda n, number=number: number, lzma_all)
arm64.good("arm64-modes-in-turn", "ARM64 code, and tables", lambda n: (1, 5, 1, 3, 6, 18)[n % 6], lzma_all)
windows.good("x86-64-high-modes", "addresses over 4 GiB", lambda n: (1, 4, 5, 6, 3)[n % 5], lzma_all)
files["empty"] = b""

codecs = lambda codec: {name: codec for name in patches.STREAMS}
for name, codec in (("stored", "stored"), ("zstd", "zstd"), ("lzma-lc3", LZMA), ("lzma-lp2-pb2", LZMA_WORDS)):
    if name != "lzma-lc3":
        x86.good("codec-" + name, "every stream in this codec", lambda n: (1, 5, 3)[n % 3], codecs(codec))
vector("old-is-empty", "nothing but literals", patches.write(b"", x86.new, []), "empty", "x86-64.new")
vector("new-is-empty", "nothing", patches.write(x86.old, b"", []), "x86-64.old", "empty")
vector("both-are-empty", "nothing at all", patches.write(b"", b"", []), "empty", "empty")
vector("literals-only", "an old file that is of no use", patches.write(x86.old, x86.new, []), "x86-64.old", "x86-64.new")
literal_code = patches.write(x86.old, x86.new, [], lambda n: 0, x86.spaces)
vector("literals-of-code", "references stand as addresses", literal_code, "x86-64.old", "x86-64.new")
vector("copies-alone", "no program", patches.write(x86.old, x86.new, x86.copies), "x86-64.old", "x86-64.new")
patch = patches.write(x86.old, x86.new, x86.copies, lambda n: 5, x86.spaces, lzma_all, zeros=True)
vector("zeros-are-added", "residuals of zeros, not left out", patch, "x86-64.old", "x86-64.new")
backwards = [(0, 1000, 700), (700, 0, 900), (1650, 90, 1000)]
patch = patches.write(x86.old, x86.new, backwards, lambda n: n % 20, x86.spaces, lzma_all)
vector("copies-that-overlap", "the map takes the longest copy", patch, "x86-64.old", "x86-64.new")
lines = [b"%d: %s\n" % (n, text(n % 40, 20 + n % 11)) for n in range(160)]
changed = lines[:20] + [b"a new line, and " + lines[20][:9] + b"\n"] + lines[21:70] + lines[90:110] + lines[70:90]
changed += [line.replace(b"1", b"one") for line in lines[110:130]] + lines[131:] + [b"the end of it: " + bytes(40) + b"\xff"]
files["lines.old"], files["lines.new"] = b"".join(lines), b"".join(changed)
LINES, CHANGED = files["lines.old"], files["lines.new"]


def place(of, where):
    at = where.index(of)
    return at, len(of)


pieces = [b"".join(lines[:20]), b"".join(lines[21:70]), b"".join(lines[90:110]), b"".join(lines[70:90]), b"".join(lines[131:])]
moved = [(place(piece, CHANGED)[0], *place(piece, LINES)) for piece in pieces]
edit = lambda name, shows, copies, old="lines.old", new="lines.new", **how: vector(
    name, shows, patches.edits(files[old], files[new], copies, **how), old, new)
edit("edits", "copies in turn, literals between and behind them", moved)
edit("edits-with-control-in-lzma", "numbers of copies compressed", moved, codecs={name: LZMA for name in patches.CONTROL})
edit("edits-literals-alone", "old bytes to the literals' own length and 32", [])
edit("edits-of-nothing", "an empty old file", [], old="empty")
edit("edits-copies-alone", "no literals", [(0, 0, len(LINES))], new="lines.old")
edit("edits-to-nothing", "an empty new file", [], new="empty")
edit("edits-of-a-program", "bytes of all values", [], old="x86-64.old", new="x86-64.new")
files["long.old"] = b"".join(b"%d,%d;" % (n, n * n % 1009) for n in range(1200))
files["long.new"] = files["long.old"].replace(b"8,", b"8:")[:9000]
edit("edits-window-over-limit", "literals that are told 8 KiB", [], old="long.old", new="long.new")


# Those that a reader must refuse


OLD, NEW = len(x86.old), len(x86.new)
STREAMS = patches.raw_streams(x86.old, x86.new, x86.copies, lambda n: 0, x86.spaces)


def bad(name, shows, patch, reason, outcome="Malformed"):
    vector(name, shows, patch, "x86-64.old", "x86-64.new", outcome, reason)


PACKED = {"residual": LZMA, "literals": LZMA}


def broken(name, shows, reason, streams=STREAMS, count=len(x86.copies), spaces=x86.spaces, old=OLD, new=NEW,
           codec=PACKED, outcome="Malformed", **changes):
    bad(name, shows, patches.matches(old, new, count, streams, spaces, codec, **changes), reason, outcome)


def with_copies(copies, copied=None):
    """Streams of copies that need not fit."""
    out, ends = {name: b"" for name in patches.STREAMS}, [0, 0]
    for to, start, length in copies:
        out["gaps"] += patches.postcard.varint(to - ends[0])
        out["steps"] += patches.zigzag(start - ends[1])
        out["lengths"] += patches.postcard.varint(length)
        ends = [to + length, start + length]
    count = min(sum(length for _, _, length in copies) if copied is None else copied, NEW)
    return {**out, "literals": bytes(NEW - count)}


good = patches.matches(OLD, NEW, len(x86.copies), STREAMS, x86.spaces, PACKED)
head_end = 4 + int.from_bytes(good[:4], "little")
bad("nothing-at-all", "no bytes", b"", "cut")
bad("cut-in-the-length", "three bytes", good[:3], "cut")
bad("cut-in-the-head", "a byte of the head is not there", good[:head_end - 1], "cut")
bad("cut-in-a-stream", "the last byte is not there", good[:-1], "cut short", "Patch")
bad("head-over-limit", "a head of 16 KiB and a byte", pack("<I", 16385) + bytes(16385), "over a limit")
bad("head-does-not-decode", "a number without an end", pack("<I", 20) + b"\xff" * 20, "body does not parse")
bad("head-is-cut", "a head that is shorter than its fields", pack("<I", 9) + good[4:], "body does not parse")
bad("unknown-method", "method 2", pack("<I", 5) + patches.postcard.varint(OLD) + patches.postcard.varint(NEW) + b"\2",
    "body does not parse")
broken("other-old-length", "for a file that is a byte longer", "other lengths", old=OLD + 1)
longer = {**STREAMS, "literals": STREAMS["literals"] + b"x"}
broken("other-new-length", "gives a byte more than is asked for", "other lengths", streams=longer, new=NEW + 1)
broken("old-over-4-gib", "2^32 old bytes", "over a limit", old=2**32)
broken("new-over-4-gib", "2^32 new bytes", "over a limit", streams={**STREAMS, "literals": b""}, new=2**32,
       literals={"raw": 2**32 - sum(length for _, _, length in x86.copies)})
broken("copies-over-limit", "2^18 copies and one", "over a limit", count=2**18 + 1)
broken("streams-do-not-add-up", "a byte less than the new length", "does not add up", streams={**STREAMS,
       "literals": STREAMS["literals"][1:]})
broken("packed-lengths-overflow", "streams of 2^64 - 1 bytes", "does not add up", literals={"codec": "zstd", "window": 17,
       "packed": 2**64 - 1}, residual={"codec": "zstd", "window": 17, "packed": 2**64 - 1})
broken("stored-but-shorter", "a stored stream of other length than its content", "does not add up", gaps={"raw": 1})
broken("more-modes-than-bytes", "more blocks than copied bytes", "does not add up", modes={"codec": "zstd", "window": 17,
       "raw": NEW})
broken("window-over-limit", "a window of 16 MiB", "over a limit", gaps={"codec": "lzma", "window": 24, "props": 0})
broken("windows-over-limit", "windows of 8 MiB, 8 MiB, 8 MiB", "over a limit",
       **{name: {"codec": "zstd", "window": 23} for name in ("modes", "residual", "literals")})
broken("control-windows-over-limit", "the same in front", "over a limit",
       **{name: {"codec": "zstd", "window": 23} for name in ("gaps", "steps", "lengths")})
broken("lzma-properties-over-limit", "lc 4, lp 1", "over a limit",
       residual={"codec": "lzma", "window": 12, "props": 4 + 9})
broken("lzma-properties-impossible", "225", "over a limit", residual={"codec": "lzma", "window": 12, "props": 225})
broken("copy-of-nothing", "a length of 0", "outside", with_copies([(0, 0, 0)]), 1)
broken("copy-past-the-old-end", "a byte more than there is", "outside", with_copies([(0, 1, OLD)]), 1)
broken("copy-past-the-new-end", "a byte more than is asked for", "outside", with_copies([(NEW - 9, 0, 10)]), 1)
broken("copy-in-front-of-the-old", "a step to -1", "outside", with_copies([(0, -1, 10)]), 1)
broken("copy-of-2-64-bytes", "a length that overflows", "outside", with_copies([(0, 9, 2**64 - 1)], 10), 1)
overflowing = {**STREAMS, "gaps": b"\xff" * 9 + b"\2" + STREAMS["gaps"][1:]}
broken("number-over-64-bits", "2^64 and more", "number too long", overflowing)
broken("number-without-end", "eleven bytes that go on", "number too long", {**STREAMS, "lengths": b"\x80" * 99})
broken("fewer-lengths-than-copies", "a stream ends early", "stream too short", {**STREAMS, "lengths":
       STREAMS["lengths"][:-1]})
broken("more-steps-than-copies", "a stream holds more", "not used up", {**STREAMS, "steps": STREAMS["steps"] + b"\0"})
copied = NEW - len(STREAMS["literals"])
broken("residual-over-limit", "pairs for a byte more than is copied", "does not add up", {**STREAMS,
       "residual": bytes(2 * copied + 2)})
broken("residual-ends-in-a-pair", "a byte without the next", "stream too short", {**STREAMS,
       "residual": STREAMS["residual"] + b"\0"})
broken("residual-behind-the-copies", "a pair for what is not there", "not used up", {**STREAMS,
       "residual": STREAMS["residual"] + b"\xff\1" * 8})
broken("residual-across-the-end", "zeros that go on behind the last block", "not used up", {**STREAMS,
       "residual": STREAMS["residual"] + b"\xff\1" * 3})
broken("fewer-modes-than-blocks", "a stream ends early", "stream too short", {**STREAMS, "modes": STREAMS["modes"][:-1]})
broken("more-modes-than-blocks", "a stream holds more", "not used up", {**STREAMS, "modes": STREAMS["modes"] + b"\0"})
broken("unknown-mode", "mode 20", "unknown mode", {**STREAMS, "modes": STREAMS["modes"][:-1] + b"\x14"})
region = x86.old_space.regions[0]
spaces = lambda regions, bases=(): (Space(regions, bases), x86.new_space)
broken("too-many-regions", "65 regions", "over a limit", spaces=spaces([(n, 1, n, 1, DATA) for n in range(65)]))
broken("too-many-moves", "513 moves", "over a limit", spaces=(*x86.spaces[:2], [(n, 1, n) for n in range(513)]))
broken("too-many-bases", "5 bases", "over a limit", spaces=spaces([region], [0] * 5))
broken("regions-overlap", "the same region twice", "regions overlap", spaces=spaces([region, region]))
broken("region-past-the-end", "a region that is longer than the file", "outside",
       spaces=spaces([(96, OLD, region[2], 0, DATA)]))
broken("zstd-damaged", "a stream that is no zstd frame", "does not decompress", outcome="Patch",
       residual={"codec": "zstd", "window": 17})
broken("zstd-window-larger-than-said", "a frame with a window of 128 KiB in a stream with one of 64", "does not decompress",
       codec={"residual": "zstd"}, outcome="Patch", residual={"window": 16})
broken("zstd-holds-less", "a frame that ends early", "does not decompress", codec={"literals": "zstd"}, outcome="Patch",
       streams={**STREAMS, "literals": STREAMS["literals"][:-1]}, literals={"raw": len(STREAMS["literals"])})
broken("lzma-damaged", "a stream that LZMA cannot begin with", "does not decompress", outcome="Patch", codec={},
       streams={**STREAMS, "residual": b"\1" + STREAMS["residual"][1:]}, residual={"codec": "lzma", "window": 12, "props": 93})
broken("lzma-holds-less", "a stream that ends early", "does not decompress", codec={"literals": LZMA}, outcome="Patch",
       streams={**STREAMS, "literals": STREAMS["literals"][:-40]}, literals={"raw": len(STREAMS["literals"])})


def bad_edits(name, shows, reason, outcome="Malformed", copies=moved, **changes):
    patch = patches.edits(LINES, CHANGED, copies, literals=b"literals", **changes)
    vector(name, shows, patch, "lines.old", "lines.new", outcome, reason)


bad_edits("edits-literals-over-limit", "8 MiB of literals and a byte", "over a limit", raw=(8 << 20) + 1,
          new_bytes=(8 << 20) + 2)
bad_edits("edits-more-literals-than-bytes", "more than the new length", "does not add up", raw=len(CHANGED) + 1)
bad_edits("edits-do-not-add-up", "a literal too few", "does not add up", raw=99)
bad_edits("edits-copies-over-limit", "2^18 copies and one", "over a limit", count=2**18 + 1)
bad_edits("edits-of-another-length", "for a file that is a byte longer", "other lengths", old_bytes=len(LINES) + 1)
bad_edits("edits-copy-past-the-old-end", "a byte more than there is", "outside", copies=[(0, 1, len(LINES))], raw=9)
bad_edits("edits-packed-overflows", "literals of 2^64 - 1 bytes", "does not add up", packed=2**64 - 1)
bad_edits("edits-windows-over-limit", "windows of 8 MiB, 8 MiB, 8 MiB", "over a limit",
          **{name: {"codec": "zstd", "window": 23} for name in patches.CONTROL})
bad_edits("edits-cut-in-the-literals", "a byte less than is said", "cut short", "Patch",
          packed=9)

files["expect.json"] = json.dumps(expect, indent=1).encode() + b"\n"
if __name__ == "__main__":
    for name, data in files.items():
        if "--check" in sys.argv:
            assert (HERE / name).read_bytes() == data, f"{name} differs"
        else:
            (HERE / name).write_bytes(data)
    if "--check" in sys.argv:
        print(f"{len(files)} vectors are as they should be")
