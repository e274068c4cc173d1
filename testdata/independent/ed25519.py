"""Ed25519, to sign and to verify. Source: RFC 8032, sections 5.1 and 6 (the sample code's formulas).

Strict: S is below the group order, the encodings are canonical, neither the key nor R has small order, and the equation
is checked without the cofactor. Neither fast nor free of side channels: for test vectors only.
"""

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)  # extended coordinates: x = X/Z, y = Y/Z, x*y = T/Z


def _add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _mul(s, p):
    q = NEUTRAL
    while s:
        if s & 1:
            q = _add(q, p)
        p = _add(p, p)
        s >>= 1
    return q


def _equal(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def _recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


def _decode(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x = _recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _encode(p):
    z = pow(p[2], P - 2, P)
    x, y = p[0] * z % P, p[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_GY = 4 * pow(5, P - 2, P) % P
BASE = _decode(_GY.to_bytes(32, "little"))


def _hash_int(data):
    return int.from_bytes(sha512(data).digest(), "little")


def _expand(seed):
    h = sha512(seed).digest()
    a = int.from_bytes(h[:32], "little")
    return a & ((1 << 254) - 8) | 1 << 254, h[32:]


def public_key(seed):
    return _encode(_mul(_expand(seed)[0], BASE))


def sign(seed, message):
    a, prefix = _expand(seed)
    key = _encode(_mul(a, BASE))
    r = _hash_int(prefix + message) % L
    big_r = _encode(_mul(r, BASE))
    k = _hash_int(big_r + key + message) % L
    return big_r + ((r + k * a) % L).to_bytes(32, "little")


def verify(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r, s = _decode(key), _decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    if _equal(_mul(8, a), NEUTRAL) or _equal(_mul(8, r), NEUTRAL):
        return False
    k = _hash_int(signature[:32] + key + message) % L
    return _equal(_mul(s, BASE), _add(r, _mul(k, a)))
