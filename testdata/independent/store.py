"""Readers of what a release store holds sealed, a second time and from the documents alone: manifests, chunk lists, steps.

Sources: docs/formats/store.md, pack.md, manifest.md, step.md. As in formats.py a reader returns the document's fields, or raises
Refused with the reason. Patterns are only checked, never matched.
"""

from hashlib import sha256
from hmac import new as hmac
from struct import pack, unpack_from

import aes_gcm
from formats import MIB, NONCE_0, Refused, hkdf, parsed, require

KINDS = {2: (b"HOLDLIST", 16 * MIB), 3: (b"HOLDFMAN", 12 * MIB), 5: (b"HOLDSTEP", 8 * MIB)}
TIB, U64 = 1 << 40, 1 << 64
MAX_FILE = (1 << 32) - 1
MAX_RENAMED = 4 * 65536


def fits(content, frame, limit):
    """Whether a frame may have these lengths."""
    require(content <= limit, "over a limit", "content")
    require(frame <= content + content // 256 + 128, "over a limit", "frame")
    require(frame > 32, "malformed", "shorter than salt and tag")


# Sealed objects


def decompressed(data, length):
    """zstd (RFC 8878) of one frame without checksum, of raw and run-length blocks: what the vectors are made of."""
    require(data[:5] == bytes.fromhex("28b52ffda0"), "malformed", "no such zstd frame")
    require(unpack_from("<I", data, 5)[0] == length, "malformed", "it says that it is of another length")
    at, out, last = 9, b"", False
    while not last:
        require(len(data) >= at + 3, "malformed", "cut")
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        require(kind < 2, "malformed", "a block of a kind that this program does not read")
        stored = 1 if kind else size
        block = data[at + 3 : at + 3 + stored]
        require(len(block) == stored and len(out) + size <= length, "malformed", "cut, or more than it says")
        out += block * size if kind else block
        at += 3 + stored
    require(at == len(data) and len(out) == length, "malformed", "less than it says")
    return out


def open_sealed(data, kind, keys):
    """The encoded object."""
    magic, limit = KINDS[kind]
    require(len(data) >= 20 and data[:8] == magic, "malformed", "header")
    format_, zero, number, length = unpack_from("<HHII", data, 8)
    require(format_ == 1, "unknown format", str(format_))
    require(zero == 0, "malformed", "reserved")
    require(number in keys, "unknown key", str(number))
    frame = data[20:]
    fits(length, len(frame), limit)
    associated = bytes([kind]) + bytes(32) + pack("<II", length, len(frame))
    key = hkdf(keys[number], frame[:16], b"holdfast frame key v1")
    plain = aes_gcm.open_sealed(key, NONCE_0, frame[16:], associated)
    require(plain is not None, "does not authenticate")
    require(keyed_digest(keys[number], associated + plain) == frame[:16], "malformed", "the salt is not the content's")
    return decompressed(plain, length)


def keyed_digest(key, data):
    return hmac(hkdf(key, b"", b"holdfast frame salt v1"), data, sha256).digest()[:16]


# Manifests


DEVICES = {"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"}
DEVICES |= {port + digit for port in ("COM", "LPT") for digit in "0123456789¹²³"}
DIRECTION = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF}


def units(text):
    return len(text.encode("utf-16-le")) // 2


def check_component(name):
    require(name not in ("", ".", ".."), "path", name)
    require(units(name) <= 120 and len(name.encode()) <= 240, "path", "component too long")
    for character in name:
        number = ord(character)
        control = number < 32 or 0x7F <= number < 0xA0
        require(not control and character not in '\\:<>"|?*' and number not in DIRECTION, "path", repr(name))
    require(name[-1] not in ". ", "path", repr(name))
    require(name.split(".")[0].rstrip(" ").upper() not in DEVICES, "path", "a device's name")
    stem, _, extension = name.partition(".")
    front, tilde, digits = stem.rpartition("~")
    short = len(stem) <= 8 and len(extension) <= 3 and "." not in extension
    alias = short and front and tilde and digits and all(digit in "0123456789" for digit in digits)
    require(not alias, "path", "a short alias")


