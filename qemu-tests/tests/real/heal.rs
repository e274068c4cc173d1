//! Every row of the launcher's table (`docs/launcher.md`), on both profiles: the device is damaged from inside a machine with
//! ordinary tools, unplugged, plugged in, and healed by what starts by itself.

use std::fs;
use std::time::Instant;

use crate::ward::{UPDATER, Ward, copy_with_holes};
use anyhow::{Result, ensure};
use firmware_image::host::Access;
use firmware_image::image::Device;
use firmware_image::storage::read_exact_at;
use firmware_image::{RawZone as _, paths};
use qemu_tests::stick::{Cable, Profile};
use qemu_tests::world::{FLOOR, FLOOR_UPDATER, OLD, SPECIAL_UPDATER, UPDATERS};

/// Rows that did not come out as the table says; told at the end, all of them.
struct Rows {
    ward: Ward,
    profile: Profile,
    wrong: Vec<String>,
    /// The row before left it as it should be.
    sound: bool,
}

/// What is there after a row.
enum After {
    /// Updater and client are whole, the user's own file is what it was, and everything is sound.
    Whole,
    /// The same, but the user's own file went with the format.
    WholeButMine,
    /// The client runs and is whole; something else could not be mended.
    Client,
    /// Not one byte changed.
    Untouched,
}

impl Rows {
    fn of(profile: Profile) -> Option<Self> {
        Some(Self { ward: Ward::admit(profile)?, profile, wrong: Vec::new(), sound: false })
    }

    /// Damage, unplug, plug: the unit ends with `status`, its journal has every text of `says`, and the device is as `after`
    /// demands. It is put back to what was kept before, unless the row before left it whole.
    fn heal(&mut self, row: &str, damage: &str, status: i32, says: &[&str], after: &After) {
        if !self.sound {
            self.ward.go_back();
        }
        self.ward.damage(damage);
        self.start(row, &Cable::default(), status, says, after);
    }

    fn start(&mut self, row: &str, cable: &Cable, status: i32, says: &[&str], after: &After) {
        let before = matches!(after, After::Untouched).then(|| self.ward.stick.bytes());
        let begin = Instant::now();
        let session = self.ward.start_with(cable);
        println!("{:?}, {row}: {:.1} s", self.profile, begin.elapsed().as_secs_f32());
        let ward = &self.ward;
        let looked = (|| -> Result<()> {
            ensure!(session.status == status, "ended with status {}", session.status);
            for text in says {
                ensure!(session.says(text), "nobody said {text:?}");
            }
            // Nothing runs that no updater has looked at.
            match session.says("says hello") {
                true => ensure!(status == 0, "the client started, and nobody had checked it"),
                false => ensure!(status != 0, "the client did not start"),
            }
            match after {
                After::Whole => ward.is_whole().and_then(|()| ward.has_mine()),
                After::WholeButMine => ward.is_whole(),
                After::Client => ward.has_its_client().and_then(|()| ward.has_mine()),
                After::Untouched => {
                    ensure!(Some(ward.stick.bytes()) == before, "something was written");
                    Ok(())
                }
            }
        })();
        self.sound = looked.is_ok() && matches!(after, After::Whole);
        if let Err(error) = looked {
            self.wrong.push(format!("--- {:?}, {row}: {error:#}\n{}", self.profile, session.said));
        }
    }

