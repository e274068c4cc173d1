"""Frames, sealed objects, manifests and steps of a Holdfast release store, written from docs/formats/ alone.

An independent second implementation: plain Python, nothing but its standard library, so that reader and writer of the
product cannot share a mistake. AES-GCM is here in full (slow, fit for vectors only); zstd frames are made of raw and
run-length blocks (RFC 8878, 3.1.1.2), which every decoder reads.
"""

import hashlib
import hmac
import struct

# --- AES-256-GCM (FIPS 197, SP 800-38D) ---------------------------------------------------------------------------


def _sbox():
    box, p, q = [0] * 256, 1, 1
    while True:
        p ^= ((p << 1) ^ (0x1B if p & 0x80 else 0)) & 0xFF
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4)
        box[p] = (x ^ 0x63) & 0xFF
        if p == 1:
            box[0] = 0x63
            return box


SBOX = _sbox()


def _xtime(a):
    return ((a << 1) ^ (0x1B if a & 0x80 else 0)) & 0xFF


def _expand(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        t = list(words[i - 1])
        if i % 8 == 0:
            t = [SBOX[b] for b in t[1:] + t[:1]]
            t[0] ^= rcon
            rcon = _xtime(rcon)
        elif i % 8 == 4:
            t = [SBOX[b] for b in t]
        words.append([a ^ b for a, b in zip(words[i - 8], t)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def _block(round_keys, block):
    s = [a ^ b for a, b in zip(block, round_keys[0])]
    for r in range(1, 15):
        s = [SBOX[s[(4 * (column + row) + row) % 16]] for column in range(4) for row in range(4)]
        if r < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = s[c:c + 4]
                x = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[i] ^ x ^ _xtime(a[i] ^ a[(i + 1) % 4]) for i in range(4)]
            s = mixed
        s = [a ^ b for a, b in zip(s, round_keys[r])]
    return bytes(s)


def _gmul(x, y):
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return z


def _gcm(key, nonce, data, text, decrypt):
    keys = _expand(key)
    h = int.from_bytes(_block(keys, bytes(16)), "big")
    out = bytearray()
    for i in range(0, len(text), 16):
        pad = _block(keys, nonce + struct.pack(">I", 2 + i // 16))
        out += bytes(a ^ b for a, b in zip(text[i:i + 16], pad))
    cipher = text if decrypt else bytes(out)
    tag = 0
    for part in (data, cipher):
        for i in range(0, len(part), 16):
            tag = _gmul(tag ^ int.from_bytes(part[i:i + 16].ljust(16, b"\0"), "big"), h)
    tag = _gmul(tag ^ (len(data) * 8 << 64 | len(cipher) * 8), h)
    tag ^= int.from_bytes(_block(keys, nonce + struct.pack(">I", 1)), "big")
    return bytes(out), tag.to_bytes(16, "big")


# --- HKDF-SHA256 (RFC 5869) ---------------------------------------------------------------------------------------


def hkdf(ikm, salt, info):
    prk = hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\1", hashlib.sha256).digest()


# --- zstd frames of raw and run-length blocks ---------------------------------------------------------------------


def zstd(content, claim=None):
    out = bytes.fromhex("28b52ffd") + b"\xa0" + struct.pack("<I", len(content) if claim is None else claim)
    pieces = [content[i:i + 65536] for i in range(0, len(content), 65536)] or [b""]
    for at, piece in enumerate(pieces):
        last = at == len(pieces) - 1
        run = len(piece) > 3 and piece == piece[:1] * len(piece)
        out += (int(last) | int(run) << 1 | len(piece) << 3).to_bytes(3, "little") + (piece[:1] if run else piece)
    return out


# --- frames -------------------------------------------------------------------------------------------------------

CHUNK, CHUNK_LIST, MANIFEST, PATCH, STEP = 1, 2, 3, 4, 5
UNNAMED = bytes(32)


def associated(kind, digest, raw_len, stored_len):
    return bytes([kind]) + digest + struct.pack("<II", raw_len, stored_len)


def seal_compressed(key, kind, digest, raw_len, compressed):
    data = associated(kind, digest, raw_len, 16 + len(compressed) + 16)
    salt = hmac.new(hkdf(key, b"", b"holdfast frame salt v1"), data + compressed, hashlib.sha256).digest()[:16]
    cipher, tag = _gcm(hkdf(key, salt, b"holdfast frame key v1"), bytes(12), data, compressed, False)
    return salt + cipher + tag


def seal(key, kind, content, digest=None):
    digest = hashlib.sha256(content).digest() if digest is None else digest
    return seal_compressed(key, kind, digest, len(content), zstd(content))


def open_compressed(key, kind, digest, raw_len, frame):
    """The compressed content of a frame, having checked its tag and that its salt is the one that its content gives."""
    data, salt = associated(kind, digest, raw_len, len(frame)), frame[:16]
    compressed, tag = _gcm(hkdf(key, salt, b"holdfast frame key v1"), bytes(12), data, frame[16:-16], True)
    assert hmac.compare_digest(tag, frame[-16:]), "the tag does not hold"
    own = hmac.new(hkdf(key, b"", b"holdfast frame salt v1"), data + compressed, hashlib.sha256).digest()[:16]
    assert own == salt, "the salt is not the content's"
    return compressed


# --- postcard -----------------------------------------------------------------------------------------------------


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def signed(n):
    return varint(n << 1 if n >= 0 else (-n << 1) - 1)


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return varint(len(s)) + s


def many(items, encode=lambda item: item):
    return varint(len(items)) + b"".join(encode(item) for item in items)


# --- sealed objects -----------------------------------------------------------------------------------------------

MAGIC = {CHUNK_LIST: b"HOLDLIST", MANIFEST: b"HOLDFMAN", STEP: b"HOLDSTEP"}


def sealed(key, kind, encoded, number=1, magic=None, form=1, zero=0):
    head = (magic or MAGIC[kind]) + struct.pack("<HHII", form, zero, number, len(encoded))
    return head + seal(key, kind, encoded, UNNAMED)


# --- manifests ----------------------------------------------------------------------------------------------------

SOME = hashlib.sha256(b"content").digest()


def module(name="client", version="1.0.0"):
    return text(name) + text(version)


def file(path="run.sh", mode=0o755, size=7, stored=50, digest=SOME, policy=0, place=0):
    return text(path) + varint(mode) + varint(size) + varint(stored) + digest + varint(policy) + varint(place)


def updater(platform="linux-x86_64", version=(1, 2, 3), size=1000, stored=900, digest=SOME):
    return text(platform) + b"".join(map(varint, version)) + varint(size) + varint(stored) + digest


def blind(key, encoded):
    return hmac.new(hkdf(key, b"", b"holdfast frame salt v1"), encoded, hashlib.sha256).digest()[:16]


def manifest(key, product="Acme Notes", channel="stable", serial=1, version="1.0.0", published=1790000000, modules=None,
             files=None, updaters=(), ignore=(), tail=b""):
    front = (text(product) + text(channel) + varint(serial) + text(version) + signed(published)
             + many([module()] if modules is None else modules) + many([file()] if files is None else files)
             + many(updaters) + many(ignore, text))
    return front + blind(key, front + bytes(16) + tail) + tail


# --- files of vectors ---------------------------------------------------------------------------------------------


def write_or_check(directory, files, check):
    """Writes `files` (name: bytes) to `directory`; with `check` compares, also that there is nothing else."""
    for name, data in files.items():
        if check:
            assert (directory / name).read_bytes() == data, f"{name} differs"
        else:
            (directory / name).write_bytes(data)
    if check:
        more = {path.name for path in directory.iterdir()} - {*files, "make.py", "__pycache__"}
        assert not more, f"not known: {sorted(more)}"
        print(f"{len(files)} vectors are as they should be")
