"""Reads every vector of the device formats, and writes the good ones again, byte for byte; applies every patch.

Source: docs/formats, by way of formats.py and patches.py. Usage: python3 testdata/independent/check.py [testdata directory]
One line for each check, then `N passed, N failed`; exit status 1 if one failed.
"""

import json
import sys
from pathlib import Path
from struct import pack, pack_into
from zlib import crc32

sys.dont_write_bytecode = True

import aes_gcm
import ed25519
import formats
import patches
import postcard
from argon2id import argon2id
from formats import MIB, Refused
from store_vectors import store_checks

PRODUCT, PLATFORM = "Field Handbook", "linux-x86_64"
VENDOR_SEED, UPDATER_SEED, SECRET, CONTENT_KEY = (bytes([n]) * 32 for n in (1, 2, 3, 5))
VENDOR_KEY, UPDATER_KEY = ed25519.public_key(VENDOR_SEED), ed25519.public_key(UPDATER_SEED)
DEVICE_ID, KEY_SALT, DEVICE_KEY = bytes(range(0x21, 0x31)), bytes(range(0x31, 0x41)), bytes(range(1, 33))
MANIFEST = bytes.fromhex("05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f")
SLOT_BYTES = 4 * MIB
REGION_FILE = bytes(7 * i % 256 for i in range(100))


def executable():
    data = bytearray(31 * i % 251 for i in range(512))
    data[64:128] = formats.STAMP + VENDOR_KEY
    return bytes(data)


IMAGE = {
    "product": PRODUCT,
    "platform": PLATFORM,
    "version": (1, 2, 3),
    "image_bytes": 512,
    "sha256": formats.sha256(executable()).digest(),
    "certificate": formats.certify(VENDOR_SEED, 1, UPDATER_KEY),
    "floors": ((0, 0, 0), 0),
}
CONFIG = {
    "product": PRODUCT,
    "channel": "stable",
    "profile": "stick",
    "align_bytes": 4 * MIB,
    "servers": [("https://updates.example.org/handbook/", 3), ("http://198.51.100.7/", 1)],
    "client_commands": [("", "client/run.sh"), ("windows-x86_64", "client/run.exe --full")],
    "root": b'{"signed":{}}',
    "product_secret": SECRET,
    "content_key": (1, CONTENT_KEY),
    "policies": (5, 10, 30, 3),
}
RECORD = {
    "device_id": DEVICE_ID,
    "release": (5, "1.4.0", MANIFEST, 1790000000),
    "previous": (4, "1.3.9", MANIFEST, 1790000000),
    "health": ("unproven", 1),
    "held": False,
    "skipped": [3],
    "modules": [("client", "1.4.0")],
    "backup_generation": 300,
    "statement": b"",
    "root": b"r" * 5000,
    "timestamp": b"",
    "snapshot": b"",
    "content_keys": [(2, bytes([6]) * 32)],
}
KEY_SLOT = {
    "kind": formats.UNATTENDED,
    "memory_kib": 256,
    "passes": 1,
    "lanes": 1,
    "device_id": DEVICE_ID,
    "salt": KEY_SALT,
}


def read_image(data, **changes):
    values = {"vendor_key": VENDOR_KEY, "product": PRODUCT, "platform": PLATFORM, **changes}
    return formats.read_updater_image(data, **values)


def read_config(data):
    return formats.read_device_config(data, VENDOR_KEY)


def read_record(data):
    slot, fields = formats.read_record(data, SLOT_BYTES, formats.UNATTENDED, SECRET)
    same(slot["generation"], 7)
    same(slot["device_key"], DEVICE_KEY)
    return fields


def write_image(**changes):
    return formats.write_updater_image(executable(), {**IMAGE, **changes}, UPDATER_SEED)


def write_config(**changes):
    return formats.write_device_config({**CONFIG, **changes}, VENDOR_SEED)


def write_slot(body, kind=formats.RECORD, device_id=DEVICE_ID, power=12, **key_slot):
    key_slots = [formats.write_key_slot({**KEY_SLOT, **key_slot}, SECRET, DEVICE_KEY)]
    return formats.write_slot(kind, power, 7, device_id, DEVICE_KEY, key_slots, body)


def read_journal(data):
    return formats.read_journal(data)


def write_journal():
    slots = [None, None]
    for sequence, state in ((2, ("idle",)), (3, ("committing", formats.sha256(b"plan").digest(), 300))):
        slots[sequence % 2] = formats.write_journal_slot(sequence, state)
    return b"".join(slots)


def write_record(**changes):
    return write_slot(formats.write_record_body({**RECORD, **changes}))


