//! The program as the conformance suite runs it, and what the suite leaves out, against a repository of its own.

#![allow(missing_docs)]

mod repository;

use std::fs;

use serde_json::{Value, json};

use repository::{EARLIER, LATER, OtherKey, Repository, hashes, hex, of, trusted};

#[test]
fn a_refresh_keeps_what_was_served_byte_for_byte_and_asks_no_more_than_it_must() {
    let repository = Repository::new(true);
    repository.requests();
    assert_eq!(repository.refresh(), 0);
    let asked = ["2.root", "timestamp", "1.snapshot", "1.targets"].map(|name| format!("metadata/{name}.json"));
    assert_eq!(repository.requests(), asked);
    for (name, served) in
        [("root", "1.root"), ("timestamp", "timestamp"), ("snapshot", "1.snapshot"), ("targets", "1.targets")]
    {
        assert_eq!(repository.kept(&format!("{name}.json")), Some(repository.get(&format!("metadata/{served}.json"))));
    }
    assert_eq!(repository.refresh(), 0);
    assert_eq!(repository.requests(), asked[..2], "nothing new");
}

#[test]
fn every_failure_ends_with_status_1() {
    let repository = Repository::new(true);
    for command in
        [&["download"][..], &["refresh", "more"], &["nothing"], &["--no-such", "refresh"], &[], &["init", "/"]]
    {
        assert_eq!(repository.run(command), 1, "{command:?}");
    }
    fs::write(repository.path("bad.json"), "{}").unwrap();
    assert_eq!(repository.run(&["init", repository.path("bad.json").to_str().unwrap()]), 1);
    assert_eq!(repository.run(&["--help"]), 0);
    fs::remove_file(repository.path("metadata/root.json")).unwrap();
    assert_eq!(repository.refresh(), 1);
}

#[test]
fn what_expired_is_not_accepted_and_what_was_before_it_is_kept() {
    let mut repository = Repository::new(true);
    assert_eq!(repository.refresh(), 0);
    repository.targets("targets", &["x"], &[], EARLIER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 1);
    let half = trusted(&[("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)]);
    assert_eq!(repository.trusted(), half);
    repository.targets("targets", &["x"], &[], LATER);
    repository.publish(EARLIER);
    assert_eq!(repository.refresh(), 1);
    assert_eq!(repository.trusted(), half);
    repository.stamp(LATER, 3);
    assert_eq!(repository.download(&["x"]), 0);
    assert_eq!(repository.trusted(), trusted(&[("root", 1), ("snapshot", 3), ("targets", 3), ("timestamp", 4)]));
}

#[test]
fn a_rollback_is_refused_however_often_it_is_tried() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 0);
    let before = repository.trusted();
    // A newer timestamp is accepted and kept; the snapshot behind it names older targets.
    repository.versions.insert("targets".into(), 1);
    repository.publish(LATER);
    for _ in 0..3 {
        assert_eq!(repository.refresh(), 1);
        let now = repository.trusted();
        assert_eq!((&now[..3], now[3].1), (&before[..3], before[3].1 + 1));
    }
    // Its key replaced, the snapshot may begin again.
    repository.root(&[("snapshot", "snapshot")]);
    assert_eq!(repository.refresh(), 1, "a root with the same keys forgives nothing");
}

#[test]
fn a_fast_forward_is_recovered_from_by_new_keys() {
    let mut repository = Repository::new(true);
    repository.versions.insert("timestamp".into(), 1_000_000);
    repository.stamp(LATER, 1);
    assert_eq!(repository.refresh(), 0);
    repository.versions.insert("timestamp".into(), 1);
    repository.stamp(LATER, 1);
    assert_eq!(repository.refresh(), 1);
    repository.root(&[("timestamp", "timestamp, anew")]);
    let signed = json!({"_type": "timestamp", "expires": LATER, "meta": {"snapshot.json": {"version": 1}}});
    let bytes = repository.sign("timestamp", &[of("timestamp, anew")], signed);
    repository.put("metadata/timestamp.json", &bytes);
    assert_eq!(repository.refresh(), 0);
    assert_eq!(repository.trusted()[3], ("timestamp".to_owned(), 3));
}

#[test]
fn targets_are_done_in_order_and_the_first_failure_ends_it() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &["a", "b", "d/c"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "missing", "b"]), 1);
    assert_eq!(repository.downloaded(), [b"a"]);
    assert_eq!(repository.download(&["b", "d/c", "a"]), 0);
    assert_eq!(repository.downloaded(), [&b"a"[..], b"b", b"d/c"]);
    let fetched = repository.requests().iter().filter(|path| path.starts_with("targets/")).count();
    assert_eq!(fetched, 3, "what is there is not fetched again");
}

#[test]
fn a_target_that_is_another_is_not_kept() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &["a"], &[], LATER);
    repository.publish(LATER);
    let place = format!("targets/{}.a", hashes(b"a")["sha512"].as_str().unwrap());
    for other in [&b"b"[..], b"", b"aa"] {
        repository.put(&place, other);
        assert_eq!(repository.download(&["a"]), 1);
        assert!(repository.downloaded().is_empty());
    }
}

