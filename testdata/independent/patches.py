"""Reads and writes patches, a second time and from the document alone.

Source: docs/formats/patch.md from "A patch" on. `apply` gives the new bytes or raises Refused; `write` takes the copies and the
modes that it shall use. Made for small files: every image is here whole.
"""

from bisect import bisect_right
from struct import pack, unpack_from

import lzma1
import mixed
import postcard
import zstd
from formats import MIB, Refused, parsed, require

DATA, X86, ARM64, FILE = KINDS = ["data", "x86-64", "arm64", "file only"]
MOST_BYTES, MOST_HEAD, MOST_MIXED = 2**32 - 1, 16 * 1024, 8 * MIB
MOST_COPIES, MOST_WINDOWS, MOST_REGIONS, MOST_BASES, MOST_MOVES = 1 << 18, 20 * MIB, 64, 4, 512
MODES = 20
CONTROL = ["gaps", "steps", "lengths"]
STREAMS = CONTROL + ["modes", "residual", "literals"]
STRIDES = [4, 8, 12, 16, 20, 24, 40, 44]


def signed(value, bits):
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)


def number_at(data, at, size):
    """A little-endian number; zero where there are no bytes."""
    found = bytes(data[place] if 0 <= place < len(data) else 0 for place in range(at, at + size))
    return int.from_bytes(found, "little")


class Space:
    """Where a program's bytes stand in memory. Regions: (offset, length, address, length in memory, kind)."""

    def __init__(self, regions=(), bases=()):
        self.regions, self.bases = list(regions), list(bases)

    def region(self, offset):
        for region in self.regions:
            if region[0] <= offset < region[0] + region[1]:
                return region
        return None

    def kind(self, offset):
        region = self.region(offset)
        return region and region[4]

    def address(self, offset):
        region = self.region(offset)
        return region and (region[2] + offset - region[0]) % 2**64

    def held(self, address, kinds=(DATA, X86, ARM64)):
        return any((address - region[2]) % 2**64 < region[3] for region in self.regions if region[4] in kinds)

    def check(self, image_bytes):
        require(len(self.regions) <= MOST_REGIONS and len(self.bases) <= MOST_BASES, "over a limit", "regions or bases")
        end = 0
        for region in self.regions:
            require(region[0] >= end, "regions overlap")
            end = region[0] + region[1]
        require(end <= image_bytes, "outside", "region")


class AddressMap:
    """Moves: (address, length, distance)."""

    def __init__(self, copies, old, new, moves=()):
        pieces = [(length, min(start + length, 2**64 - 1), distance, start) for start, length, distance in moves]
        for to, start, length in copies:
            for done in range(0, length if length >= 16 else 0, 65536):
                addresses = old.address(start + done), new.address(to + done)
                if None in addresses or FILE in (old.kind(start + done), new.kind(to + done)):
                    continue
                piece = min(65536, length - done)
                end = min(addresses[0] + piece, 2**64 - 1)
                pieces.append((piece, end, signed(addresses[1] - addresses[0], 64), addresses[0]))
        self.starts, self.distances = [], []
        for cut in sorted({piece[3] for piece in pieces} | {piece[1] for piece in pieces}):
            over = [piece for piece in pieces if piece[3] <= cut < piece[1]]
            if over:
                self.starts.append(cut)
                self.distances.append(max(over)[2])

    def moved(self, address):
        if not self.starts:
            return 0
        return self.distances[max(bisect_right(self.starts, address) - 1, 0)]


# Fields of instructions

MEMORY = bytes.fromhex("01 03 09 0b 21 23 29 2b 31 33 38 39 3a 3b 63 80 81 83 84 85 87 88 89 8b 8d c6 c7")
MEMORY += bytes.fromhex("d9 db dd df f6 f7 fe ff")


def x86_operand(data, at, conditions=True):
    last, second, third, fourth, fifth, sixth = (number_at(data, at - n, 1) for n in range(1, 7))
    if last in (0xE8, 0xE9):
        return True
    if conditions and second == 0x0F and last & 0xF0 == 0x80:
        return True
    if last & 0xC7 != 0x05:
        return False
    escaped = third == 0x0F or fourth == 0xC5 or fifth == 0xC4 or sixth == 0x62
    return second in MEMORY or escaped or (fourth == 0x0F and third in (0x38, 0x3A))


