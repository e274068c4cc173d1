"""Readers and writers of the device formats, a second time and from the documents alone.

Sources: docs/formats/updater-image.md, device-config.md, hidden-zone.md, journal.md, device-image.md. A reader returns a dict of the document's
field names, or raises Refused with the reason; a writer takes the same values.
"""

import hmac
from hashlib import sha256
from struct import pack, unpack, unpack_from
from zlib import crc32

import aes_gcm
import ed25519
import postcard
from argon2id import argon2id

KIB, MIB = 1024, 1024 * 1024
NONCE_0 = bytes(12)


class Refused(Exception):
    def __init__(self, reason, detail=""):
        super().__init__("%s: %s" % (reason, detail) if detail else reason)
        self.reason = reason


def require(condition, reason, detail=""):
    if not condition:
        raise Refused(reason, detail)


def parsed(read, data, *more):
    """`read` over a postcard body; what is behind the fields that it knows is skipped."""
    try:
        return read(postcard.Reader(data), *more)
    except postcard.Malformed as error:
        raise Refused("body does not parse", str(error))


def hkdf(key, salt, info):
    """HKDF-SHA256 (RFC 5869), 32 bytes of output."""
    extracted = hmac.new(salt or bytes(32), key, sha256).digest()
    return hmac.new(extracted, info + b"\1", sha256).digest()


def _signed(domain, data):
    return domain.encode().ljust(32, b"\0") + sha256(data).digest()


def sign(seed, domain, data):
    return ed25519.sign(seed, _signed(domain, data))


def signature_holds(key, domain, data, signature):
    return ed25519.verify(key, _signed(domain, data), signature)


# Updater image

IMAGE_MAGIC = b"HOLDFUPD"
STAMP = b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a"
TRAILER_DOMAIN = "holdfast updater trailer v1"
CERTIFICATE_DOMAIN = "holdfast key certificate v1"
MAX_TRAILER, MAX_IMAGE = 1024, 64 * MIB


def _pe_fields(data):
    """Where a PE file keeps its checksum and the certificate table's directory entry; None if it has neither."""
    if data[:2] != b"MZ" or len(data) < 64:
        return None
    header = unpack_from("<I", data, 60)[0]
    if data[header : header + 4] != b"PE\0\0" or len(data) < header + 26:
        return None
    optional = header + 24
    directories = {0x10B: 96, 0x20B: 112}.get(unpack_from("<H", data, optional)[0])
    if directories is None or len(data) < optional + 240:
        return None
    if unpack_from("<I", data, optional + directories - 4)[0] < 5:
        return None
    return optional + 64, optional + directories + 4 * 8


def image_digest(data, image_bytes):
    image = bytearray(data[:image_bytes])
    pe = _pe_fields(image)
    if pe:
        image[pe[0] : pe[0] + 4] = bytes(4)
        image[pe[1] : pe[1] + 8] = bytes(8)
    return sha256(image).digest()


def _signed_end(data):
    pe = _pe_fields(data)
    start, length = unpack_from("<II", data, pe[1]) if pe else (0, 0)
    if length == 0:
        return len(data)
    require(start + length == len(data), "no trailer", "the certificate table does not reach to the end")
    return start


def _read_trailer_body(r):
    return {
        "product": r.string(),
        "platform": r.string(),
        "version": (r.u16(), r.u16(), r.u16()),
        "image_bytes": r.u64(),
        "sha256": r.raw(32),
        "certificate": (r.u32(), r.raw(32), r.raw(64)),
        "floors": ((r.u16(), r.u16(), r.u16()), r.u32()),
    }


def _certified(serial, key):
    return pack("<I", serial) + key


