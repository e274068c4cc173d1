"""The vectors of what a store holds, for check.py: each directory's own expect.json says what a reader answers.

Source: docs/formats, by way of store.py.
"""

import json

import store
from formats import Refused

ANSWERS = {
    "malformed": "Malformed",
    "over a limit": "TooLarge",
    "path": "Path",
    "unknown format": "UnknownFormat",
    "unknown key": "UnknownKey",
    "does not authenticate": "Undecryptable",
}


def same(found, expected):
    assert found == expected, "%r instead of %r" % (found, expected)


def read_sealed(data, expect, of, _):
    plain = store.open_sealed(data, of["kind"], {expect["key"]["number"]: bytes.fromhex(expect["key"]["key"])})
    assert plain.decode() in (expect["content"], ""), "another content"


def read_manifest(data, expect, *_):
    manifest = store.read_manifest(data)
    store.check_blinding(manifest, data, bytes.fromhex(expect["key"]["key"]))
    return manifest


def read_step(data, expect, of, directory):
    old = store.read_manifest((directory / expect["from"]).read_bytes())
    step = store.read_step(data)
    new = store.stepped(step, old)
    found = store.step_patches(step, old, new)
    same(new, read_manifest((directory / of["gives"]).read_bytes(), expect))
    digests = lambda listed: [bytes.fromhex(digest) for digest in listed]
    places = lambda patch: (patch["offset"], patch["stored_bytes"])
    same(found, [(digests(patch["sources"]), digests(patch["targets"]), *places(patch)) for patch in of["patches"]])


# directory: (what the vectors' names end in, their list in expect.json, reader)
VECTORS = {
    "sealed/v1": (".sealed", "sealed", read_sealed),
    "manifest/v1": (".manifest", "manifests", read_manifest),
    "pack/v1": (".list", "lists", lambda data, *_: store.read_chunk_list(data)),
    "step/v1": (".step", "steps", read_step),
}


def vector(path, read, expect, of):
    assert of is not None, "a vector that is not in expect.json"
    wanted = of if isinstance(of, str) else of["expect"]
    try:
        read(path.read_bytes(), expect, of, path.parent)
    except Refused as error:
        same(ANSWERS[error.reason], wanted)
        return "refused: %s" % error
    same("ok", wanted)
    return "is what it should be"


def store_checks(root):
    for name, (ending, listed, read) in VECTORS.items():
        expect = json.loads((root / name / "expect.json").read_text())
        present = {path.name for path in (root / name).glob("*" + ending)}
        for vector_name in sorted(present | set(expect[listed])):
            of = expect[listed].get(vector_name)
            yield name + "/" + vector_name, vector, root / name / vector_name, read, expect, of
