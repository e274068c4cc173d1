"""Reads zstd frames, also those that refer to a prefix; writes such frames plainly. Source: RFC 8878.

Made for small vectors: a bit stream is one large number here.
"""

MAGIC = bytes.fromhex("28b52ffd")


class Malformed(Exception):
    pass


def require(condition, reason):
    if not condition:
        raise Malformed(reason)


class Forward:
    """Bits from the first byte on, lowest first."""

    def __init__(self, data):
        self.value, self.count, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def bits(self, count):
        self.at += count
        require(self.at <= self.count, "bits end early")
        return self.value >> (self.at - count) & ((1 << count) - 1)


class Backward:
    """Bits from the last byte back, highest first, behind the highest bit that is set."""

    def __init__(self, data):
        require(data and data[-1], "a bit stream without its end")
        self.value = int.from_bytes(data, "little")
        self.left = self.value.bit_length() - 1

    def peek(self, count):
        value = self.value & ((1 << max(self.left, 0)) - 1)
        shift = self.left - count
        return value >> shift if shift >= 0 else value << -shift

    def bits(self, count):
        value = self.peek(count)
        self.left -= count
        return value


# FSE tables: a list of (symbol, bits, base of the next state)


def fse_table(frequencies, log):
    size = 1 << log
    symbols, high = [0] * size, size
    for symbol, count in enumerate(frequencies):
        if count == -1:
            high -= 1
            symbols[high] = symbol
    step, place = (size >> 1) + (size >> 3) + 3, 0
    for symbol, count in enumerate(frequencies):
        for _ in range(count):
            symbols[place] = symbol
            place = (place + step) % size
            while place >= high:
                place = (place + step) % size
    require(place == 0, "frequencies do not fill the table")
    table, nexts = [], [abs(count) for count in frequencies]
    for symbol in symbols:
        state = nexts[symbol]
        nexts[symbol] += 1
        bits = log - state.bit_length() + 1
        table.append((symbol, bits, (state << bits) - size))
    return table, log


def read_fse_table(data, at, most_log, most_symbols):
    reader = Forward(data[at:])
    log = reader.bits(4) + 5
    require(log <= most_log, "an FSE table is too large")
    left, frequencies = 1 << log, []
    while left > 0:
        bits = (left + 1).bit_length()
        low, threshold = (1 << (bits - 1)) - 1, (1 << bits) - 2 - left
        value = reader.bits(bits - 1)
        if value >= threshold:
            value |= reader.bits(1) << (bits - 1)
            if value > low:
                value -= threshold
        frequencies.append(value - 1)
        left -= abs(value - 1)
        more = value == 1
        while more:
            count = reader.bits(2)
            frequencies += [0] * count
            more = count == 3
    require(left == 0 and len(frequencies) <= most_symbols, "an FSE table contradicts itself")
    return fse_table(frequencies, log), at + (reader.at + 7) // 8


class State:
    def __init__(self, table, reader):
        self.table, log = table
        self.reader, self.state = reader, reader.bits(log)

    def symbol(self):
        return self.table[self.state][0]

    def advance(self):
        _, bits, base = self.table[self.state]
        self.state = base + self.reader.bits(bits)


# Huffman tables: (longest code, for each value of so many bits its (symbol, bits))


def read_huffman(data, at):
    require(at < len(data), "cut")
    head, at = data[at], at + 1
    if head >= 128:
        count = head - 127
        end = at + (count + 1) // 2
        weights = [w for byte in data[at:end] for w in (byte >> 4, byte & 15)][:count]
        require(len(weights) == count, "cut")
    else:
        end = at + head
        table, at = read_fse_table(data[:end], at, 6, 256)
        reader = Backward(data[at:end])
        states, weights = [State(table, reader), State(table, reader)], []
        while reader.left >= 0:
            require(len(weights) < 255, "too many weights")
            weights.append(states[0].symbol())
            states[0].advance()
            states.reverse()
        weights.append(states[0].symbol())
    total = sum(1 << w >> 1 for w in weights)
    require(total, "a Huffman table without codes")
    longest = total.bit_length()
    left = (1 << longest) - total
    require(longest <= 11 and left & (left - 1) == 0, "a Huffman table contradicts itself")
    weights.append(left.bit_length())
    table = []
    for weight in range(1, longest + 1):
        for symbol in (s for s, w in enumerate(weights) if w == weight):
            table += [(symbol, longest + 1 - weight)] * (1 << (weight - 1))
    return (longest, table), end


