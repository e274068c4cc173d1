//! The published vectors: each is accepted, or refused for the reason that its name states. They are written by an
//! independent implementation in Python (`testdata/*/v1/make.py`); those in `product.json` by this one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::Digest;
use release_store::frame::{FrameId, FrameKind, FrameReader, FrameWriter};
use release_store::{ChunkList, ContentKey, ContentKeys, Manifest, Step, StoreError, sealed};
use serde_json::{Value, json};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name).join("v1")
}

fn expectations(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("expect.json")).unwrap()).unwrap()
}

fn key(expect: &Value) -> ContentKey {
    let key = hex::decode(expect["key"]["key"].as_str().unwrap()).unwrap();
    ContentKey::new(expect["key"]["number"].as_u64().unwrap() as u32, key.try_into().unwrap())
}

/// `ok`, or the name of the error's variant.
fn outcome<T>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => format!("{error:?}").split([' ', '(', '{']).next().unwrap().to_owned(),
    }
}

fn kind(of: &Value) -> FrameKind {
    match of["kind"].as_u64().unwrap() {
        1 => FrameKind::Chunk,
        2 => FrameKind::ChunkList,
        3 => FrameKind::Manifest,
        4 => FrameKind::Patch,
        5 => FrameKind::Step,
        other => panic!("kind {other}"),
    }
}

fn frame_id(of: &Value) -> FrameId {
    let kind = kind(of);
    let number = |name: &str| of[name].as_u64().unwrap() as u32;
    let digest = Digest::from_hex(of["digest"].as_str().unwrap()).unwrap();
    FrameId { kind, digest, raw_len: number("raw_len"), stored_len: number("stored_len") }
}

