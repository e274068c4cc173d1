"""Writes LZMA without header and end marker, the same bytes everywhere; reads it by way of the standard library.

Source: LZMA specification (lzma-specification.txt of the LZMA SDK). The range coder's low end is one large number here.
"""

import lzma
from struct import pack

MIN_MATCH, MAX_MATCH = 2, 273
HALF = 1024


def properties(lc, lp, pb):
    return (pb * 5 + lp) * 9 + lc


def decompress(data, props, window, length):
    """`length` bytes of content; raises lzma.LZMAError or EOFError where `data` does not hold them."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    out = decoder.decompress(pack("<BIQ", props, window, length) + data, length)
    if len(out) != length:
        raise EOFError("LZMA data ends early")
    return out


class _Encoder:
    def __init__(self, lc, lp, pb):
        self.lc, self.lp, self.pb = lc, lp, pb
        self.low, self.range, self.shifts = 0, 0xFFFFFFFF, 0
        self.odds = {}

    def bit(self, name, bit):
        odds = self.odds.get(name, HALF)
        bound = (self.range >> 11) * odds
        if bit:
            self.low, self.range = self.low + bound, self.range - bound
            self.odds[name] = odds - (odds >> 5)
        else:
            self.range = bound
            self.odds[name] = odds + (2048 - odds >> 5)
        self.normalise()

    def direct(self, value, count):
        for n in reversed(range(count)):
            self.range >>= 1
            self.low += self.range * (value >> n & 1)
            self.normalise()

    def normalise(self):
        if self.range < 1 << 24:
            self.low, self.range, self.shifts = self.low << 8, self.range << 8, self.shifts + 1

    def tree(self, name, value, count):
        node = 1
        for n in reversed(range(count)):
            self.bit((name, node), value >> n & 1)
            node = node << 1 | value >> n & 1

    def reverse_tree(self, name, value, count):
        node = 1
        for n in range(count):
            self.bit((name, node), value >> n & 1)
            node = node << 1 | value >> n & 1

    def literal(self, data, at, state, distance):
        before = data[at - 1] if at else 0
        context = ((at & ((1 << self.lp) - 1)) << self.lc) + (before >> (8 - self.lc))
        byte, node = data[at], 1
        matched = data[at - distance] if state >= 7 else None
        for n in reversed(range(8)):
            bit = byte >> n & 1
            if matched is None:
                self.bit(("literal", context, node), bit)
            else:
                guess = matched >> n & 1
                self.bit(("literal", context, (1 + guess << 8) + node), bit)
                matched = matched if guess == bit else None
            node = node << 1 | bit

    def length(self, name, length, position):
        value = length - MIN_MATCH
        self.bit((name, "choice"), value >= 8)
        if value < 8:
            return self.tree((name, "low", position), value, 3)
        self.bit((name, "choice 2"), value >= 16)
        if value < 16:
            return self.tree((name, "mid", position), value - 8, 3)
        self.tree((name, "high"), value - 16, 8)

    def distance(self, distance, length):
        value, group = distance - 1, min(length - MIN_MATCH, 3)
        bits = value.bit_length()
        slot = value if value < 4 else (bits - 1) * 2 + (value >> (bits - 2) & 1)
        self.tree(("slot", group), slot, 6)
        if slot < 4:
            return
        footer = (slot >> 1) - 1
        rest = value - ((2 | slot & 1) << footer)
        if slot < 14:
            self.reverse_tree(("near", slot), rest, footer)
        else:
            self.direct(rest >> 4, footer - 4)
            self.reverse_tree("align", rest & 15, 4)


def compress(data, lc=3, lp=0, pb=2, window=1 << 12):
    encoder, state, repeat, seen, at = _Encoder(lc, lp, pb), 0, 1, {}, 0
    while at < len(data):
        position = at & ((1 << pb) - 1)
        candidates = [repeat] if at >= repeat else []
        if at - seen.get(data[at : at + 4], at - window - 1) <= window:
            candidates.append(at - seen[data[at : at + 4]])
        length, distance = 0, 0
        for candidate in candidates:
            same = 0
            most = min(MAX_MATCH, len(data) - at)
            while same < most and data[at + same] == data[at + same - candidate]:
                same += 1
            if same > length:
                length, distance = same, candidate
        if length < 4:
            encoder.bit(("match", state, position), 0)
            encoder.literal(data, at, state, repeat)
            state = 0 if state < 4 else state - 3 if state < 10 else state - 6
            length = 1
        else:
            encoder.bit(("match", state, position), 1)
            encoder.bit(("repeat", state), distance == repeat)
            if distance == repeat:
                encoder.bit(("repeat 0", state), 0)
                encoder.bit(("long", state, position), 1)
                encoder.length("repeat length", length, position)
                state = 8 if state < 7 else 11
            else:
                encoder.length("length", length, position)
                encoder.distance(distance, length)
                repeat, state = distance, 7 if state < 7 else 10
        for place in range(at, at + length):
            seen[data[place : place + 4]] = place
        at += length
    return encoder.low.to_bytes(5 + encoder.shifts, "big")