def read_updater_image(data, vendor_key, product, platform, floors=((0, 0, 0), 0)):
    end = _signed_end(data)
    require(end >= 8, "no trailer", "file too short")
    trailer_length = unpack_from("<I", data, end - 8)[0]
    require(84 <= trailer_length <= min(end, MAX_TRAILER), "no trailer", "length out of bounds")
    start = end - trailer_length
    trailer = data[start:end]
    require(trailer[:8] == IMAGE_MAGIC, "no trailer", "magic")
    format_, body_length = unpack_from("<HH", trailer, 8)
    require(format_ == 1, "unknown format", str(format_))
    require(body_length <= trailer_length - 84, "body does not parse", "longer than the trailer")
    fields = parsed(_read_trailer_body, trailer[12 : 12 + body_length])
    require(len(fields["product"].encode()) <= 64, "over a limit", "product")
    require(len(fields["platform"].encode()) <= 32, "over a limit", "platform")
    require(fields["image_bytes"] <= MAX_IMAGE, "over a limit", "image")
    serial, key, certificate = fields["certificate"]
    require(signature_holds(vendor_key, CERTIFICATE_DOMAIN, _certified(serial, key), certificate), "foreign vendor")
    require(signature_holds(key, TRAILER_DOMAIN, trailer[:-72], trailer[-72:-8]), "signature does not hold")
    require(fields["product"] == product, "other product", fields["product"])
    require(fields["platform"] == platform, "other platform", fields["platform"])
    require(fields["image_bytes"] == start, "image_bytes is not where the trailer starts")
    require(image_digest(data, start) == fields["sha256"], "digest differs")
    require(fields["version"] >= floors[0], "below the floors", "version")
    require(serial >= floors[1], "below the floors", "key serial")
    return fields


def certify(vendor_seed, serial, key):
    return serial, key, sign(vendor_seed, CERTIFICATE_DOMAIN, _certified(serial, key))


def write_updater_image(executable, fields, updater_seed):
    """`image_bytes` and `sha256` follow from the executable."""
    image = executable + bytes(-len(executable) % 8)
    serial, key, certificate = fields["certificate"]
    body = postcard.string(fields["product"]) + postcard.string(fields["platform"])
    body += b"".join(map(postcard.varint, fields["version"]))
    body += postcard.varint(len(image)) + image_digest(image, len(image))
    body += postcard.varint(serial) + key + certificate
    body += b"".join(map(postcard.varint, fields["floors"][0])) + postcard.varint(fields["floors"][1])
    trailer = IMAGE_MAGIC + pack("<HH", 1, len(body)) + body
    trailer += bytes(-(len(trailer) + 72) % 8)
    trailer += sign(updater_seed, TRAILER_DOMAIN, trailer)
    return image + trailer + pack("<II", len(trailer) + 8, 0)


# Device configuration

CONFIG_MAGIC = b"HOLDFCFG"
CONFIG_DOMAIN = "holdfast device config v1"
CONTENT_KEY_INFO = b"holdfast content key v1"
PROFILES = ["stick", "dual", "region"]


def _read_config_body(r):
    return {
        "product": r.string(),
        "channel": r.string(),
        "profile": r.enum(PROFILES),
        "align_bytes": r.u32(),
        "servers": r.list(lambda: (r.string(), r.u16())),
        "client_commands": r.list(lambda: (r.string(), r.string())),
        "root": r.bytes(),
        "product_secret": r.raw(32),
        "content_key": (r.u32(), r.raw(32), r.raw(16)),
        "policies": (r.u16(), r.u16(), r.u16(), r.u8()),
    }


def _content_wrapping(product_secret, number):
    number = pack("<I", number)
    return hkdf(product_secret, number, CONTENT_KEY_INFO), number


def read_device_config(data, vendor_key):
    """`content_key` comes back unwrapped: number, key."""
    require(len(data) <= 64 * KIB, "over a limit", "whole")
    require(len(data) >= 80 and data[:8] == CONFIG_MAGIC, "no device configuration")
    format_, body_length = unpack("<HxxI", data[8:16])
    require(format_ == 1, "unknown format", str(format_))
    require(16 + body_length + 64 == len(data), "length does not fit")
    require(signature_holds(vendor_key, CONFIG_DOMAIN, data[:-64], data[-64:]), "signature does not hold")
    fields = parsed(_read_config_body, data[16:-64])
    size = lambda text: len(text.encode())
    require(1 <= size(fields["product"]) <= 64, "over a limit", "product")
    require(size(fields["channel"]) <= 64, "over a limit", "channel")
    align = fields["align_bytes"]
    require(align >= 4096 and align & (align - 1) == 0, "over a limit", "align_bytes %d" % align)
    require(len(fields["servers"]) <= 8, "over a limit", "servers")
    require(all(size(url) <= 512 for url, _ in fields["servers"]), "over a limit", "url")
    require(len(fields["client_commands"]) <= 8, "over a limit", "client_commands")
    require(all(size(command) <= 512 for _, command in fields["client_commands"]), "over a limit", "command")
    number, wrapped, tag = fields["content_key"]
    wrapping, associated = _content_wrapping(fields["product_secret"], number)
    key = aes_gcm.open_sealed(wrapping, NONCE_0, wrapped + tag, associated)
    require(key, "content key does not unwrap")
    fields["content_key"] = number, key
    return fields