fn compare(found: &BTreeMap<String, String>, expected: impl Fn(&str) -> Option<String>) {
    let wrong: Vec<_> = found.iter().filter(|(name, outcome)| expected(name).as_ref() != Some(*outcome)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn named(directory: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = entries.filter(|name| name.ends_with(ending)).collect();
    assert!(names.len() > 10);
    names
}

fn full_manifest() -> Manifest {
    Manifest::decode(&fs::read(directory("manifest").join("full.manifest")).unwrap()).unwrap()
}

#[test]
fn every_sealed_vector_opens_or_is_refused_as_its_name_says() {
    let directory = directory("sealed");
    let expect = expectations(&directory);
    let keys = ContentKeys::from(key(&expect));
    let found = named(&directory, ".sealed").into_iter().map(|name| {
        let bytes = fs::read(directory.join(&name)).unwrap();
        let opened = sealed::open(kind(&expect["sealed"][&name]), &bytes, &keys);
        if let Ok(content) = &opened {
            let whole = if name.ends_with("-empty.sealed") { "" } else { expect["content"].as_str().unwrap() };
            assert_eq!(content, whole.as_bytes(), "{name}");
        }
        (name, outcome(opened))
    });
    compare(&found.collect(), |name| Some(expect["sealed"][name]["expect"].as_str()?.to_owned()));
}

#[test]
fn chunks_and_parts_of_patches_are_no_sealed_objects() {
    let directory = directory("sealed");
    let keys = ContentKeys::from(key(&expectations(&directory)));
    let bytes = fs::read(directory.join("manifest.sealed")).unwrap();
    for kind in [FrameKind::Chunk, FrameKind::Patch] {
        assert_eq!(outcome(sealed::open(kind, &bytes, &keys)), "Malformed");
        let mut writer = FrameWriter::new(keys.newest().unwrap(), 3).unwrap();
        assert_eq!(outcome(sealed::seal(kind, &mut writer, b"content")), "Refused");
    }
}

#[test]
fn what_is_sealed_opens_under_its_key_and_kind_only() {
    let key = key(&expectations(&directory("sealed")));
    let (keys, none) = (ContentKeys::from(key.clone()), ContentKeys::default());
    let kinds = [FrameKind::Manifest, FrameKind::ChunkList, FrameKind::Step];
    for kind in kinds {
        let bytes = sealed::seal(kind, &mut FrameWriter::new(&key, 3).unwrap(), b"content").unwrap();
        assert_eq!(sealed::open(kind, &bytes, &keys).unwrap(), b"content");
        assert_eq!(outcome(sealed::open(kind, &bytes, &none)), "UnknownKey");
        for other in kinds.into_iter().filter(|other| *other != kind) {
            assert_eq!(outcome(sealed::open(other, &bytes, &keys)), "Malformed", "{kind:?} as {other:?}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(sealed::open(kind, &flipped, &keys).is_err(), "{kind:?} byte {at}");
            assert!(sealed::open(kind, &bytes[..at], &keys).is_err(), "{kind:?} cut at {at}");
        }
    }
}

#[test]
fn every_manifest_vector_is_taken_or_refused_as_its_name_says() {
    let directory = directory("manifest");
    let expect = expectations(&directory);
    let found = named(&directory, ".manifest").into_iter().map(|name| {
        let encoded = fs::read(directory.join(&name)).unwrap();
        (name, outcome(Manifest::decode(&encoded)))
    });
    compare(&found.collect(), |name| Some(expect["manifests"][name].as_str()?.to_owned()));
}

#[test]
fn a_full_manifest_says_what_was_written_into_it() {
    let mut manifest = full_manifest();
    assert_eq!((manifest.product.as_str(), manifest.serial, manifest.published), ("Acme Notes", 1, 1_790_000_000));
    assert_eq!(manifest.modules[1].id, "help");
    let settings = manifest.file("settings.ini").unwrap();
    assert_eq!((settings.size, settings.stored_bytes, settings.mode), (7, 50, 0o644));
    assert!(manifest.file("bin/run.sh").unwrap().is_executable());
    assert_eq!(manifest.updater("windows-x86_64").unwrap().version.to_string(), "1.2.3");
    assert!(manifest.ignore_patterns().unwrap().matches("logs/a/b.log"));

    let key = key(&expectations(&directory("manifest")));
    let blind = std::mem::take(&mut manifest.blind);
    assert_eq!(FrameWriter::new(&key, 3).unwrap().blind(&manifest.encode().unwrap()), blind);
}

#[test]
fn every_step_vector_gives_its_manifest_or_is_refused_as_its_name_says() {
    let directory = directory("step");
    let expect = expectations(&directory);
    let old = Manifest::decode(&fs::read(directory.join("old.manifest")).unwrap()).unwrap();
    let hex = |contents: &[(Digest, u64)]| contents.iter().map(|(digest, _)| digest.to_string()).collect::<Vec<_>>();
    let read = |encoded: &[u8], of: &Value| {
        let step = Step::decode(encoded)?;
        let new = step.manifest(&old)?;
        let patches = step.patches(&old, &new)?;
        let gives = fs::read(directory.join(of["gives"].as_str().unwrap())).unwrap();
        assert_eq!(new.encode()?, gives);
        let patches = patches.iter().map(|patch| {
            let bytes = patch.stored_bytes();
            json!({"sources": hex(&patch.sources), "targets": hex(&patch.targets), "offset": patch.offset, "stored_bytes": bytes})
        });
        assert_eq!(Value::Array(patches.collect()), of["patches"]);
        // What a newer writer appended is all that may be lost.
        assert!(encoded.starts_with(&step.encode()?));
        Ok(())
    };
    let found = named(&directory, ".step").into_iter().map(|name| {
        let encoded = fs::read(directory.join(&name)).unwrap();
        let outcome = outcome(read(&encoded, &expect["steps"][&name]));
        (name, outcome)
    });
    compare(&found.collect(), |name| Some(expect["steps"][name]["expect"].as_str()?.to_owned()));
}

/// `publish` finds the differences that the vectors spell out.
#[test]
fn a_step_between_two_manifests_is_the_vector() {
    let directory = directory("step");
    let manifest = |name: &str| Manifest::decode(&fs::read(directory.join(name)).unwrap()).unwrap();
    let old = manifest("old.manifest");
    let expect = expectations(&directory);
    let steps = expect["steps"].as_object().unwrap().iter();
    let good: Vec<_> = steps.filter(|(_, of)| of["expect"] == "ok" && of["patches"] == json!([])).collect();
    assert!(good.len() > 10);
    for (name, of) in good {
        let new = manifest(of["gives"].as_str().unwrap());
        let made = Step::new(&old, &new, None, &[]).unwrap();
        let vector = fs::read(directory.join(name)).unwrap();
        assert_eq!(made.manifest(&old).unwrap(), new, "{name}");
        assert_eq!(
            made.encode().unwrap().len(),
            vector.len() - if name == "appended-fields.step" { 10 } else { 0 },
            "{name}"
        );
        assert_eq!(made, Step::decode(&vector).unwrap(), "{name}");
    }
}

#[test]
fn every_frame_vector_opens_or_is_refused_as_its_name_says() {
    let directory = directory("pack");
    let expect = expectations(&directory);
    let key = key(&expect);
    let own: Value = serde_json::from_slice(&fs::read(directory.join("product.json")).unwrap()).unwrap();
    let mut reader = FrameReader::new().unwrap();
    let found = named(&directory, ".frame").into_iter().map(|name| {
        let of = if own[&name].is_null() { &expect["frames"][&name] } else { &own[&name] };
        let stored = fs::read(directory.join(&name)).unwrap();
        let outcome = outcome(reader.open(&key, &frame_id(of), &stored));
        (name, outcome)
    });
    let found = found.collect();
    compare(&found, |name| {
        let of = if own[name].is_null() { &expect["frames"][name] } else { return Some("ok".into()) };
        Some(of["expect"].as_str()?.to_owned())
    });
}

#[test]
fn every_chunk_list_vector_is_taken_or_refused_as_its_name_says() {
    let directory = directory("pack");
    let expect = expectations(&directory);
    let found = named(&directory, ".list").into_iter().map(|name| {
        let encoded = fs::read(directory.join(&name)).unwrap();
        (name, outcome(ChunkList::decode(&encoded)))
    });
    compare(&found.collect(), |name| Some(expect["lists"][name]["expect"].as_str()?.to_owned()));
}

/// What this program writes into `product.json`'s frames, for the independent reader: `make.py --check`.
fn product_contents() -> [(&'static str, FrameKind, Vec<u8>); 3] {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| format!("line {n}\n").into_bytes()).take(100_000).collect();
    let noise: Vec<u8> = (0..5000_u32).map(|n| Digest::of(&n.to_le_bytes()).0[0]).collect();
    [
        ("product-text.frame", FrameKind::Chunk, text),
        ("product-noise.frame", FrameKind::Chunk, noise),
        ("product-list.frame", FrameKind::ChunkList, b"list".to_vec()),
    ]
}

/// A frame as the store has it: a chunk list is named by its sealed bytes.
fn seal(key: &ContentKey, kind: FrameKind, content: &[u8]) -> (FrameId, Vec<u8>) {
    let mut writer = FrameWriter::new(key, 19).unwrap();
    match kind {
        FrameKind::ChunkList => writer.seal_unnamed(kind, content).unwrap(),
        _ => writer.seal(kind, content).unwrap(),
    }
}

#[test]
fn a_frame_that_this_program_wrote_before_still_opens_and_a_new_one_has_its_content() {
    let directory = directory("pack");
    let key = key(&expectations(&directory));
    let own: Value = serde_json::from_slice(&fs::read(directory.join("product.json")).unwrap()).unwrap();
    let mut reader = FrameReader::new().unwrap();
    for (name, kind, content) in product_contents() {
        let stored = fs::read(directory.join(name)).unwrap();
        assert_eq!(reader.open(&key, &frame_id(&own[name]), &stored).unwrap().bytes(), content);
        let (id, stored) = seal(&key, kind, &content);
        assert_eq!(reader.open(&key, &id, &stored).unwrap().bytes(), content);
        let (again, same) = seal(&key, kind, &content);
        assert_eq!((again, same), (id, stored), "equal input, equal frame");
    }
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_frame_is_refused() {
    let directory = directory("pack");
    let expect = expectations(&directory);
    let key = key(&expect);
    let id = frame_id(&expect["frames"]["chunk.frame"]);
    let whole = fs::read(directory.join("chunk.frame")).unwrap();
    let mut reader = FrameReader::new().unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            assert!(reader.open(&key, &id, &flipped).is_err(), "byte {at} bit {bit}");
        }
        assert!(reader.open(&key, &id, &whole[..at]).is_err(), "cut at {at}");
        let shorter = FrameId { stored_len: at as u32, ..id };
        assert!(reader.open(&key, &shorter, &whole[..at]).is_err(), "cut at {at}, and said so");
    }
}

#[test]
fn a_digest_of_zeros_frees_no_chunk_from_being_what_it_is_named_by() {
    let key = key(&expectations(&directory("pack")));
    let mut writer = FrameWriter::new(&key, 3).unwrap();
    let mut reader = FrameReader::new().unwrap();
    for kind in [FrameKind::Chunk, FrameKind::Patch] {
        let (id, frame) = writer.seal_unnamed(kind, b"anything").unwrap();
        let error = reader.open(&key, &id, &frame).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    }
}

#[test]
fn every_flipped_byte_and_every_cut_of_the_encodings_is_refused_or_harmless() {
    let sound = full_manifest();
    let encoded = sound.encode().unwrap();
    assert_eq!(Manifest::decode(&encoded).unwrap(), sound);
    let list = fs::read(directory("pack").join("two-contents.list")).unwrap();
    for encoded in [&encoded, &list] {
        for at in 0..encoded.len() {
            let mut flipped = encoded.clone();
            flipped[at] ^= 0xff;
            // Whatever is accepted has been checked: it encodes again.
            if let Ok(manifest) = Manifest::decode(&flipped) {
                manifest.encode().unwrap();
            }
            if let Ok(list) = ChunkList::decode(&flipped) {
                list.encode().unwrap();
            }
        }
    }
    for at in 0..encoded.len() {
        assert!(Manifest::decode(&encoded[..at]).is_err(), "manifest cut at {at}");
    }
    for at in 0..list.len() {
        assert!(ChunkList::decode(&list[..at]).is_err(), "chunk list cut at {at}");
    }
}

/// With `HOLDFAST_WRITE_VECTORS` set, once for a new version of the format, the vectors are written; else they must be what
/// today's writer makes.
#[test]
fn todays_writer_makes_the_products_vectors() {
    let directory = directory("pack");
    let write = std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some();
    let key = key(&expectations(&directory));
    let mut own = serde_json::Map::new();
    for (name, kind, content) in product_contents() {
        let (id, stored) = seal(&key, kind, &content);
        if write {
            fs::write(directory.join(name), &stored).unwrap();
        }
        assert!(fs::read(directory.join(name)).unwrap() == stored, "{name} is not what today's writer makes");
        let of = json!({"kind": kind as u8, "digest": id.digest.to_string(), "raw_len": id.raw_len, "stored_len": id.stored_len});
        own.insert(name.into(), of);
    }
    let mut text = serde_json::to_vec_pretty(&own).unwrap();
    text.push(b'\n');
    if write {
        fs::write(directory.join("product.json"), &text).unwrap();
    }
    assert!(fs::read(directory.join("product.json")).unwrap() == text);
}

#[test]
fn the_largest_content_of_each_kind_is_sealed_and_opened_and_a_larger_one_is_not() {
    let key = ContentKey::new(1, [7; 32]);
    let (mut writer, mut reader) = (FrameWriter::new(&key, 1).unwrap(), FrameReader::new().unwrap());
    for kind in [FrameKind::Chunk, FrameKind::ChunkList, FrameKind::Manifest, FrameKind::Patch, FrameKind::Step] {
        let over = vec![5; kind.max_bytes() as usize + 1];
        let is_named = matches!(kind, FrameKind::Chunk | FrameKind::Patch);
        let mut seal =
            |content: &[u8]| if is_named { writer.seal(kind, content) } else { writer.seal_unnamed(kind, content) };
        let (id, frame) = seal(&over[1..]).unwrap();
        assert!(reader.open(&key, &id, &frame).unwrap().bytes() == &over[1..], "{kind:?}");
        let refused = seal(&over).map(drop);
        assert!(
            matches!(&refused, Err(StoreError::TooLarge { found, .. }) if *found == over.len() as u64),
            "{refused:?}"
        );
    }
}