def simple_case(text):
    one = lambda changed, as_it_was: changed if len(changed) == 1 else as_it_was
    upper = [one(character.upper(), character) for character in text]
    return "".join(one(character.lower(), character) for character in upper)


def check_paths(paths):
    seen = {}
    for path in paths:
        components = path.split("/")
        require(units(path) <= 240 and len(components) <= 32, "path", "too long or too deep")
        for component in components:
            check_component(component)
        for count in range(1, len(components) + 1):
            place, directory = "/".join(components[:count]), count < len(components)
            known = seen.setdefault(simple_case(place), (place, directory))
            require(known == (place, directory), "path", "%r beside %r" % (path, known[0]))
            if not directory:
                seen[simple_case(place)] = (place, None)  # A file is there once.


def check_word(text, limit):
    allowed = all(character.isascii() and (character.isalnum() or character in "._-+") for character in text)
    require(1 <= len(text.encode()) <= limit and allowed and text[0] not in ".-", "malformed", "the name %r" % text)


def check_pattern(pattern):
    require(1 <= len(pattern.encode()) <= 240, "malformed", "pattern")
    require(sum(pattern.replace("**", "*").count(wildcard) for wildcard in "*?[") <= 6, "malformed", "wildcards")
    require(pattern[0] != "/" and "\\" not in pattern, "malformed", "not relative")
    for component in pattern.split("/"):
        require(component != "..", "malformed", "climbs")
        require("**" not in component or component == "**", "malformed", "`**` is not alone")
        require("[" not in component or "]" in component[component.index("[") + 2 :], "malformed", "set")


def _read_module(r):
    return {"id": r.string(), "version": r.string()}


def _read_file(r):
    return {
        "path": r.string(),
        "mode": r.u32(),
        "size": r.u64(),
        "stored": r.u64(),
        "sha256": r.raw(32),
        "policy": r.enum(["managed", "seed"]),
        "module": r.u16(),
    }


def _read_updater(r):
    version = lambda: (r.u16(), r.u16(), r.u16())
    return {"platform": r.string(), "version": version(), "size": r.u64(), "stored": r.u64(), "sha256": r.raw(32)}


def _read_manifest(r):
    return {
        "product": r.string(),
        "channel": r.string(),
        "serial": r.u64(),
        "version": r.string(),
        "published": r.i64(),
        "modules": r.list(lambda: _read_module(r)),
        "files": r.list(lambda: _read_file(r)),
        "updaters": r.list(lambda: _read_updater(r)),
        "ignore": r.list(r.string),
        "blind": r.raw(16),
    }


def well_formed(read, data):
    try:
        return parsed(read, data)
    except Refused as error:
        raise Refused("malformed", str(error))


def check_manifest(m):
    product = m["product"]
    printable = product == product.strip() and not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in product)
    require(1 <= len(product.encode()) <= 64 and printable, "malformed", "product")
    check_word(m["channel"], 32)
    check_word(m["version"], 64)
    require(m["serial"] >= 1, "malformed", "serial")
    for name, limit in (("modules", 1024), ("files", 65536), ("updaters", 16), ("ignore", 256)):
        require(len(m[name]) <= limit, "over a limit", name)
    for module in m["modules"]:
        check_word(module["id"], 64)
        check_word(module["version"], 64)
    ids = [module["id"] for module in m["modules"]]
    require(len(set(ids)) == len(ids), "malformed", "a module is there twice")
    check_paths([file["path"] for file in m["files"]])
    order = [file["path"].encode() for file in m["files"]]
    require(order == sorted(order), "malformed", "files out of order")
    for file in m["files"]:
        require(file["mode"] in (0o755, 0o644), "malformed", "mode")
        require(file["module"] < len(ids), "malformed", "module")
        require(file["size"] <= MAX_FILE, "over a limit", file["path"])
    platforms = [updater["platform"] for updater in m["updaters"]]
    for updater in m["updaters"]:
        check_word(updater["platform"], 32)
        require(1 <= updater["size"] <= 64 * MIB, "over a limit", updater["platform"])
    require(platforms == sorted(set(platforms)), "malformed", "updaters out of order")
    for pattern in m["ignore"]:
        check_pattern(pattern)
    return m