#[test]
fn delegations_are_searched_depth_first_up_to_a_terminating_one() {
    let mut repository = Repository::new(true);
    for (role, delegations) in [
        ("targets", &[("A", "*", false), ("B", "*", false), ("C", "*.py", false), ("F", "*", false)][..]),
        ("A", &[("D", "*", false), ("A", "*", false), ("B", "*.py", false)]),
        ("B", &[("E", "*", true), ("C", "*", false)]),
        ("C", &[]),
        ("D", &[]),
        ("E", &[]),
        ("F", &[]),
    ] {
        repository.targets(role, &[], delegations, LATER);
    }
    repository.targets("E", &["file"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 0);
    repository.requests();
    assert_eq!(repository.download(&["no file"]), 1);
    let asked: Vec<String> = repository.requests()[2..].to_vec();
    assert_eq!(asked, ["1.A", "1.D", "1.B", "2.E"].map(|name| format!("metadata/{name}.json")));
    assert_eq!(repository.download(&["file"]), 0);
    let again = repository.requests();
    assert!(again.iter().all(|path| !path.contains("A.json")), "kept roles are not fetched again: {again:?}");
}

#[test]
fn a_role_that_two_delegate_to_must_satisfy_each_of_them() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[("A", "a", false), ("B", "b", false)], LATER);
    repository.targets("A", &[], &[("C@a's", "a", false)], LATER);
    repository.targets("B", &[], &[("C@b's", "b", false)], LATER);
    repository.targets_signed_by("C", &["a's"], &["a", "b"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "b"]), 1);
    assert_eq!(repository.downloaded(), [b"a"]);
    repository.targets_signed_by("C", &["a's", "b's"], &["a", "b"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "b"]), 0);
}

#[test]
fn an_unusual_role_name_takes_no_other_file() {
    for role in ["?", "#", "/delegated", "../delegated", "..", "2.root", "ü", "con:stream"] {
        let mut repository = Repository::new(true);
        repository.targets("targets", &[], &[(role, "*", false)], LATER);
        repository.targets(role, &[], &[], LATER);
        repository.publish(LATER);
        assert_eq!(repository.download(&["nothing"]), 1);
        assert_eq!(repository.trusted().len(), 5, "{role}");
        assert_eq!(repository.kept("root.json"), Some(repository.get("metadata/1.root.json")), "{role}");
    }
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[("root", "*", false)], LATER);
    repository.targets_signed_by("targets", &["targets"], &[], &[("snapshot", "*", false)], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["nothing"]), 1);
    assert_eq!(repository.trusted().len(), 4, "no delegated role takes the name of another");
    // Nor where the snapshot names a file for it.
    repository.targets("snapshot", &[], &[], LATER);
    let delegated = repository.versions["snapshot"];
    repository.publish(LATER);
    repository.change("snapshot", |snapshot| snapshot["meta"]["snapshot.json"] = json!({"version": delegated}));
    repository.stamp(LATER, delegated + 2);
    assert_eq!(repository.download(&["nothing"]), 1);
    assert!(repository.trusted().contains(&("snapshot".into(), delegated + 2)), "{:?}", repository.trusted());
}

#[test]
fn the_search_ends_after_so_many_roles() {
    let mut repository = Repository::new(true);
    let names: Vec<String> = (0..40).map(|at| format!("role{at}")).collect();
    let delegations: Vec<(&str, &str, bool)> = names.iter().map(|name| (&**name, "*", false)).collect();
    repository.targets("targets", &[], &delegations, LATER);
    for name in &names {
        repository.targets(name, &[], &[], LATER);
    }
    repository.targets("role39", &["file"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["file"]), 1);
    assert!(repository.requests().len() <= 4 + release_store::trust::MAX_DELEGATIONS);
}

#[test]
fn a_repository_without_consistent_snapshots_will_do() {
    let mut repository = Repository::new(false);
    repository.targets("targets", &["d/a"], &[("A", "b", false)], LATER);
    repository.targets("A", &["b"], &[], LATER);
    repository.publish(LATER);
    repository.requests();
    assert_eq!(repository.download(&["d/a", "b"]), 0);
    let asked = ["metadata/2.root.json", "metadata/timestamp.json", "metadata/snapshot.json", "metadata/targets.json"];
    let rest = ["targets/d/a", "metadata/A.json", "targets/b"];
    assert_eq!(repository.requests(), [&asked[..], &rest].concat());
}