def write_device_config(fields, vendor_seed):
    pairs = lambda items, second: postcard.listed([postcard.string(a) + second(b) for a, b in items])
    number, key = fields["content_key"]
    wrapping, associated = _content_wrapping(fields["product_secret"], number)
    body = postcard.string(fields["product"]) + postcard.string(fields["channel"])
    body += postcard.varint(PROFILES.index(fields["profile"])) + postcard.varint(fields["align_bytes"])
    body += pairs(fields["servers"], postcard.varint) + pairs(fields["client_commands"], postcard.string)
    body += postcard.raw_bytes(fields["root"]) + fields["product_secret"]
    body += postcard.varint(number) + aes_gcm.seal(wrapping, NONCE_0, key, associated)
    body += b"".join(map(postcard.varint, fields["policies"][:3])) + bytes([fields["policies"][3]])
    data = CONFIG_MAGIC + pack("<HxxI", 1, len(body)) + body
    return data + sign(vendor_seed, CONFIG_DOMAIN, data)


# Hidden zone: slots

SLOT_MAGIC = b"HOLDFSLT"
RECORD, BACKUP = 1, 2
UNATTENDED, PASSPHRASE, RECOVERY = 1, 2, 3
BODY_LABELS = {RECORD: b"holdfast record v1", BACKUP: b"holdfast backup v1"}
SALT_LABEL = b"holdfast synthetic salt v1"
MAX_RECORD = 64 * KIB


def slot_places(zone_bytes, align):
    """(start, bytes) of record A, record B, backup A, backup B."""
    half = (zone_bytes - 2 * align) // 2 // align * align
    return [(0, align), (align, align), (2 * align, half), (2 * align + half, half)]


def _unpack_key_slot(data):
    kind, memory_kib, passes, lanes, device_id, salt = unpack("<BxxxIII16s16s", data[:48])
    return {
        "kind": kind,
        "memory_kib": memory_kib,
        "passes": passes,
        "lanes": lanes,
        "device_id": device_id,
        "salt": salt,
    }


def _wrapping_key(key_slot, secret):
    salt = key_slot["salt"] + key_slot["device_id"]
    return argon2id(secret, salt, key_slot["memory_kib"], key_slot["passes"], key_slot["lanes"])


def write_key_slot(key_slot, secret, device_key):
    names = ("kind", "memory_kib", "passes", "lanes", "device_id", "salt")
    head = pack("<BxxxIII16s16s", *(key_slot[name] for name in names))
    return head + aes_gcm.seal(_wrapping_key(key_slot, secret), NONCE_0, device_key, head)