def read_manifest(data):
    return check_manifest(well_formed(_read_manifest, data))


def check_blinding(m, data, key):
    """That `blind` is what it must be in the manifest `m` encoded as `data`. Only who publishes has use for that."""
    require(keyed_digest(key, data.replace(m["blind"], bytes(16))) == m["blind"], "malformed", "blind")


def contents(m):
    """[(sha256, size)]: distinct, not empty, files first."""
    return list({entry["sha256"]: entry["size"] for entry in m["files"] + m["updaters"] if entry["size"]}.items())


# Chunk lists


def _read_pack(r):
    return {"digest": r.raw(32), "length": r.u64(), "key": r.u32()}


def _read_chunk_list(r):
    chunk = lambda: dict(digest=r.raw(32), length=r.u32(), pack=r.u32(), offset=r.u64(), frame=r.u32())
    content = lambda: {"digest": r.raw(32), "length": r.u64(), "chunks": r.list(r.u32)}
    return {"packs": r.list(lambda: _read_pack(r)), "chunks": r.list(chunk), "contents": r.list(content)}


def read_chunk_list(data):
    fields = well_formed(_read_chunk_list, data)
    packs, chunks = fields["packs"], fields["chunks"]
    require(len(packs) <= 65536 and all(pack["length"] <= TIB for pack in packs), "over a limit", "packs")
    for chunk in chunks:
        fits(chunk["length"], chunk["frame"], MIB)
        require(chunk["length"] > 0 and chunk["pack"] < len(packs), "malformed", "chunk")
        end = chunk["offset"] + chunk["frame"]
        require(end <= packs[chunk["pack"]]["length"], "malformed", "a chunk reaches past its pack")
    digests = [content["digest"] for content in fields["contents"]]
    require(digests == sorted(set(digests)), "malformed", "contents out of order")
    for content in fields["contents"]:
        require(all(place < len(chunks) for place in content["chunks"]), "malformed", "no such chunk")
        whole = sum(chunks[place]["length"] for place in content["chunks"])
        require(whole == content["length"], "malformed", "chunks do not add up")
    return fields


# Steps


def _read_difference(r):
    return {
        "serial": r.u64(),
        "version": r.string(),
        "published": r.i64(),
        "blind": r.raw(16),
        "modules": r.option(lambda: r.list(lambda: _read_module(r))),
        "updaters": r.option(lambda: r.list(lambda: _read_updater(r))),
        "ignore": r.option(lambda: r.list(r.string)),
        "removed": r.list(r.u32),
        "copied": r.list(r.i32),
        "renamed": r.list(lambda: _read_rename(r)),
        "changed": r.list(lambda: {"skip": r.u32(), "sha256": r.raw(32), "size": r.i64(), "stored": r.i64()}),
        "altered": r.list(lambda: _read_altered(r)),
        "added": r.list(lambda: _read_file(r)),
    }


def _read_rename(r):
    return {"first": r.i32(), "count": r.u32(), "at": r.u32(), "length": r.u32(), "with": r.string().encode()}


def _read_altered(r):
    fields = {"skip": r.u32(), "mode": r.u32(), "policy": r.enum(["managed", "seed"]), "module": r.u16()}
    return {**fields, "stored": r.u64()}


def _read_patch(r):
    part = lambda: {"digest": r.raw(32), "length": r.u32(), "frame": r.u32()}
    return {"sources": r.list(r.i32), "targets": r.list(r.i32), "parts": r.list(part)}


def _read_step(r):
    fields = {"from": r.u64(), "manifest": _read_difference(r), "pack": r.option(lambda: _read_pack(r))}
    return {**fields, "patches": r.list(lambda: _read_patch(r))}