    fn demand(&mut self, row: &str, holds: bool, else_what: &str) {
        if !holds {
            self.wrong.push(format!("--- {:?}, {row}: {else_what}", self.profile));
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !self.wrong.is_empty() && !std::thread::panicking() {
            panic!("{} rows are not as the table says:\n{}", self.wrong.len(), self.wrong.join("\n"));
        }
    }
}

/// Nothing is left of the hidden zone.
const NO_HIDDEN: &str = "dd if=/dev/zero of=$hidden_node bs=1M 2>/dev/null || true";
/// Nothing is left of the updater and its copies but what the factory made.
const ONLY_FACTORY: &str =
    "rm -r $free/updater-* $free/.holdfast; dd if=/dev/zero of=$hidden_node bs=1M 2>/dev/null || true";

/// The row of the sound device, and every kind of damage to the updater in the free zone.
fn the_updater(profile: Profile) {
    let Some(mut rows) = Rows::of(profile) else { return };
    rows.ward.bring_special_updaters();
    let ward = &mut rows.ward;
    let starts = ward.come_to_rest();
    println!("{profile:?}, at rest after {starts} starts");
    ward.keep(OLD);

    let restored = |was: &str| format!("The updater in the free zone was {was}");
    let from_a = "restored version 0.1.0 from hidden backup A";
    rows.heal("missing", "rm $free/updater-*", 0, &[&restored("missing"), from_a], &After::Whole);
    let (row, damaged) = match profile {
        Profile::Stick => {
            ("overwritten", "dd if=/dev/urandom of=$free/updater-linux-x86_64 bs=4096 seek=100 count=3 conv=notrunc")
        }
        Profile::Dual => ("cut off", "truncate -s 1000000 $free/updater-linux-x86_64"),
    };
    rows.heal(row, damaged, 0, &[&restored("damaged"), from_a], &After::Whole);
    let foreign = "cp /host/updater-foreign $free/updater-linux-x86_64";
    rows.heal("foreign", foreign, 0, &[&restored("foreign"), from_a], &After::Whole);

    // Each profile has its own way of not starting, and both the fault.
    let (file, why) = match profile {
        Profile::Stick => ("updater-silent", "it was not ready within 10 seconds"),
        Profile::Dual => ("updater-no-program", "this system cannot run it"),
    };
    for (file, why) in [(file, why), ("updater-crashing", "it ended in a fault (signal 11) before it was ready")] {
        let damage = format!("cp /host/{file} $free/updater-linux-x86_64");
        let would_not = format!("Updater {SPECIAL_UPDATER} from the free zone is sound, but would not start: {why}");
        rows.heal(file, &damage, 0, &[&would_not, "estored updater 0.1.0 from hidden backup A"], &After::Whole);
    }
    // What failed was noted, and is not even tried when it comes again.
    rows.ward.damage("cp /host/updater-crashing $free/updater-linux-x86_64");
    let before = format!("was version {SPECIAL_UPDATER}, which would not start before; {from_a}");
    rows.start("noted", &Cable::default(), 0, &[&before], &After::Whole);
}

/// Damage to whole zones, to the client, and to several places at once.
fn the_zones(profile: Profile) {
    let Some(mut rows) = Rows::of(profile) else { return };
    rows.ward.come_to_rest();
    rows.ward.keep(OLD);
    let from_a = "was missing; restored version 0.1.0 from hidden backup A";

    let format = "umount $free; mkfs.vfat -F 32 -n STICK $free_node";
    rows.heal("the free zone formatted", format, 0, &[from_a], &After::WholeButMine);
    rows.heal("no .holdfast", "rm -r $free/.holdfast", 0, &[], &After::Whole);
    rows.heal("no .holdfast, no updater", "rm -r $free/.holdfast $free/updater-*", 0, &[from_a], &After::Whole);
    rows.heal("zeros in the hidden zone", NO_HIDDEN, 0, &[], &After::Whole);
    let noise = "dd if=/dev/urandom of=$hidden_node bs=1M 2>/dev/null || true; rm $free/updater-*";
    let from_mirror = "restored version 0.1.0 from the backup mirror";
    rows.heal("noise in the hidden zone, no updater", noise, 0, &[from_mirror], &After::Whole);

    let edit = "sed -i s/written/scribbled/ $free/client/pages/01.txt; rm $free/client/pages/deep/*; cp /bin/true $free/client/pages/cute.jpg.exe";
    rows.heal(
        "the client edited, a program dropped into it",
        edit,
        0,
        &["pages/cute.jpg.exe is a program"],
        &After::Whole,
    );
    let quarantined = rows.ward.paths().iter().any(|path| path.starts_with(paths::QUARANTINE_DIR));
    rows.demand("the client edited", quarantined, "the program was not kept");

    let factory = match profile {
        Profile::Stick => "restored version 0.1.0 from the copy in the virtual zone",
        Profile::Dual => "restored version 0.1.0 from the factory backup on the CD",
    };
    rows.heal("only what the factory made", ONLY_FACTORY, 0, &[factory], &After::Whole);

    let full = "rm $free/updater-*; dd if=/dev/zero of=$free/all.bin bs=1M 2>/dev/null || true; yes > $free/rest.txt 2>/dev/null || true; sync";
    let runs = "Version 0.1.0 from hidden backup A runs without being installed: the free zone cannot be written: no space is left";
    rows.heal("the free zone full to the last byte", full, 0, &[runs, "Make room"], &After::Client);
    rows.ward.damage("rm $free/all.bin $free/rest.txt");
    rows.start("there is room again", &Cable::default(), 0, &[from_a], &After::Whole);

    rows.ward.go_back();
    rows.ward.damage("rm $free/updater-*");
    let protected = Cable { read_only: true, ..Cable::default() };
    let runs = "runs without being installed: the free zone cannot be written: write-protected";
    rows.start("a write-protected disk", &protected, 0, &[runs, "Take off the write protection"], &After::Untouched);

    let gone = "umount $free; dd if=/dev/zero of=$free_node bs=64K count=16";
    let none = "has no file system that this computer knows";
    rows.heal("a free zone without a file system", gone, 72, &[none, "format it as FAT32"], &After::Untouched);

    no_good_copy(&mut rows);
}

/// The last rows: nothing is left that runs.
fn no_good_copy(rows: &mut Rows) {
    let cd = rows.ward.stick.cd.clone();
    let whole = rows.ward.stick.dir().join("whole.iso");
    if let Some(cd) = &cd {
        copy_with_holes(cd, &whole);
    }
    rows.ward.bring_special_updaters();
    let places = damage_the_virtual_zone(&rows.ward);
    let nowhere = [
        "There is no good copy of the updater on this device",
        "free zone: ",
        "hidden backup A: ",
        "backup mirror: ",
        "copy in the virtual zone: ",
        "To recover by hand:",
    ];
    rows.heal("no good copy anywhere", &format!("{ONLY_FACTORY}\n{places}"), 69, &nowhere, &After::Untouched);

    let crashing = format!("{ONLY_FACTORY}\ncp /host/updater-crashing $free/updater-linux-x86_64\n{places}");
    let none_starts = ["No copy of the updater on this device starts", "it ended in a fault (signal 11)"];
    rows.heal("only a copy that would not start", &crashing, 70, &none_starts, &After::Client);
    // It is noted, and tried once more all the same.
    rows.start("still only that", &Cable::default(), 70, &none_starts, &After::Client);

    // What the report says: a good one from another device, beside the client; with the repair drive as damaged as it is.
    fs::write(rows.ward.machine.share().join("good"), &rows.ward.updater).unwrap();
    rows.ward.damage("cp /host/good $free/updater-linux-x86_64");
    rows.start("a good copy by hand", &Cable::default(), 0, &[], &After::Client);
    let installed = rows.ward.has_its_updater().is_ok();
    rows.demand("a good copy by hand", installed, "it is not installed");
    if let Some(cd) = &cd {
        copy_with_holes(&whole, cd);
    }
}

/// What makes the updater's copies in the virtual zone useless: a script for a stick, whose partition can be written by
/// somebody; a CD is scratched here and now.
fn damage_the_virtual_zone(ward: &Ward) -> String {
    const SECTOR: usize = 2048;
    let device = Device::open(&ward.stick.disk, ward.stick.cd.as_deref(), Access::ReadOnly).unwrap();
    let mut zone = device.virtual_raw().unwrap();
    let mut bytes = vec![0; usize::try_from(zone.len().unwrap()).unwrap()];
    read_exact_at(&mut zone, 0, &mut bytes).unwrap();
    let start = &ward.updater[..2 * SECTOR];
    let at = bytes.chunks(SECTOR).position(|sector| *sector == start[..SECTOR]).expect("the plain copy");
    let at = at + 50;
    let Some(cd) = &ward.stick.cd else {
        return format!(
            "umount $virtual; dd if=/dev/urandom of=$virtual_node bs={SECTOR} seek={at} count=8 conv=notrunc"
        );
    };
    bytes[at * SECTOR..(at + 8) * SECTOR].fill(0x5a);
    // The factory's backup stands on the first 4 MiB behind the file system, whose length is in its descriptor (ECMA-119, 8.4.8).
    let blocks = u32::from_le_bytes(bytes[16 * SECTOR + 80..][..4].try_into().unwrap()) as usize;
    let tail = (blocks * SECTOR).next_multiple_of(4 << 20);
    bytes[tail..tail + 8192].fill(0x5a);
    fs::write(cd, bytes).unwrap();
    String::new()
}

/// Updaters of several versions: which copy is the newest, and which are too old.
fn the_versions(profile: Profile) {
    let Some(mut rows) = Rows::of(profile) else { return };
    rows.ward.come_to_rest();
    rows.ward.stick.publish(FLOOR);
    let session = rows.ward.start();
    session.expect(&format!("Release {FLOOR} is installed; before, it was {OLD}."));
    rows.ward.keep(FLOOR);

    // One backup holds the new updater, the other still the old one; the newest is taken, wherever it stands.
    let newest = format!("restored version {FLOOR_UPDATER} from hidden backup");
    let row = "backups of two versions";
    rows.heal(row, "rm $free/updater-* $free/.holdfast/mirror/backup", 0, &[&newest], &After::Whole);

    rows.ward.go_back();
    rows.ward.come_to_rest();
    rows.ward.keep(FLOOR);
    let old = UPDATERS[0];
    let too_old = format!(
        "was version {old}, which is too old to be allowed; restored version {FLOOR_UPDATER} from hidden backup A"
    );
    rows.heal("too old", "cp $virtual/updater-linux-x86_64 $free/", 0, &[&too_old], &After::Whole);
    // Behind the two records of 4 MiB each.
    let without_a = "rm $free/updater-*; dd if=/dev/urandom of=$hidden_node bs=1M seek=9 count=1 conv=notrunc";
    let from_b = format!("restored version {FLOOR_UPDATER} from hidden backup B");
    rows.heal("the first backup damaged", without_a, 0, &[&from_b], &After::Whole);
    let from_mirror = format!("restored version {FLOOR_UPDATER} from the backup mirror");
    let without_both = format!("rm $free/updater-*; {NO_HIDDEN}");
    rows.heal("both backups gone", &without_both, 0, &[&from_mirror], &After::Whole);

    // The record's mirror still says what the floor is.
    let below = format!("rm $free/updater-* $free/.holdfast/mirror/backup; {NO_HIDDEN}");
    let recover = "is older than this device allows; it only fetches a newer one";
    rows.heal("only copies below the floor", &below, 0, &[recover], &After::Whole);
    rows.ward.stick.server.stop();
    rows.heal("only copies below the floor, and no network", &below, 0, &[recover], &After::Client);
    let installed = rows.ward.read(UPDATER).is_some();
    rows.demand("only copies below the floor, and no network", !installed, "something was installed");
}

#[test]
fn on_a_stick_each_damage_to_the_updater_heals() {
    the_updater(Profile::Stick);
}

#[test]
fn on_a_dual_device_each_damage_to_the_updater_heals() {
    the_updater(Profile::Dual);
}

#[test]
fn on_a_stick_each_damage_to_its_zones_heals_or_is_said() {
    the_zones(Profile::Stick);
}

#[test]
fn on_a_dual_device_each_damage_to_its_zones_heals_or_is_said() {
    the_zones(Profile::Dual);
}

#[test]
fn on_a_stick_the_newest_copy_is_restored_and_none_below_the_floor() {
    the_versions(Profile::Stick);
}

#[test]
fn on_a_dual_device_the_newest_copy_is_restored_and_none_below_the_floor() {
    the_versions(Profile::Dual);
}