def x86_absolute(data, at):
    last = number_at(data, at - 1, 1)
    return 0xB8 <= last <= 0xBF or last in (0x24, 0x25) or number_at(data, at - 2, 1) & 0xC7 != 0x05


def arm64_low(word):
    """(scale, value) of an instruction that holds the low bits of an address."""
    scale = None
    if word & 0xFFC00000 == 0x91000000:
        scale = 0
    elif word & 0x3B000000 == 0x39000000:
        scale = 4 if word >> 26 & 1 and word >> 23 & 1 else word >> 30
    return None if scale is None else (scale, (word >> 10 & 0xFFF) << scale)


def is_adrp(word):
    return word & 0x9F000000 == 0x90000000


def adr_value(word):
    return signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)


def with_adr_value(word, value):
    return word & 0x9F00001F | (value & 3) << 29 | (value >> 2 & 0x7FFFF) << 5


def arm64_field(data, at, address):
    """(target, function from (new target, new address) to the new word), or None."""
    word = number_at(data, at, 4)
    if word & 0x7C000000 == 0x14000000:
        target = address + (signed(word, 26) << 2)
        return target, lambda to, here: word & 0xFC000000 | (to - here) >> 2 & 0x3FFFFFF
    if word & 0x9F000000 == 0x10000000:
        return address + adr_value(word), lambda to, here: with_adr_value(word, to - here)
    page = lambda word, address: (address & ~0xFFF) + (adr_value(word) << 12)
    if is_adrp(word):
        low = 0
        for ahead in (4, 8, 12, 16):
            other = number_at(data, at + ahead, 4)
            if arm64_low(other) and other >> 5 & 31 == word & 31:
                low = arm64_low(other)[1]
                break
        return page(word, address) + low, lambda to, here: with_adr_value(word, (to >> 12) - (here >> 12))
    found = arm64_low(word)
    if found:
        for back in (4, 8, 12, 16):
            other = number_at(data, at - back, 4)
            if is_adrp(other) and other & 31 == word >> 5 & 31:
                target = page(other, address - back) + found[1]
                return target, lambda to, here: word & 0xFFC003FF | (to & 0xFFF) >> found[0] << 10
    return None


# Blocks