def read_step(data):
    step = well_formed(_read_step, data)
    require(len(step["patches"]) <= 65536, "malformed", "patches")
    require(sum(len(patch["parts"]) for patch in step["patches"]) <= 65536, "malformed", "parts")
    for name in ("removed", "copied", "changed", "altered", "added"):
        require(len(step["manifest"][name]) <= 65536, "malformed", name)
    require(len(step["manifest"]["renamed"]) <= MAX_RENAMED, "malformed", "renamed")
    frames = 0
    for patch in step["patches"]:
        require(1 <= len(patch["targets"]) <= 65536 >= len(patch["sources"]), "malformed", "sources or targets")
        for part in patch["parts"]:
            fits(part["length"], part["frame"], MIB)
            require(part["length"] > 0, "malformed", "a part without bytes")
            frames += part["frame"]
    require(step["pack"] or not step["patches"], "malformed", "no pack")
    held = step["pack"]["length"] if step["pack"] else 0
    require(frames <= held <= TIB, "malformed", "past the pack")
    return step


def places(skips, count):
    """Where the entries of a list stand that says how many others are in front of each."""
    at, found = -1, []
    for skip in skips:
        at += skip + 1
        require(at < count, "malformed", "beyond the files")
        found.append(at)
    return found


def different(differences, count):
    """Places in a list, each said as the difference from one more than the one in front."""
    at, found = -1, []
    for difference in differences:
        at += difference + 1
        require(0 <= at < count, "malformed", "no such place")
        found.append(at)
    return found


def rename(files, renames):
    require(sum(change["count"] for change in renames) <= MAX_RENAMED, "over a limit", "renamed")
    held = lambda: sum(len(file["path"].encode()) for file in files)
    require(held() <= 12 * MIB, "over a limit", "paths")
    next = 0
    for change in renames:
        first, next = next + change["first"], next + change["first"] + change["count"]
        require(0 <= first and next <= len(files), "malformed", "renamed beyond the files")
        for file in files[first:next]:
            path, end = file["path"].encode(), change["at"] + change["length"]
            require(len(path) + len(change["with"]) - change["length"] <= 720, "path", "too long")
            require(end <= len(path), "malformed", "beyond the path")
            try:
                parts = [part.decode() for part in (path[: change["at"]], change["with"], path[end:])]
            except UnicodeDecodeError:
                raise Refused("malformed", "amid a letter")
            file["path"] = "".join(parts)
        require(held() <= 12 * MIB, "over a limit", "paths")


def stepped(step, old):
    """The manifest that a step makes of `old`."""
    require(old["serial"] == step["from"], "malformed", "from another release")
    change = step["manifest"]
    gone = set(places(change["removed"], len(old["files"])))
    kept = [at for at in range(len(old["files"])) if at not in gone]
    require(len(kept) + len(change["copied"]) + len(change["added"]) <= 65536, "over a limit", "files")
    files = [dict(old["files"][at]) for at in kept + different(change["copied"], len(old["files"]))]
    rename(files, change["renamed"])
    for at, new in zip(places([new["skip"] for new in change["changed"]], len(files)), change["changed"]):
        files[at]["sha256"] = new["sha256"]
        for name in ("size", "stored"):
            files[at][name] = (files[at][name] + new[name]) % U64
    for at, new in zip(places([new["skip"] for new in change["altered"]], len(files)), change["altered"]):
        files[at].update({name: new[name] for name in ("mode", "policy", "module", "stored")})
    files = sorted(files + change["added"], key=lambda file: file["path"].encode())
    made = {"product": old["product"], "channel": old["channel"], "files": files}
    for name in ("serial", "version", "published", "blind"):
        made[name] = change[name]
    for name in ("modules", "updaters", "ignore"):
        made[name] = old[name] if change[name] is None else change[name]
    return check_manifest(made)


def step_patches(step, old, new):
    """[(sources, targets, where the frames begin, their length)], contents by digest."""

    named = lambda differences, known: [known[at] for at in different(differences, len(known))]
    offset, found = 0, []
    for patch in step["patches"]:
        sources, targets = named(patch["sources"], contents(old)), named(patch["targets"], contents(new))
        require(sum(size for _, size in targets) <= MAX_FILE, "malformed", "gives too much")
        length = sum(part["frame"] for part in patch["parts"])
        found.append(([digest for digest, _ in sources], [digest for digest, _ in targets], offset, length))
        offset += length
    return found