def _segments(length, size):
    """(start, end, nonce) of each piece of the body; the last is full too if the body is a multiple of the size."""
    count = max(1, -(-length // size))
    for i in range(count):
        last = i == count - 1
        yield i * size, min(length, (i + 1) * size), bytes(7) + pack(">IB", i, last)


def read_slot(data, kind, slot_bytes, unlock_kind, secret):
    """Opens a slot of `slot_bytes`, of which `data` holds at least as much as is used."""
    require(len(data) >= 4096, "cut")
    require(data[:8] == SLOT_MAGIC, "no slot")
    require(unpack_from("<I", data, 4092)[0] == crc32(data[:4092]), "checksum does not hold")
    format_, found_kind, power, generation, length = unpack("<HBB4xQQ", data[8:32])
    require(format_ == 1, "unknown format", str(format_))
    require(found_kind == kind, "other kind", str(found_kind))
    require(12 <= power <= 16, "does not fit the slot", "segment size")
    size = 1 << power
    sealed_length = length + 16 * max(1, -(-length // size))
    require(4096 + sealed_length <= slot_bytes, "does not fit the slot", "body length %d" % length)
    require(kind != RECORD or length <= MAX_RECORD, "over a limit", "record")
    require(4096 + sealed_length <= len(data), "cut")
    key_slots = [data[at : at + 96] for at in range(80, 464, 96)]
    for slot in map(_unpack_key_slot, key_slots):
        below = slot["memory_kib"] <= 64 * KIB and slot["passes"] <= 16 and slot["lanes"] <= 4
        require(slot["kind"] == 0 or below, "over the ceiling")

    device_key = None
    for raw in key_slots:
        slot = _unpack_key_slot(raw)
        if slot["kind"] != unlock_kind or device_key:
            continue
        try:
            wrapping = _wrapping_key(slot, secret)
        except ValueError:
            continue
        device_key = aes_gcm.open_sealed(wrapping, NONCE_0, raw[48:], raw[:48])
        unlocking = slot
    require(device_key, "no key slot opens")
    device_id, salt = data[32:48], data[48:80]
    require(device_id == unlocking["device_id"], "other device id")

    body_key, associated = hkdf(device_key, salt, BODY_LABELS[kind]), sha256(data[:4092]).digest()
    body, at = b"", 4096
    for start, end, nonce in _segments(length, size):
        sealed = data[at : at + end - start + 16]
        piece = aes_gcm.open_sealed(body_key, nonce, sealed, associated)
        require(piece is not None, "does not authenticate", "segment at %d" % start)
        body, at = body + piece, at + len(sealed)
    return {"generation": generation, "device_id": device_id, "device_key": device_key, "body": body}


def write_slot(kind, power, generation, device_id, device_key, key_slots, body):
    def header(salt):
        head = SLOT_MAGIC + pack("<HBB4xQQ", 1, kind, power, generation, len(body))
        return (head + device_id + salt + b"".join(key_slots)).ljust(4092, b"\0")

    label = BODY_LABELS[kind]
    unsalted = label + sha256(header(bytes(32))).digest() + sha256(body).digest()
    salt = hmac.new(hkdf(device_key, None, SALT_LABEL), unsalted, sha256).digest()
    head = header(salt)
    body_key, associated = hkdf(device_key, salt, label), sha256(head).digest()
    out = head + pack("<I", crc32(head))
    for start, end, nonce in _segments(len(body), 1 << power):
        out += aes_gcm.seal(body_key, nonce, body[start:end], associated)
    return out


# Hidden zone: bodies


def _read_record_body(r):
    release = lambda: (r.u64(), r.string(), r.raw(32), r.u64())
    fields = {
        "device_id": r.raw(16),
        "release": r.option(release),
        "previous": r.option(release),
        "health": ("unproven", r.u8()) if r.enum(["unproven", "proven"]) == "unproven" else ("proven",),
        "held": r.bool(),
        "skipped": r.list(r.u64),
    }
    fields["modules"] = r.list(lambda: (r.string(), r.string()))
    fields["backup_generation"] = r.u64()
    for name in ("statement", "root", "timestamp", "snapshot"):
        fields[name] = r.bytes()
    fields["content_keys"] = r.list(lambda: (r.u32(), r.raw(32)))
    return fields


def read_record(data, slot_bytes, unlock_kind, secret):
    """(what read_slot says, the record's fields)"""
    slot = read_slot(data, RECORD, slot_bytes, unlock_kind, secret)
    fields = parsed(_read_record_body, slot["body"])
    require(fields["device_id"] == slot["device_id"], "other device id", "in the record")
    for name, most in (("skipped", 16), ("modules", 16), ("content_keys", 8)):
        require(len(fields[name]) <= most, "over a limit", name)
    return slot, fields


def write_record_body(fields):
    def release(value):
        if value is None:
            return postcard.option(None)
        serial, version, digest, published = value
        return postcard.option(postcard.varint(serial) + postcard.string(version) + digest + postcard.varint(published))

    health = fields["health"]
    body = fields["device_id"] + release(fields["release"]) + release(fields["previous"])
    body += bytes([0, health[1]]) if health[0] == "unproven" else b"\1"
    body += bytes([fields["held"]]) + postcard.listed(list(map(postcard.varint, fields["skipped"])))
    body += postcard.listed([postcard.string(id_) + postcard.string(version) for id_, version in fields["modules"]])
    body += postcard.varint(fields["backup_generation"])
    for name in ("statement", "root", "timestamp", "snapshot"):
        body += postcard.raw_bytes(fields[name])
    return body + postcard.listed([postcard.varint(number) + key for number, key in fields["content_keys"]])


def read_backup_body(body):
    """[(platform, image)]"""
    require(len(body) >= 4096, "body does not parse", "cut")
    length = unpack_from("<I", body)[0]
    require(length <= 4092, "body does not parse", "index length")
    index = parsed(lambda r: r.list(lambda: (r.string(), r.u64(), r.u64())), body[4 : 4 + length])
    require(len(index) <= 8, "over a limit", "index")
    for _, offset, size in index:
        fits = offset >= 4096 and offset % 8 == 0 and size <= MAX_IMAGE and offset + size <= len(body)
        require(fits, "body does not parse", "index entry")
    return [(platform, body[offset : offset + size]) for platform, offset, size in index]


def write_backup_body(images):
    index, content = [], b""
    for platform, image in images:
        content += bytes(-len(content) % 8)
        place = postcard.varint(4096 + len(content)) + postcard.varint(len(image))
        index.append(postcard.string(platform) + place)
        content += image
    index = postcard.listed(index)
    return (pack("<I", len(index)) + index).ljust(4096, b"\0") + content


# Commit journal and launcher's note

JOURNAL_MAGIC = b"HOLDFJNL"
STATES = ["idle", "committing", "cleaning"]


def _read_state(r):
    name = r.enum(STATES)
    if name == "committing":
        return name, r.raw(32), r.u64()
    return (name, r.u64()) if name == "cleaning" else (name,)


def write_journal_slot(sequence, state):
    """The slot's 4096 bytes; it stands at 4096 * (sequence mod 2)."""
    body = postcard.varint(STATES.index(state[0]))
    if state[0] == "committing":
        body += state[1] + postcard.varint(state[2])
    elif state[0] == "cleaning":
        body += postcard.varint(state[1])
    slot = (JOURNAL_MAGIC + pack("<HHQ", 1, len(body), sequence) + body).ljust(4092, b"\0")
    return slot + pack("<I", crc32(slot))


def read_journal(data):
    """(sequence, state); idle if no slot holds; refused if the newest that holds is of an unknown format or does not parse."""
    newest = None
    for at in range(0, min(len(data), 8192) - 4095, 4096):
        slot = data[at : at + 4096]
        holds = slot[:8] == JOURNAL_MAGIC and unpack_from("<I", slot, 4092)[0] == crc32(slot[:4092])
        if holds and (newest is None or unpack_from("<Q", slot, 12) > unpack_from("<Q", newest, 12)):
            newest = slot
    if newest is None:
        return None, ("idle",)
    format_, length, sequence = unpack_from("<HHQ", newest, 8)
    require(format_ == 1, "unknown format", str(format_))
    require(length <= 4092 - 20, "body does not parse", "length")
    return sequence, parsed(_read_state, newest[20 : 20 + length])


def write_launcher_note(digests, probation):
    body = postcard.listed(digests)
    if probation is None:
        body += postcard.option(None)
    else:
        serial, failed, proven = probation
        body += postcard.option(postcard.varint(serial) + bytes([failed, proven]))
    rest = (pack("<H", len(body)) + body).ljust(1020, b"\0")
    return pack("<I", crc32(rest)) + rest


def read_launcher_note(data):
    """(digests, (serial, failed starts, proven) or None)"""
    require(len(data) == 1024, "cut")
    checksum, length = unpack_from("<IH", data)
    require(checksum == crc32(data[4:]), "checksum does not hold")
    require(length <= 1018, "body does not parse", "length")
    read = lambda r: (r.list(lambda: r.raw(32)), r.option(lambda: (r.u64(), r.u8(), r.bool())))
    digests, probation = parsed(read, data[6 : 6 + length])
    require(len(digests) <= 8, "over a limit", "digests")
    return digests, probation


def write_region(data, region_bytes):
    fields = pack("<8sHHI12x", b"HOLDFREG", 1, 0, len(data))
    return data.ljust(region_bytes - 32, b"\xff") + fields + pack("<I", crc32(fields))


def read_region(region):
    """The file in a region of flash."""
    footer = region[-32:]
    length = unpack_from("<I", footer, 12)[0]
    fields = pack("<8sHHI12x", b"HOLDFREG", 1, 0, length)
    require(footer == fields + pack("<I", crc32(fields)) and length <= len(region) - 32, "no file")
    return region[:length]