# directory: (reader, {good vector: (fields, written again)}, {bad vector: the reason that fits its name})
VECTORS = {
    "updater-image/v1": (
        read_image,
        {"good-1.2.3.img": (IMAGE, write_image)},
        {
            "cut-in-the-trailer.img": "no trailer",
            "executable-byte-flipped.img": "digest differs",
            "foreign-vendor.img": "foreign vendor",
            "magic-byte-flipped.img": "no trailer",
            "signature-byte-flipped.img": "signature does not hold",
            "unknown-format.img": "unknown format",
        },
    ),
    "device-config/v1": (
        read_config,
        {"stick-two-servers.cfg": (CONFIG, write_config)},
        {
            "body-length-past-the-end.cfg": "length does not fit",
            "cut-in-the-signature.cfg": "length does not fit",
            "server-changed-by-hand.cfg": "signature does not hold",
            "signed-but-align-is-no-power-of-two.cfg": "over a limit",
            "unknown-format.cfg": "unknown format",
        },
    ),
    "hidden-zone/v1": (
        read_record,
        {"record-generation-7.slot": (RECORD, write_record)},
        {
            "argon2-asks-for-four-terabytes.slot": "over the ceiling",
            "body-byte-flipped.slot": "does not authenticate",
            "body-longer-than-its-slot.slot": "does not fit the slot",
            "generation-raised-by-hand.slot": "does not authenticate",
            "header-checksum-wrong.slot": "checksum does not hold",
            "unknown-format.slot": "unknown format",
        },
    ),
    "journal/v1": (
        read_journal,
        {
            "committing-serial-300.journal": ((3, ("committing", formats.sha256(b"plan").digest(), 300)), write_journal),
            "newest-slot-torn.journal": ((2, ("idle",)), None),
        },
        {"newest-slot-of-a-later-format.journal": "unknown format"},
    ),
    "region/v1": (
        formats.read_region,
        {"file-of-100-bytes.region": (REGION_FILE, lambda: formats.write_region(REGION_FILE, 512))},
        {
            "erased.region": "no file",
            "footer-checksum-wrong.region": "no file",
            "footer-half-written.region": "no file",
            "longer-than-its-region.region": "no file",
            "unknown-format.region": "no file",
            "unknown-magic.region": "no file",
        },
    ),
}


def same(found, expected):
    assert found == expected, "%r instead of %r" % (found, expected)


def refused(reason, read, *arguments, **named):
    try:
        read(*arguments, **named)
    except Refused as error:
        assert error.reason == reason, "refused, but because: %s" % error
        return str(error)
    raise AssertionError("not refused")


def vector(path, read, good, bad):
    data = path.read_bytes()
    if path.name in good:
        fields, write = good[path.name]
        same(read(data), fields)
        if write is None:
            return "opens"
        assert write() == data, "opens, but is not written the same"
        return "opens; written again byte for byte"
    assert path.name in bad, "a vector that this program does not know"
    return "refused: " + refused(bad[path.name], read, data)


def patch_expectations(directory):
    """What is expected of the patches there: the independent writer's, and the product's own."""
    read = lambda name: json.loads((directory / name).read_text())
    return {**read("expect.json"), **read("product.json")}


def patch_vector(path, expected):
    assert path.name in expected, "a vector that this program does not know"
    of = expected[path.name]
    old, new = ((path.parent / of[side]).read_bytes() for side in ("old", "new"))
    if of["expect"] == "ok":
        same(patches.apply(path.read_bytes(), old, len(new)) == new, True)
        return "gives %d bytes" % len(new)
    return "refused: " + refused(of["reason"], patches.apply, path.read_bytes(), old, len(new))


# The primitives, by the vectors of their own documents


def rfc_8032():
    tests = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
            "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ]
    for test in tests:
        seed, key, message, signature = map(bytes.fromhex, test)
        same(ed25519.public_key(seed), key)
        same(ed25519.sign(seed, message), signature)
        assert ed25519.verify(key, message, signature)
        assert not ed25519.verify(key, message + b"x", signature)
        s = int.from_bytes(signature[32:], "little") + ed25519.L
        assert not ed25519.verify(key, message, signature[:32] + s.to_bytes(32, "little")), "S over the group order"
    neutral = b"\1" + bytes(31)
    assert not ed25519.verify(neutral, b"", neutral + bytes(32)), "key of small order"


