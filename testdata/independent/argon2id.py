"""Argon2id, version 1.3. Source: RFC 9106. Pure Python: for test vectors with little memory only."""

from hashlib import blake2b
from struct import pack, unpack

M32 = 0xFFFFFFFF
M64 = 0xFFFFFFFFFFFFFFFF


def _long_hash(data, length):
    data = pack("<I", length) + data
    if length <= 64:
        return blake2b(data, digest_size=length).digest()
    v = blake2b(data).digest()
    out = v[:32]
    while length - len(out) > 64:
        v = blake2b(v).digest()
        out += v[:32]
    return out + blake2b(v, digest_size=length - len(out)).digest()


def _quarter(v, ia, ib, ic, id_):
    a, b, c, d = v[ia], v[ib], v[ic], v[id_]
    for first, second in ((32, 24), (16, 63)):
        a = (a + b + 2 * (a & M32) * (b & M32)) & M64
        d ^= a
        d = (d >> first | d << (64 - first)) & M64
        c = (c + d + 2 * (c & M32) * (d & M32)) & M64
        b ^= c
        b = (b >> second | b << (64 - second)) & M64
    v[ia], v[ib], v[ic], v[id_] = a, b, c, d


def _permute(v, i):
    for k in range(4):
        _quarter(v, i[k], i[4 + k], i[8 + k], i[12 + k])
    for k in range(4):
        _quarter(v, i[k], i[4 + (k + 1) % 4], i[8 + (k + 2) % 4], i[12 + (k + 3) % 4])


ROWS = [[16 * r + i for i in range(16)] for r in range(8)]
COLUMNS = [[2 * c + 16 * (i // 2) + i % 2 for i in range(16)] for c in range(8)]


def _compress(x, y):
    r = [a ^ b for a, b in zip(x, y)]
    z = r[:]
    for indices in ROWS + COLUMNS:
        _permute(z, indices)
    return [a ^ b for a, b in zip(r, z)]


def _block(data):
    return list(unpack("<128Q", data))


def argon2id(password, salt, memory_kib, passes, lanes, length=32, secret=b"", associated=b""):
    if lanes < 1 or passes < 1 or memory_kib < 8 * lanes:
        raise ValueError("Argon2 parameters below the minimum")
    h0 = blake2b(pack("<6I", lanes, length, memory_kib, passes, 0x13, 2))
    for part in (password, salt, secret, associated):
        h0.update(pack("<I", len(part)) + part)
    h0 = h0.digest()

    segment = memory_kib // (4 * lanes)
    columns = 4 * segment
    blocks = lanes * columns
    zero = [0] * 128
    memory = [[None] * columns for _ in range(lanes)]
    for lane in range(lanes):
        for i in range(2):
            memory[lane][i] = _block(_long_hash(h0 + pack("<II", i, lane), 1024))

    for n in range(passes):
        for part in range(4):
            for lane in range(lanes):
                row, addresses = memory[lane], None
                independent = n == 0 and part < 2
                for i in range(segment):
                    if independent and i % 128 == 0:
                        head = [n, lane, part, blocks, passes, 2, i // 128 + 1]
                        addresses = _compress(zero, _compress(zero, head + [0] * 121))
                    at = part * segment + i
                    if n == 0 and at < 2:
                        continue
                    previous = row[at - 1]
                    word = addresses[i % 128] if independent else previous[0]
                    j1, j2 = word & M32, word >> 32
                    other = lane if n == 0 and part == 0 else j2 % lanes
                    area = (part if n == 0 else 3) * segment
                    if other == lane:
                        area += i - 1
                    elif i == 0:
                        area -= 1
                    start = 0 if n == 0 else (part + 1) % 4 * segment
                    back = area * (j1 * j1 >> 32) >> 32
                    reference = memory[other][(start + area - 1 - back) % columns]
                    new = _compress(previous, reference)
                    row[at] = new if n == 0 else [a ^ b for a, b in zip(new, row[at])]

    last = [0] * 128
    for row in memory:
        last = [a ^ b for a, b in zip(last, row[-1])]
    return _long_hash(pack("<128Q", *last), length)