class Corrector:
    """Guesses what the old bytes of copies become."""

    def __init__(self, old, spaces, copies):
        self.old, (self.old_space, self.new_space) = old, spaces[:2]
        self.moved = AddressMap(copies, *spaces).moved
        self.carried = b""

    def held(self, address, kinds=(DATA, X86, ARM64)):
        return self.old_space.held(address % 2**64, kinds)

    def block(self, mode, old_at, new_at, length, new, add):
        """Calls `add` with the guess for the next bytes, from the block's first to its last."""
        if mode >= 10:
            self.carried, at = b"", 0
            while at < length:
                if (new_at + at) % 4 == 0 and length - at >= 4:
                    add(self.causal(mode, old_at + at, new_at + at, new, old_at).to_bytes(4, "little"))
                    at += 4
                else:
                    add(self.old[old_at + at : old_at + at + 1])
                    at += 1
            return
        guess = bytearray(number_at(self.old, old_at, length + 8).to_bytes(length + 8, "little"))
        guess[: len(self.carried)] = self.carried
        end = len(self.carried)
        for at, value, size, reaches in self.fields(mode, old_at, new_at, length):
            guess[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
            end = max(end, at + size if reaches else 0)
        self.carried = bytes(guess[length:end])
        add(bytes(guess[:length]))

    def fields(self, mode, old_at, new_at, length):
        """(place in the block, value, bytes, whether it reaches into the next block)"""
        region, to = self.old_space.region(old_at), self.new_space.address(new_at)
        if mode == 0 or region is None or (mode != 5 and (to is None or region[4] == FILE)):
            return
        start = self.old_space.address(old_at)
        aligned = lambda size: range(-(old_at if region[4] == FILE else start) % size, length, size)
        if mode == 5:
            for at in aligned(8):
                value = number_at(self.old, old_at + at, 8)
                if value >= 1024 and self.held(value):
                    yield at, value + self.moved(value), 8, True
            return
        distance = to - start
        if mode in (1, 2) and region[4] == ARM64:
            for at in aligned(4):
                found = arm64_field(self.old, old_at + at, start + at)
                if found and self.held(found[0]):
                    target = found[0] % 2**64
                    yield at, found[1](target + self.moved(target), to + at), 4, False
        elif mode in (1, 2):
            at = len(self.carried)
            while at < length:
                value = number_at(self.old, old_at + at, 4)
                target = (start + at + 4 + signed(value, 32)) % 2**64
                if x86_operand(self.old, old_at + at) and self.held(target):
                    yield at, value + self.moved(target) - distance, 4, True
                    at += 4
                elif mode == 2 and value >= 65536 and self.held(value) and x86_absolute(self.old, old_at + at):
                    yield at, value + self.moved(value), 4, True
                    at += 4
                else:
                    at += 1
        elif mode in (3, 4):
            for at in aligned(4):
                value = number_at(self.old, old_at + at, 4)
                target = (start + at + signed(value, 32)) % 2**64
                if value and self.held(target, (X86, ARM64) if mode == 3 else KINDS[:3]):
                    yield at, value + self.moved(target) - distance, 4, True
        else:
            if mode - 6 >= min(len(self.old_space.bases), len(self.new_space.bases)):
                return
            base, new_base = self.old_space.bases[mode - 6], self.new_space.bases[mode - 6]
            for at in aligned(4):
                value = number_at(self.old, old_at + at, 4)
                target = (base + signed(value, 32)) % 2**64
                if value and self.held(target):
                    yield at, value + self.moved(target) - (new_base - base), 4, True

    def causal(self, mode, old_at, new_at, new, block_at):
        value = number_at(self.old, old_at, 4)
        stride = STRIDES[mode - 10] if mode < 18 else 24
        if mode == 19:
            stride = min(range(4, 132, 4), key=lambda back: abs(number_at(self.old, old_at - back, 4) - value))
        grown = value + number_at(new, new_at - stride, 4) - number_at(self.old, old_at - stride, 4)
        if mode != 18:
            return grown % 2**32
        region = self.old_space.region(block_at)
        phase = (old_at - (region[0] if region else 0)) % 24
        if phase == 0:
            return grown % 2**32
        if phase in (8, 12):
            address = number_at(self.old, old_at - phase + 8, 8)
            if address >= 1024 and self.held(address):
                return (address + self.moved(address)) % 2**64 >> 8 * (phase - 8) & 0xFFFFFFFF
        return value


def blocks(copy):
    to, start, length = copy
    done = 0
    while done < length:
        size = min(512 - (to + done) % 512, length - done)
        yield start + done, to + done, size
        done += size


def literal_fields(space, start, end, new):
    """(offset, bytes, address behind it or None) of what stands in the literals from `start` to `end`, one after the other;
    looks at the new bytes in front of each."""
    at = start
    while at < end:
        region = space.region(at)
        if region and region[4] == X86:
            stop = min(end, region[0] + region[1])
            if stop - at >= 4 and x86_operand(new, at, conditions=False):
                yield at, 4, space.address(at) + 4
                at += 4
                continue
        yield at, 1, None
        at += 1


# Streams and head


def _stream(r):
    codec = r.enum(["stored", "zstd", "lzma"])
    window = r.u8() if codec != "stored" else 0
    props = r.u8() if codec == "lzma" else 0
    return {"codec": codec, "window": window, "props": props, "packed": r.u64(), "raw": r.u64()}


def _space(r):
    regions = r.list(lambda: (r.u32(), r.u32(), r.u64(), r.u64(), r.enum(KINDS)))
    return Space(regions, r.list(r.u64))


def _signed(r):
    value = r.u64()
    return value >> 1 ^ -(value & 1)


def _head(r):
    head = {"old": r.u64(), "new": r.u64(), "method": r.enum(["edits", "matches"]), "count": r.u32()}
    if head["method"] == "edits":
        return {**head, "streams": [_stream(r) for _ in CONTROL], "packed": r.u64(), "raw": r.u64()}
    return {
        **head,
        "streams": [_stream(r) for _ in STREAMS],
        "spaces": r.option(lambda: (_space(r), _space(r), r.list(lambda: (r.u64(), r.u32(), _signed(r))))),
    }


def window_bytes(stream):
    return 0 if stream["codec"] == "stored" else 1 << stream["window"]


def check_stream(stream):
    if stream["codec"] == "stored":
        return require(stream["packed"] == stream["raw"], "does not add up", "stored stream")
    require(stream["window"] <= 23, "over a limit", "window")
    props = stream["props"]
    require(props < 225 and props % 9 + props // 9 % 5 <= 4, "over a limit", "properties")


def content(stream, data):
    if stream["raw"] == 0:
        return b""
    try:
        if stream["codec"] == "stored":
            out = data
        elif stream["codec"] == "zstd":
            out = zstd.decompress(data, b"", 1 << max(stream["window"], 10))[: stream["raw"]]
        else:
            out = lzma1.decompress(data, stream["props"], 1 << stream["window"], stream["raw"])
    except (zstd.Malformed, lzma1.lzma.LZMAError, EOFError) as error:
        raise Refused("does not decompress", str(error))
    require(len(out) == stream["raw"], "does not decompress", "too short")
    return out


class Numbers:
    def __init__(self, data):
        self.reader = postcard.Reader(data)

    def number(self):
        try:
            return self.reader.varint(64)
        except postcard.Malformed as error:
            raise Refused("stream too short" if "ends" in str(error) else "number too long", str(error))

    def signed(self):
        value = self.number()
        return value >> 1 ^ -(value & 1)

    def left(self):
        return len(self.reader.data) - self.reader.at


class Added:
    """What is added, from pairs of zeros and a byte."""

    def __init__(self, pairs):
        self.pairs, self.at, self.zeros, self.byte = pairs, 0, 0, None

    def take(self, count):
        out = bytearray()
        while len(out) < count:
            if self.byte is None:
                if self.at == len(self.pairs):
                    return out + bytes(count - len(out))
                require(self.at + 1 < len(self.pairs), "stream too short", "residual")
                self.zeros, self.byte = self.pairs[self.at : self.at + 2]
                self.at += 2
            run = min(self.zeros, count - len(out))
            out += bytes(run)
            self.zeros -= run
            if len(out) < count:
                out.append(self.byte)
                self.byte = None
        return out


def copies_of(count, gaps, steps, lengths, old_bytes, new_bytes, in_step=False):
    found, new, old = [], 0, 0
    for _ in range(count):
        gap = gaps.number()
        new, old, length = new + gap, old + steps.signed() + gap * in_step, lengths.number()
        require(length and old >= 0 and new + length <= new_bytes and old + length <= old_bytes, "outside", "copy")
        found.append((new, old, length))
        new, old = new + length, old + length
    require(not gaps.left() and not steps.left() and not lengths.left(), "not used up")
    return found


def runs_of(copies, old, new_bytes):
    """The literals in front of each copy, and behind the last: (start, end, old bytes that they are told, copy)."""
    new_end = old_end = 0
    for to, start, length in [*copies, (new_bytes, 0, 0)]:
        told = min(to - new_end + 32, 8192)
        yield new_end, to, old[old_end : old_end + told], (start, length)
        new_end, old_end = to + length, start + length


def apply_edits(head, sizes, patch, at, old, new_bytes):
    require(head["raw"] <= MOST_MIXED, "over a limit", "literals")
    packed = sum(stream["packed"] for stream in head["streams"]) + head["packed"]
    require(head["raw"] <= head["new"] and packed <= MOST_BYTES, "does not add up", "streams")
    require((head["old"], head["new"]) == (len(old), new_bytes), "other lengths")
    numbers = []
    for name in CONTROL:
        end = at + sizes[name]["packed"]
        require(end <= len(patch), "cut short", name)
        numbers.append(Numbers(content(sizes[name], patch[at:end])))
        at = end
    copies = copies_of(head["count"], *numbers, len(old), new_bytes, in_step=True)
    require(sum(length for _, _, length in copies) + head["raw"] == new_bytes, "does not add up", "copies")
    require(at + head["packed"] <= len(patch), "cut short", "literals")
    literals, new = mixed.Decoder(patch[at : at + head["packed"]]), bytearray()
    for start, end, told, (source, length) in runs_of(copies, old, new_bytes):
        if end > start:
            new += literals.run(bytes(new[-4:]), told, end - start)
        new += old[source : source + length]
    return bytes(new)


def apply(patch, old, new_bytes):
    require(len(patch) >= 4, "cut")
    head_bytes = unpack_from("<I", patch)[0]
    require(head_bytes <= MOST_HEAD, "over a limit", "head")
    require(len(patch) >= 4 + head_bytes, "cut")
    head = parsed(_head, patch[4 : 4 + head_bytes])
    require(max(head["old"], head["new"]) <= MOST_BYTES, "over a limit", "image")
    at = 4 + head_bytes
    require(head["count"] <= MOST_COPIES, "over a limit", "copies")
    for stream in head["streams"]:
        check_stream(stream)
    sizes = dict(zip(STREAMS, head["streams"]))
    for group in (CONTROL, STREAMS[3:]):
        windows = sum(window_bytes(sizes[name]) for name in group if name in sizes)
        require(windows <= MOST_WINDOWS, "over a limit", "windows")
    if head["method"] == "edits":
        return apply_edits(head, sizes, patch, at, old, new_bytes)
    require(sizes["residual"]["raw"] // 2 + sizes["literals"]["raw"] <= head["new"], "does not add up", "new length")
    require(sum(stream["packed"] for stream in head["streams"]) <= MOST_BYTES, "does not add up", "packed")
    require(sizes["modes"]["raw"] <= head["new"] - sizes["literals"]["raw"], "does not add up", "modes")
    spaces = head["spaces"] or (Space(), Space())
    spaces[0].check(head["old"])
    spaces[1].check(head["new"])
    require(not spaces[2:] or len(spaces[2]) <= MOST_MOVES, "over a limit", "moves")
    require((head["old"], head["new"]) == (len(old), new_bytes), "other lengths")
    streams = {}
    for name in STREAMS:
        packed = sizes[name]["packed"]
        require(at + packed <= len(patch), "cut short", name)
        streams[name] = content(sizes[name], patch[at : at + packed])
        at += packed

    numbers = [Numbers(streams[name]) for name in STREAMS[:3]]
    copies = copies_of(head["count"], *numbers, len(old), new_bytes)
    made = sum(length for _, _, length in copies) + len(streams["literals"])
    require(made == new_bytes, "does not add up", "copies")
    corrector, new = Corrector(old, spaces, copies), bytearray()
    used = {"modes": 0, "literals": 0}
    added = Added(streams["residual"])

    def take(name, count):
        used[name] += count
        require(used[name] <= len(streams[name]), "stream too short", name)
        return streams[name][used[name] - count : used[name]]

    def add(guess):
        new.extend((a + b) % 256 for a, b in zip(guess, added.take(len(guess)) if adds else bytes(len(guess))))

    def literals(end):
        for _, size, behind in literal_fields(spaces[1], len(new), end, new):
            data = take("literals", size)
            if behind is not None:
                data = pack("<I", (int.from_bytes(data, "big") - behind) % 2**32)
            new.extend(data)

    for copy in copies:
        literals(copy[0])
        corrector.carried = b""
        for old_at, new_at, size in blocks(copy):
            mode = take("modes", 1)[0]
            adds, mode = mode < 128, mode % 128
            require(mode < MODES, "unknown mode", str(mode))
            corrector.block(mode, old_at, new_at, size, new, add)
    literals(new_bytes)
    require(all(used[name] == len(streams[name]) for name in used), "not used up")
    require(added.at == len(added.pairs) and added.byte is None, "not used up")
    return bytes(new)


# Writing


def packed(data, codec):
    """(fields of the stream, its bytes). Codecs: "stored", "zstd", or "lzma" with lc, lp, pb."""
    if codec == "stored" or not data:
        return {"codec": "stored", "raw": len(data)}, data
    if codec == "zstd":
        return {"codec": "zstd", "window": 17, "raw": len(data)}, zstd.frame([zstd.stored_block(data)], 17)
    props = lzma1.properties(*codec[1:])
    return {"codec": "lzma", "window": 12, "props": props, "raw": len(data)}, lzma1.compress(data, *codec[1:])


def stream_fields(fields, length):
    number = {"stored": 0, "zstd": 1, "lzma": 2}[fields["codec"]]
    out = postcard.varint(number) + bytes([fields[name] for name in ("window", "props")[:number]])
    return out + postcard.varint(fields.get("packed", length)) + postcard.varint(fields["raw"])


def space_fields(space):
    regions = [b"".join(map(postcard.varint, (*region[:4], KINDS.index(region[4])))) for region in space.regions]
    return postcard.listed(regions) + postcard.listed(list(map(postcard.varint, space.bases)))


def move_fields(moves):
    fields = lambda address, length, distance: postcard.varint(address) + postcard.varint(length) + zigzag(distance)
    return postcard.listed([fields(*move) for move in (moves[0] if moves else [])])


def zigzag(value):
    return postcard.varint(value << 1 if value >= 0 else (-value << 1) - 1)


def framed(head, *streams):
    return pack("<I", len(head)) + head + b"".join(streams)


def edits(old, new, copies, codecs=None, **changes):
    """A patch of edits. `changes`: fields of the head that shall be others; of a stream, a dict of its fields."""
    out, old_end = {name: b"" for name in CONTROL}, 0
    told = []
    for start, end, window, (source, length) in runs_of(copies, old, len(new)):
        if end > start:
            told.append((new[max(start - 4, 0) : start], window, new[start:end]))
        if length:
            out["gaps"] += postcard.varint(end - start)
            out["steps"] += zigzag(source - old_end - (end - start))
            out["lengths"] += postcard.varint(length)
            old_end = source + length
    literals = changes["literals"] if "literals" in changes else mixed.encode(told)
    head = postcard.varint(changes.get("old_bytes", len(old))) + postcard.varint(changes.get("new_bytes", len(new)))
    head += postcard.varint(0) + postcard.varint(changes.get("count", len(copies)))
    bodies = []
    for name in CONTROL:
        fields, body = packed(out[name], (codecs or {}).get(name, "stored"))
        head += stream_fields({**fields, **changes.get(name, {})}, len(body))
        bodies.append(body)
    raw = changes.get("raw", len(new) - sum(length for _, _, length in copies))
    head += postcard.varint(changes.get("packed", len(literals))) + postcard.varint(raw)
    return framed(head, *bodies, literals)


def pairs(residual):
    """What is added, as zeros in front and a byte."""
    out, zeros = bytearray(), 0
    for byte in residual:
        if byte or zeros == 255:
            out += bytes((zeros, byte))
            zeros = 0
        else:
            zeros += 1
    return out


def raw_streams(old, new, copies, modes=None, spaces=None, zeros=False):
    """The content of all streams; `modes` gives the mode of the n-th block, `zeros` leaves none of the residual out."""
    out = {name: bytearray() for name in STREAMS}
    both = spaces or (Space(), Space())
    corrector, new_end, old_end, number = Corrector(old, both, copies), 0, 0, 0
    residual = bytearray()

    def literals(start, end):
        for at, size, behind in literal_fields(both[1], start, end, new):
            data = new[at : at + size]
            if behind is not None:
                data = pack(">I", (int.from_bytes(data, "little") + behind) % 2**32)
            out["literals"] += data

    def add(guess):
        at = new_at + len(residual) - before
        residual.extend((a - b) % 256 for a, b in zip(new[at:], guess))

    for copy in copies:
        out["gaps"] += postcard.varint(copy[0] - new_end)
        out["steps"] += zigzag(copy[1] - old_end)
        out["lengths"] += postcard.varint(copy[2])
        literals(new_end, copy[0])
        corrector.carried = b""
        for old_at, new_at, size in blocks(copy):
            mode, before = modes(number) if spaces else 0, len(residual)
            corrector.block(mode, old_at, new_at, size, new, add)
            added = zeros or any(residual[before:])
            out["modes"].append(mode if added else mode | 128)
            if not added:
                del residual[before:]
            number += 1
        new_end, old_end = copy[0] + copy[2], copy[1] + copy[2]
    literals(new_end, len(new))
    out["residual"] = pairs(residual)
    return {name: bytes(data) for name, data in out.items()}


def matches(old_bytes, new_bytes, count, streams, spaces=None, codecs=None, **changes):
    """A patch of these streams. `changes` to the fields of a stream, by its name, are for those that a reader must refuse."""
    head = postcard.varint(old_bytes) + postcard.varint(new_bytes) + postcard.varint(1) + postcard.varint(count)
    bodies = []
    for name in STREAMS:
        fields, body = packed(streams[name], (codecs or {}).get(name, "stored"))
        fields.update(changes.get(name, {}))
        head += stream_fields(fields, len(body))
        bodies.append(body)
    head += postcard.option(spaces and space_fields(spaces[0]) + space_fields(spaces[1]) + move_fields(spaces[2:]))
    return framed(head, *bodies)


def write(old, new, copies, modes=None, spaces=None, codecs=None, zeros=False):
    streams = raw_streams(old, new, copies, modes, spaces, zeros)
    return matches(len(old), len(new), len(copies), streams, spaces, codecs)