def nist_gcm():
    key = "feffe9928665731c6d6a8f9467308308" * 2
    nonce, associated = "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2"
    plain = (
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
    )
    tests = [
        ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        ("00" * 32, "00" * 12, "00" * 16, "", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
        (key, nonce, plain, associated, sealed),
    ]
    for test in tests:
        key, nonce, plain, associated, sealed = map(bytes.fromhex, test)
        same(aes_gcm.seal(key, nonce, plain, associated), sealed)
        same(aes_gcm.open_sealed(key, nonce, sealed, associated), plain)
        same(aes_gcm.open_sealed(key, nonce, sealed, associated + b"x"), None)


def rfc_9106():
    tag = argon2id(b"\1" * 32, b"\2" * 16, 32, 3, 4, 32, b"\3" * 8, b"\4" * 12)
    same(tag.hex(), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")


def rfc_5869():
    found = formats.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    same(found.hex(), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")


def checksum_and_varints():
    same(crc32(b"123456789"), 0xCBF43926)
    good = ((0, 16, "00"), (65535, 16, "ffff03"), (2**32 - 1, 32, "ffffffff0f"), (2**64 - 1, 64, "ff" * 9 + "01"))
    for value, bits, text in good:
        same(postcard.varint(value).hex(), text)
        same(postcard.Reader(bytes.fromhex(text)).varint(bits), value)
    for bits, text in ((16, "ffff04"), (16, "80808000"), (32, "ffffffff10"), (64, "ff" * 9 + "02"), (64, "80")):
        try:
            postcard.Reader(bytes.fromhex(text)).varint(bits)
        except postcard.Malformed:
            continue
        raise AssertionError("read: " + text)


# What the documents say and no vector shows


def image_rules():
    good = write_image()
    refused("other product", read_image, good, product="Another")
    refused("other platform", read_image, good, platform="linux-aarch64")
    same(read_image(good, floors=((1, 2, 3), 1)), IMAGE)
    refused("below the floors", read_image, good, floors=((1, 3, 0), 0))
    refused("below the floors", read_image, good, floors=((0, 0, 0), 2))
    refused("over a limit", read_image, write_image(product="x" * 65))
    refused("over a limit", read_image, write_image(platform="x" * 33))
    refused("image_bytes is not where the trailer starts", read_image, executable()[:8] + good)
    refused("no trailer", read_image, b"")
    refused("no trailer", read_image, good[:-8] + pack("<II", 1032, 0))


def image_of_pe():
    for magic, directories in ((0x10B, 96), (0x20B, 112)):
        image = bytearray(1024)
        image[:2] = b"MZ"
        pack_into("<I", image, 60, 128)
        image[128:132] = b"PE\0\0"
        pack_into("<H", image, 152, magic)
        pack_into("<I", image, 152 + directories - 4, 4)
        data = bytearray(formats.write_updater_image(bytes(image), IMAGE, UPDATER_SEED))
        read_image(bytes(data))
        # Four directories: no certificate table, and no byte that may change.
        for at in (152 + 64, 152 + directories + 32):
            data[at] ^= 1
            refused("digest differs", read_image, bytes(data))
            data[at] ^= 1
        pack_into("<I", image, 152 + directories - 4, 16)
        data = bytearray(formats.write_updater_image(bytes(image), IMAGE, UPDATER_SEED))
        read_image(bytes(data))
        # Authenticode: a checksum, a directory entry, a table at the end.
        pack_into("<I", data, 152 + 64, 0x12345678)
        pack_into("<II", data, 152 + directories + 32, len(data), 24)
        data += bytes([1]) * 24
        read_image(bytes(data))
        refused("no trailer", read_image, bytes(data) + bytes(8))
        data[700] ^= 1
        refused("digest differs", read_image, bytes(data))


def config_rules():
    changes = [
        {"product": ""},
        {"product": "x" * 65},
        {"channel": "x" * 65},
        {"align_bytes": 2048},
        {"align_bytes": 4096 * 3},
        {"servers": [("http://198.51.100.7/", 1)] * 9},
        {"servers": [("x" * 513, 1)]},
        {"client_commands": [("", "x")] * 9},
        {"client_commands": [("", "x" * 513)]},
        {"root": bytes(64 * 1024)},
    ]
    for change in changes:
        refused("over a limit", read_config, write_config(**change))
    refused("length does not fit", read_config, write_config() + b"\0")
    body = write_config()[16:-64]
    head = formats.CONFIG_MAGIC + pack("<HxxI", 1, len(body) + 3) + body + b"new"
    same(read_config(head + formats.sign(VENDOR_SEED, formats.CONFIG_DOMAIN, head)), CONFIG)


def slot_rules():
    def read(data, kind=formats.RECORD, unlock=formats.UNATTENDED, secret=SECRET, room=SLOT_BYTES):
        return formats.read_slot(data, kind, room, unlock, secret)

    good = write_record()
    refused("other kind", read, good, formats.BACKUP)
    refused("no key slot opens", read, good, secret=bytes(32))
    refused("no key slot opens", read, good, unlock=formats.RECOVERY)
    refused("does not fit the slot", read, good, room=len(good) - 1)
    refused("does not fit the slot", read, write_slot(b"", power=11))
    refused("does not fit the slot", read, write_slot(b"", power=17))
    refused("other device id", read, write_slot(b"", device_id=bytes(16)))
    for name, value in (("memory_kib", 65537), ("passes", 17), ("lanes", 5)):
        raw = bytearray(good)
        pack_into("<I", raw, {"memory_kib": 84, "passes": 88, "lanes": 92}[name], value)
        pack_into("<I", raw, 4092, crc32(raw[:4092]))
        refused("over the ceiling", read, bytes(raw))
    refused("over a limit", read_record, write_slot(bytes(65537), power=16))
    refused("over a limit", read_record, write_record(skipped=[1] * 17))
    refused("over a limit", read_record, write_record(modules=[("a", "1")] * 17))
    refused("over a limit", read_record, write_record(content_keys=[(1, CONTENT_KEY)] * 9))
    refused("other device id", read_record, write_record(device_id=bytes(16)))
    changes = {"release": None, "health": ("proven",), "held": True, "modules": [("app", "2.0")]}
    changes["statement"] = b"s" * 300
    same(read_record(write_record(**changes)), {**RECORD, **changes})
    same(read_record(write_slot(formats.write_record_body(RECORD) + b"new")), RECORD)


def slot_segments():
    read = lambda data: formats.read_slot(data, formats.BACKUP, SLOT_BYTES, formats.UNATTENDED, SECRET)
    for length, count in ((0, 1), (4096, 1), (4097, 2), (8192, 2)):
        body = bytes(i % 251 for i in range(length))
        slot = write_slot(body, formats.BACKUP)
        same(len(slot), 4096 + length + 16 * count)
        same(read(slot)["body"], body)
        refused("cut", read, slot[:-1])
    first, second = slot[4096:8208], slot[8208:]
    refused("does not authenticate", read, slot[:4096] + second + first)


def backup_body():
    images = [("linux-x86_64", b"a" * 21), ("windows-x86_64", b"b" * 8)]
    body = formats.write_backup_body(images)
    same(body[4096 + 24 :], b"b" * 8)
    same(formats.read_backup_body(body), images)
    refused("body does not parse", formats.read_backup_body, body[:-1])
    refused("over a limit", formats.read_backup_body, formats.write_backup_body(images * 5))
    same(formats.slot_places(103 * MIB, 4 * MIB)[2:], [(8 * MIB, 44 * MIB), (52 * MIB, 44 * MIB)])


def journal():
    states = [("idle",), ("committing", MANIFEST, 300), ("cleaning", 300)]
    same(formats.read_journal(b""), (None, ("idle",)))
    slots = [bytes(4096), bytes(4096)]
    for sequence, state in enumerate(states * 2, 8):
        slots[sequence % 2] = formats.write_journal_slot(sequence, state)
        same(formats.read_journal(b"".join(slots)), (sequence, state))
    torn = slots[1][:512] + bytes(3584)
    same(formats.read_journal(slots[0] + torn), (12, states[1]))
    same(formats.read_journal(bytes(4096) + torn), (None, ("idle",)))


def launcher_note():
    for note in (([], None), ([MANIFEST] * 8, (300, 2, True))):
        same(formats.read_launcher_note(formats.write_launcher_note(*note)), note)
    data = formats.write_launcher_note([], None)
    refused("checksum does not hold", formats.read_launcher_note, data[:-1] + b"x")
    refused("over a limit", formats.read_launcher_note, formats.write_launcher_note([MANIFEST] * 9, None))


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    checks = [
        ("Ed25519: RFC 8032", rfc_8032),
        ("AES-256-GCM: NIST", nist_gcm),
        ("Argon2id: RFC 9106", rfc_9106),
        ("HKDF-SHA256: RFC 5869", rfc_5869),
        ("CRC-32 and varints", checksum_and_varints),
    ]
    for directory, (read, good, bad) in VECTORS.items():
        known = {*good, *bad}
        present = {path.name for path in (root / directory).glob("*") if path.suffix != ".py"}
        for name in sorted(known | present):
            checks.append((directory + "/" + name, vector, root / directory / name, read, good, bad))
    expected = patch_expectations(root / "patch/v1")
    for name in sorted({*expected} | {path.name for path in (root / "patch/v1").glob("*.patch")}):
        checks.append(("patch/v1/" + name, patch_vector, root / "patch/v1" / name, expected))
    checks += [
        ("updater image: rules", image_rules),
        ("updater image: PE file, signed afterwards", image_of_pe),
        ("device configuration: rules", config_rules),
        ("slot and record: rules", slot_rules),
        ("slot: segments", slot_segments),
        ("backup", backup_body),
        ("journal", journal),
        ("launcher's note", launcher_note),
    ]
    checks += store_checks(root)
    failed = 0
    for name, check, *arguments in checks:
        try:
            print("ok    %s: %s" % (name, check(*arguments) or "holds"))
        except Exception as error:
            failed += 1
            print("FAIL  %s: %s: %s" % (name, type(error).__name__, error))
    print("%d passed, %d failed" % (len(checks) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
