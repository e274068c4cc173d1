//! The published patches (`testdata/patch/v1`): each gives what it says, or is refused for the reason that its name states.
//! Most are written by an independent implementation (`make.py` there); those in `product.json` by an earlier state of this
//! one, and they stay as they are when a later one finds better patches.

mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use programs::{Machine, Program, noise};
use release_store::patch::{PatchError, apply, make};
use serde_json::{Map, Value, json};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/patch/v1")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn expectations(file: &str) -> Map<String, Value> {
    serde_json::from_slice(&read(file)).unwrap()
}

/// `ok`, or the name of the error's variant; never more bytes than were asked for.
fn outcome(patch: &[u8], old: &[u8], new: &[u8]) -> String {
    let mut found = Vec::new();
    let result = apply(&mut &patch[..], &mut &old[..], old.len() as u64, new.len() as u64, &mut |bytes| {
        found.extend_from_slice(bytes);
        assert!(found.len() <= new.len(), "more bytes than were asked for");
        Ok(())
    });
    match result {
        Ok(()) if found == new => "ok".into(),
        Ok(()) => "other bytes".into(),
        Err(PatchError::Malformed(_)) => "Malformed".into(),
        Err(PatchError::Patch(_)) => "Patch".into(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn every_patch_gives_what_it_says_or_is_refused_as_its_name_says() {
    let all: Map<String, Value> = ["expect.json", "product.json"].into_iter().flat_map(expectations).collect();
    let mut wrong = Vec::new();
    for (name, of) in &all {
        let file = |side: &str| read(of[side].as_str().unwrap());
        let found = outcome(&read(name), &file("old"), &file("new"));
        if of["expect"] != found {
            wrong.push(format!("{name}: {found} instead of {}", of["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let names = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present: BTreeSet<String> = names.filter(|name| name.ends_with(".patch")).collect();
    assert_eq!(present, all.keys().cloned().collect());
    assert!(present.len() > 80);
}

#[test]
fn no_flipped_byte_of_a_published_patch_gives_too_much() {
    for (name, of) in expectations("expect.json") {
        let [old, new] = ["old", "new"].map(|side| read(of[side].as_str().unwrap()));
        let mut patch = read(&name);
        for at in 0..patch.len().min(400) {
            patch[at] ^= 0x11;
            outcome(&patch, &old, &new);
            patch[at] ^= 0x11;
        }
    }
}

/// What the product's own vectors lead from and to.
fn product_pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    let names = ["product-elf-x86-64", "product-elf-arm64", "product-pe-x86-64"];
    for (name, machine) in names.into_iter().zip(Machine::ALL) {
        let old = Program::new(machine, 60);
        let mut new = old.clone();
        new.insert(3, 16);
        new.insert(40, 64);
        pairs.push((name, old.image(), new.image()));
    }
    let line = |n: usize| format!("line {n}: {}\n", n * 7919 % 1000);
    let text: String = (0..250).map(line).collect();
    pairs.push(("product-text", text.clone().into_bytes(), text.replace("line 125:", "another line:").into_bytes()));
    let old = noise(1, 4000);
    let new = [&old[2000..], b"between", &old[..1900]].concat();
    pairs.push(("product-moved", old, new));
    pairs
}

/// With `HOLDFAST_WRITE_VECTORS` set, once for a new version of the format, the product's vectors are written. The patches
/// stay when the encoder finds better ones; that today's hold too is shown here.
#[test]
fn the_products_vectors_are_between_what_today_is_made_too() {
    let write = std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some();
    let mut own = Map::new();
    for (name, old, new) in product_pairs() {
        let patch = make(&old, &new).unwrap();
        assert_eq!(outcome(&patch, &old, &new), "ok", "{name}");
        let [old_name, new_name, patch_name] = ["old", "new", "patch"].map(|end| format!("{name}.{end}"));
        if write {
            for (name, bytes) in [(&old_name, &old), (&new_name, &new), (&patch_name, &patch)] {
                fs::write(directory().join(name), bytes).unwrap();
            }
        }
        assert!(read(&old_name) == old && read(&new_name) == new, "{name}");
        assert!(patch.len() <= read(&patch_name).len() + 16, "{name}: a worse patch than it was");
        own.insert(patch_name, json!({"old": old_name, "new": new_name, "expect": "ok"}));
    }
    let mut text = serde_json::to_vec_pretty(&own).unwrap();
    text.push(b'\n');
    if write {
        fs::write(directory().join("product.json"), &text).unwrap();
    }
    assert!(read("product.json") == text);
}