#[test]
fn a_role_may_have_keys_of_every_kind_and_each_of_them_has_to_sign() {
    for (other, role) in [OtherKey::EcdsaP256, OtherKey::RsaPss]
        .iter()
        .flat_map(|other| ["timestamp", "targets", "delegated"].map(|role| (other, role)))
    {
        let mut repository = Repository::new(true);
        repository.targets("targets", &[], &[("delegated", "*", false)], LATER);
        repository.targets("delegated", &["file"], &[], LATER);
        // Two keys sign the role: its own, and the other.
        let add = |keys: &mut Value| keys[OtherKey::ID] = other.public();
        let need = |role: &mut Value| {
            role["keyids"].as_array_mut().unwrap().push(json!(OtherKey::ID));
            role["threshold"] = json!(2);
        };
        if role == "delegated" {
            repository.change("targets", |targets| {
                add(&mut targets["delegations"]["keys"]);
                need(&mut targets["delegations"]["roles"][0]);
            });
        } else {
            repository.change("root", |root| {
                add(&mut root["keys"]);
                need(&mut root["roles"][role]);
            });
        }
        repository.publish(LATER);
        assert_eq!(repository.download(&["file"]), 1, "{role}: one signature of two");

        let sound = repository.signature_by(other, role);
        let refused = |signature: &[u8]| {
            repository.sign_beside(role, signature);
            assert_eq!(repository.download(&["file"]), 1, "{role}: {}", hex(signature));
            assert!(repository.downloaded().is_empty());
        };
        refused(&[]);
        // Each byte once; the same code verifies the other roles.
        for at in (0..sound.len()).step_by(if role == "timestamp" { 1 } else { 50 }) {
            let mut wrong = sound.clone();
            wrong[at] ^= 1;
            refused(&wrong);
        }
        repository.sign_beside(role, &sound);
        assert_eq!(repository.download(&["file"]), 0, "{role}");
        assert_eq!(repository.kept(&format!("{role}.json")), Some(repository.newest(role)));
    }
}

#[test]
fn each_digest_of_a_target_is_compared_be_it_one_or_two() {
    for consistent in [true, false] {
        for named in [&["sha256"][..], &["sha512"], &["sha256", "sha512"]] {
            let mut repository = Repository::new(consistent);
            repository.targets("targets", &["file"], &[], LATER);
            // With `wrong` in the place of what the target has.
            let mut download = |wrong: Option<&str>| {
                let mut found = hashes(b"file");
                found.as_object_mut().unwrap().retain(|algorithm, _| named.contains(&&**algorithm));
                if let Some(algorithm) = wrong {
                    found[algorithm] = hashes(b"another")[algorithm].clone();
                }
                named.iter().for_each(|algorithm| repository.put_target("file", found[algorithm].as_str().unwrap()));
                repository.change("targets", |targets| targets["targets"]["file"]["hashes"] = found);
                repository.publish(LATER);
                repository.requests();
                let status = repository.download(&["file"]);
                let asked = repository.requests().iter().filter(|path| path.starts_with("targets/")).count();
                (status, asked, repository.downloaded())
            };
            for algorithm in named {
                assert_eq!(download(Some(algorithm)), (1, 1, vec![]), "{named:?}, of which {algorithm} is wrong");
            }
            assert_eq!(download(None), (0, 1, vec![b"file".to_vec()]), "{named:?}");
        }
    }
}

#[test]
fn digests_and_lengths_in_snapshot_and_timestamp_are_compared_and_what_was_trusted_is_kept() {
    for (parent, child) in [("snapshot", "targets"), ("timestamp", "snapshot")] {
        let mut repository = Repository::new(true);
        assert_eq!(repository.refresh(), 0);
        let before = repository.kept(&format!("{child}.json"));
        repository.targets("targets", &["file"], &[], LATER);
        repository.publish(LATER);
        let file = repository.newest(child);
        let (sound, length) = (hashes(&file), json!(file.len()));
        let wrong = hashes(b"another");
        let mut refresh = |hashes: Value, length: Value| {
            repository.change(parent, |signed| {
                let meta = &mut signed["meta"][format!("{child}.json")];
                (meta["hashes"], meta["length"]) = (hashes, length);
            });
            if parent == "snapshot" {
                repository.stamp(LATER, repository.versions["snapshot"]);
            }
            let status = repository.refresh();
            assert_eq!(repository.kept(&format!("{parent}.json")), Some(repository.newest(parent)));
            (status, repository.kept(&format!("{child}.json")))
        };
        for hashes in [
            wrong.clone(),
            json!({"sha256": wrong["sha256"]}),
            json!({"sha512": wrong["sha512"]}),
            json!({"sha256": wrong["sha256"], "sha512": sound["sha512"]}),
            json!({"sha256": sound["sha256"], "sha512": wrong["sha512"]}),
        ] {
            assert_eq!(refresh(hashes.clone(), length.clone()), (1, before.clone()), "{parent}: {hashes}");
        }
        for length in [file.len() - 1, file.len() + 1] {
            assert_eq!(refresh(sound.clone(), json!(length)), (1, before.clone()), "{parent}: {length}");
        }
        assert_eq!(refresh(sound, length), (0, Some(file)), "{parent}");
    }
}

#[test]
fn a_root_is_trusted_without_a_server_and_a_refresh_is_not() {
    let repository = Repository::new(true);
    let root = repository.path("root.json");
    fs::remove_file(repository.path("metadata/root.json")).unwrap();
    repository.requests();
    assert_eq!(repository.run_without_url(&["init", root.to_str().unwrap()]), 0);
    assert_eq!(repository.kept("root.json"), Some(repository.newest("root")));
    assert_eq!(repository.run_without_url(&["refresh"]), 1);
    assert!(repository.requests().is_empty());
    assert_eq!(repository.refresh(), 0);
}
