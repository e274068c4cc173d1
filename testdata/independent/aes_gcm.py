"""AES-256-GCM with a nonce of 12 bytes and a tag of 16. Sources: FIPS 197 and NIST SP 800-38D.

Neither fast nor free of side channels: for test vectors only.
"""

from hmac import compare_digest


def _xtime(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def _make_sbox():
    exp, log, a = [0] * 255, [0] * 256, 1
    for i in range(255):
        exp[i], log[a] = a, i
        a ^= _xtime(a)  # times 3, a generator
    box = []
    for value in range(256):
        b = exp[-log[value] % 255] if value else 0
        r = 0x63
        for turn in range(5):
            r ^= (b << turn | b >> (8 - turn)) & 0xFF
        box.append(r)
    return box


SBOX = _make_sbox()
DOUBLE = [_xtime(a) for a in range(256)]
# The state is held column by column; this is where each byte comes from after ShiftRows.
SHIFT = [(i + 4 * (i % 4)) % 16 for i in range(16)]


def _expand_key(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        w = words[-1]
        if i % 8 == 0:
            w = [SBOX[b] for b in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon = _xtime(rcon)
        elif i % 8 == 4:
            w = [SBOX[b] for b in w]
        words.append([a ^ b for a, b in zip(words[i - 8], w)])
    return [sum(words[i : i + 4], []) for i in range(0, 60, 4)]


def _encrypt_block(round_keys, block):
    s = [a ^ b for a, b in zip(block, round_keys[0])]
    for k in round_keys[1:14]:
        s = [SBOX[s[i]] for i in SHIFT]
        mixed = []
        for c in range(0, 16, 4):
            col = s[c : c + 4]
            every = col[0] ^ col[1] ^ col[2] ^ col[3]
            mixed += [col[i] ^ every ^ DOUBLE[col[i] ^ col[(i + 1) % 4]] for i in range(4)]
        s = [a ^ b for a, b in zip(mixed, k)]
    return bytes(SBOX[s[i]] ^ k for i, k in zip(SHIFT, round_keys[14]))


def _ghash(h, data):
    # h times x^0 .. x^127, in GCM's reflected order.
    powers = []
    for _ in range(128):
        powers.append(h)
        h = h >> 1 ^ (0xE1 << 120 if h & 1 else 0)
    y = 0
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i : i + 16], "big")
        product, bit = 0, 127
        while y:
            if y & 1:
                product ^= powers[bit]
            y >>= 1
            bit -= 1
        y = product
    return y.to_bytes(16, "big")


def _pad(data):
    return data + bytes(-len(data) % 16)


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def _crypt(round_keys, nonce, data):
    out = []
    for i in range(0, len(data), 16):
        counter = nonce + (i // 16 + 2).to_bytes(4, "big")
        out.append(_xor(data[i : i + 16], _encrypt_block(round_keys, counter)))
    return b"".join(out)


def _tag(round_keys, nonce, ciphertext, associated):
    h = int.from_bytes(_encrypt_block(round_keys, bytes(16)), "big")
    lengths = (8 * len(associated)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    s = _ghash(h, _pad(associated) + _pad(ciphertext) + lengths)
    return _xor(s, _encrypt_block(round_keys, nonce + b"\0\0\0\1"))


def seal(key, nonce, plaintext, associated):
    """Ciphertext and behind it the tag."""
    assert len(key) == 32 and len(nonce) == 12
    round_keys = _expand_key(key)
    ciphertext = _crypt(round_keys, nonce, plaintext)
    return ciphertext + _tag(round_keys, nonce, ciphertext, associated)


def open_sealed(key, nonce, sealed, associated):
    """The plaintext, or None if the tag does not hold."""
    assert len(key) == 32 and len(nonce) == 12
    if len(sealed) < 16:
        return None
    round_keys = _expand_key(key)
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if not compare_digest(tag, _tag(round_keys, nonce, ciphertext, associated)):
        return None
    return _crypt(round_keys, nonce, ciphertext)
