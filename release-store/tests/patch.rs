//! Patches through their public face: what is made is applied, to the bit, whatever it is; what is forged is refused.

mod programs;

use programs::{Machine, Program, noise};
use release_store::patch::{PatchError, apply, make};

/// Applies a patch; never hands over more bytes than were asked for.
fn applied(patch: &[u8], old: &[u8], new_len: usize) -> Result<Vec<u8>, PatchError> {
    let mut new = Vec::new();
    let (mut patch, mut source) = (patch, old);
    let result = apply(&mut patch, &mut source, old.len() as u64, new_len as u64, &mut |bytes| {
        new.extend_from_slice(bytes);
        assert!(new.len() <= new_len, "more bytes than were asked for");
        Ok(())
    });
    result.map(|()| new)
}

fn round_trip(old: &[u8], new: &[u8]) -> usize {
    let patch = make(old, new).unwrap();
    assert!(applied(&patch, old, new.len()).unwrap() == new, "{} to {} bytes", old.len(), new.len());
    patch.len()
}

/// `bytes` after some edits: bytes changed, runs removed, inserted, moved.
fn edited(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut new = bytes.to_vec();
    for (round, dice) in noise(seed, 240).chunks_exact(24).enumerate() {
        let number = |at: usize| u64::from_le_bytes(dice[at..at + 8].try_into().unwrap()) as usize;
        let at = number(0) % (new.len() + 1);
        let end = (at + number(8) % 3000).min(new.len());
        match number(16) % 4 {
            0 => new[at..end].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55),
            1 => drop(new.drain(at..end)),
            2 => drop(new.splice(at..at, noise(seed + round as u64, number(8) % 3000))),
            _ => {
                let moved: Vec<u8> = new.drain(at..end).collect();
                let to = number(8) % (new.len() + 1);
                drop(new.splice(to..to, moved));
            }
        }
    }
    new
}

#[test]
fn whatever_two_contents_are_the_second_comes_back_to_the_bit() {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(2000).into_bytes();
    let contents = [Vec::new(), b"x".to_vec(), noise(1, 70_000), text, vec![0; 100_000]];
    for old in &contents {
        for new in &contents {
            round_trip(old, new);
        }
        for seed in 1..6 {
            round_trip(old, &edited(old, seed));
        }
    }
}

#[test]
fn programs_that_are_edited_anywhere_come_back_to_the_bit() {
    for machine in Machine::ALL {
        let old = Program::new(machine, 300).image();
        for seed in 1..6 {
            // Edits may hit the headers too: then less is understood, and nothing is wrong.
            round_trip(&old, &edited(&old, seed));
            round_trip(&edited(&old, seed), &old);
        }
    }
}

#[test]
fn a_program_in_which_all_functions_moved_costs_little_more_than_what_is_new() {
    for machine in Machine::ALL {
        let old = Program::new(machine, 3000);
        let mut new = old.clone();
        new.insert(10, 64);
        new.insert(1500, 32);
        let bytes = round_trip(&old.image(), &new.image());
        // 9,000 references changed; 96 bytes are new.
        assert!(bytes < 1200, "{machine:?}: {bytes} bytes");
    }
}

#[test]
fn text_with_a_changed_line_costs_about_that_line() {
    let line = |n: usize| format!("line {n}: {}\n", n * 7919 % 1000);
    let old: String = (0..5000).map(line).collect();
    let new = old.replace("line 2500:", "line two thousand five hundred:");
    let bytes = round_trip(old.as_bytes(), new.as_bytes());
    assert!(bytes < 150, "{bytes} bytes");
}

#[test]
fn a_copy_goes_on_over_the_pieces_that_old_bytes_are_sorted_in() {
    let old = noise(3, 9 << 20);
    let (front, back) = old.split_at((5 << 20) + 1);
    let new = [back, b"sixteen bytes or so", front].concat();
    let bytes = round_trip(&old, &new);
    assert!(bytes < 150, "{bytes} bytes");
}

#[test]
fn more_literals_than_edits_may_have_are_made_without_them() {
    let old = noise(1, 300_000);
    let mut new = old.clone();
    new[1000..200_000].iter_mut().step_by(50).for_each(|byte| *byte ^= 1);
    new.extend(noise(2, 8 << 20));
    let bytes = round_trip(&old, &new);
    assert!((8 << 20..(8 << 20) + 20_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn the_same_input_gives_the_same_patch() {
    let old = Program::new(Machine::ElfX86, 500);
    let mut new = old.clone();
    new.insert(7, 48);
    assert!(make(&old.image(), &new.image()).unwrap() == make(&old.image(), &new.image()).unwrap());
}

#[test]
fn a_patch_for_other_lengths_is_refused() {
    let (old, new) = (noise(1, 5000), noise(2, 5000));
    let patch = make(&old, &new).unwrap();
    assert!(matches!(applied(&patch, &old[1..], new.len()), Err(PatchError::Malformed(_))));
    assert!(matches!(applied(&patch, &old, new.len() - 1), Err(PatchError::Malformed(_))));
    assert!(matches!(applied(&patch, &old, new.len() + 1), Err(PatchError::Malformed(_))));
}

#[test]
fn a_patch_that_is_cut_anywhere_is_refused() {
    let old = Program::new(Machine::ElfX86, 100);
    let mut new = old.clone();
    new.insert(3, 16);
    let (old, new) = (old.image(), new.image());
    let patch = make(&old, &new).unwrap();
    for len in 0..patch.len() {
        assert!(applied(&patch[..len], &old, new.len()).is_err(), "cut to {len} of {} bytes", patch.len());
    }
}

#[test]
fn no_flipped_byte_makes_a_reader_panic_or_give_too_much() {
    for machine in Machine::ALL {
        let old = Program::new(machine, 60);
        let mut new = old.clone();
        new.insert(3, 16);
        let (old, new) = (old.image(), new.image());
        let mut patch = make(&old, &new).unwrap();
        for at in 0..patch.len() {
            for flip in [1, 0x80, 0xff] {
                patch[at] ^= flip;
                if let Ok(found) = applied(&patch, &old, new.len()) {
                    assert_eq!(found.len(), new.len());
                }
                patch[at] ^= flip;
            }
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    let old = noise(1, 1000);
    for seed in 0..2000 {
        let mut patch = noise(seed, 300);
        // A head that may be read, half of the time.
        patch[..4].copy_from_slice(&(seed as u32 % 2 * 200 + 60).to_le_bytes());
        assert!(applied(&patch, &old, 1000).is_err());
    }
}

#[test]
fn a_source_that_cannot_be_read_is_told_from_a_bad_patch() {
    let (old, new) = (noise(1, 300_000), noise(1, 299_000));
    let patch = make(&old, &new).unwrap();
    let mut short = &old[..100_000];
    let result = apply(&mut &patch[..], &mut short, 300_000, 299_000, &mut |_| Ok(()));
    assert!(matches!(result, Err(PatchError::Old(_))), "{result:?}");
    let full = || Err(std::io::ErrorKind::StorageFull.into());
    let result = apply(&mut &patch[..], &mut &old[..], 300_000, 299_000, &mut |_| full());
    assert!(matches!(result, Err(PatchError::Output(_))), "{result:?}");
}