def huffman(data, table, count):
    longest, codes = table
    reader, out = Backward(data), bytearray()
    for _ in range(count):
        symbol, bits = codes[reader.peek(longest)]
        reader.left -= bits
        out.append(symbol)
    require(reader.left == 0, "a Huffman stream is not used up")
    return bytes(out)


# Sequences

LENGTHS = [(n, 0) for n in range(16)] + list(zip((16, 18, 20, 22, 24, 28, 32, 40, 48), (1, 1, 1, 1, 2, 2, 3, 3, 4)))
LENGTHS += [(1 << bits, bits) for bits in range(6, 17)]
MATCHES = [(n + 3, 0) for n in range(32)]
MATCHES += list(zip((35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99), (1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5)))
MATCHES += [((1 << bits) + 3, bits) for bits in range(7, 17)]
OFFSETS = [(1 << bits, bits) for bits in range(32)]
DEFAULTS = [
    ([4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4, 6),
    ([1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5, 5),
    ([1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7, 6),
]
CODES, MOST_LOGS = (LENGTHS, OFFSETS, MATCHES), (9, 8, 9)


class Decoder:
    def __init__(self, prefix):
        self.out = bytearray(prefix)
        self.start = len(prefix)
        self.repeats = [1, 4, 8]
        self.tables = [None] * 3
        self.huffman = None

    def literals(self, data):
        require(data, "cut")
        kind, size_format = data[0] & 3, data[0] >> 2 & 3
        if kind < 2:
            head, bits, drop = {0: (1, 5, 3), 2: (1, 5, 3), 1: (2, 12, 4), 3: (3, 20, 4)}[size_format]
            require(len(data) > head, "cut") if kind else require(len(data) >= head, "cut")
            size = int.from_bytes(data[:head], "little") >> drop & ((1 << bits) - 1)
            end = head + (1 if kind else size)
            require(end <= len(data), "cut")
            return (data[head:end] * size if kind else data[head:end]), end
        head, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[size_format]
        value = int.from_bytes(data[:head], "little") >> 4
        size, packed = value & ((1 << bits) - 1), value >> bits
        end, at = head + packed, head
        require(len(data) >= end, "cut")
        if kind == 2:
            self.huffman, at = read_huffman(data[:end], at)
        require(self.huffman, "no Huffman table")
        if size_format == 0:
            return huffman(data[at:end], self.huffman, size), end
        require(end - at >= 6, "cut")
        jumps = [int.from_bytes(data[at + 2 * n : at + 2 * n + 2], "little") for n in range(3)]
        at, part, out = at + 6, (size + 3) // 4, b""
        for n in range(4):
            stop = at + jumps[n] if n < 3 else end
            require(at < stop <= end, "cut")
            out += huffman(data[at:stop], self.huffman, part if n < 3 else size - 3 * part)
            at = stop
        return out, end

    def block(self, data):
        literals, at = self.literals(data)
        require(at < len(data), "cut")
        count, at = data[at], at + 1
        if count == 255:
            count, at = int.from_bytes(data[at : at + 2], "little") + 0x7F00, at + 2
        elif count > 127:
            require(at < len(data), "cut")
            count, at = (count - 128 << 8) + data[at], at + 1
        if count == 0:
            self.out += literals
            return
        require(at < len(data), "cut")
        modes, at = data[at], at + 1
        for n, shift in enumerate((6, 4, 2)):
            mode = modes >> shift & 3
            if mode == 0:
                self.tables[n] = fse_table(*DEFAULTS[n])
            elif mode == 1:
                require(at < len(data), "cut")
                self.tables[n], at = ([(data[at], 0, 0)], 0), at + 1
            elif mode == 2:
                self.tables[n], at = read_fse_table(data, at, MOST_LOGS[n], len(CODES[n]))
            require(self.tables[n], "no table to repeat")
        reader = Backward(data[at:])
        states, used = [State(table, reader) for table in self.tables], 0
        for n in range(count):
            bases = []
            for which in range(3):
                code = states[which].symbol()
                require(code < len(CODES[which]), "unknown code")
                bases.append(CODES[which][code])
            offset, match, length = (bases[i][0] + reader.bits(bases[i][1]) for i in (1, 2, 0))
            if n < count - 1:
                for which in (0, 2, 1):
                    states[which].advance()
            self.out += literals[used : used + length]
            used += length
            require(used <= len(literals), "literals end early")
            self.copy(self.offset(offset, length), match)
        require(reader.left == 0, "sequences are not used up")
        self.out += literals[used:]

    def offset(self, value, length):
        repeats = self.repeats
        if value > 3:
            found = value - 3
            repeats.insert(0, found)
            repeats.pop()
            return found
        which = value - (length > 0)
        found = repeats[which] if which < 3 else repeats[0] - 1
        require(found > 0, "an offset of nothing")
        if which:
            repeats.pop(min(which, 2))
            repeats.insert(0, found)
        return found

    def copy(self, offset, length):
        require(offset <= len(self.out), "an offset in front of everything")
        at = len(self.out) - offset
        for place in range(at, at + length):
            self.out.append(self.out[place])


def decompress(data, prefix=b"", most_window=1 << 31):
    """The content of the frame that `data` begins with."""
    require(data[:4] == MAGIC and len(data) > 6, "no zstd frame")
    flags, at = data[4], 5
    single = flags >> 5 & 1
    window = 0
    if not single:
        window = 1 << 10 + (data[at] >> 3)
        window += window // 8 * (data[at] & 7)
        at += 1
    require(flags & 8 == 0, "reserved bit")
    at += (0, 1, 2, 4)[flags & 3]
    size_bytes = (single, 2, 4, 8)[flags >> 6]
    content = int.from_bytes(data[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    at += size_bytes
    require(max(window, content if single else 0) <= most_window, "window over its limit")
    decoder = Decoder(prefix)
    last = False
    while not last:
        require(at + 3 <= len(data), "cut")
        head, at = int.from_bytes(data[at : at + 3], "little"), at + 3
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        require(kind < 3 and size <= 1 << 17, "reserved block")
        stored = 1 if kind == 1 else size
        require(at + stored <= len(data), "cut")
        block, at = data[at : at + stored], at + stored
        if kind == 2:
            decoder.block(block)
        else:
            decoder.out += block * size if kind == 1 else block
    out = bytes(decoder.out[decoder.start :])
    require(not size_bytes or len(out) == content, "not as long as it says")
    return out


# Writing: stored blocks, and blocks of literals and one copy


def _code(codes, value):
    number = max(n for n, (base, _) in enumerate(codes) if base <= value)
    return number, value - codes[number][0], codes[number][1]


def stored_block(content):
    return 0, content


def copy_block(literals, offset, length, behind=b""):
    """`literals`, `length` bytes from `offset` bytes back, `behind`. All three codes stand in tables of one symbol."""
    of, ml, ll = _code(OFFSETS, offset + 3), _code(MATCHES, length), _code(LENGTHS, len(literals))
    bits, count = 1, 0
    for _, extra, width in (of, ml, ll):
        bits, count = bits << width | extra, count + width
    stream = bits.to_bytes(count // 8 + 1, "little")
    every = literals + behind
    head = (3 << 2 | len(every) << 4).to_bytes(3, "little")
    return 2, head + every + bytes([1, 0b01010100, ll[0], of[0], ml[0]]) + stream


def frame(blocks, window_log):
    """A frame of `blocks` with a window of `1 << window_log` bytes, and no content size."""
    out = MAGIC + bytes([0, window_log - 10 << 3])
    for n, (kind, body) in enumerate(blocks):
        out += (int(n == len(blocks) - 1) | kind << 1 | len(body) << 3).to_bytes(3, "little") + body
    return out
