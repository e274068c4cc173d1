//! A board: the zones are partitions of its own card, the launcher runs at each boot before the application, and heals it after
//! damage and after a power cut, under systemd and in an initramfs without it (docs/board.md).
//!
//! A cut ends the machine when its card was told to write so many bytes; what the kernel had not sent is lost, what it had sent
//! is on the card. `HOLDFAST_FULL=1` tries eight times as many moments.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use firmware_image::host::{Access, FileZone};
use firmware_image::image::gpt::Table;
use firmware_image::paths::{THIS_PLATFORM, updater_name};
use qemu_tests::board::{Board, Boot, Card, HELD, Way};
use qemu_tests::scene;
use qemu_tests::sweep::ALL_STATES;
use qemu_tests::verdict::{Release, Verdict, tree_files};
use qemu_tests::world::{NEW, OLD, World};

/// A card, the board that it is in, and what is demanded of both.
struct Bench {
    card: Card,
    board: Board,
    verdict: Verdict,
    spare: PathBuf,
    way: Way,
}

impl Bench {
    fn new(way: Way) -> Option<Self> {
        let card = Card::new()?;
        let began = Instant::now();
        let board = Board::new(way, &card.stick)?;
        println!("{way:?}: a board is ready in {:.1} s", began.elapsed().as_secs_f64());
        let world = World::get();
        let release =
            |version: &str| Release { version: version.into(), files: tree_files(&world.tree(version)).unwrap() };
        let releases = vec![release(OLD), release(NEW)];
        let dir = card.stick.dir();
        // The application's own data.
        scene::put_users_files(&card.stick.disk, dir).unwrap();
        let verdict = Verdict::new(&card.stick.disk, releases, &world.programs.bootstrap_image, dir).unwrap();
        let spare = dir.join("spare");
        Some(Self { card, board, verdict, spare, way })
    }

    fn disk(&self) -> &Path {
        &self.card.stick.disk
    }

    /// One boot, behind which everything is as it must be, and the application of this version has run.
    fn boots(&self, card: &Path, version: &str) -> Boot {
        let began = Instant::now();
        let boot = self.board.boot(card).until_off();
        println!("{:?}: {version}, {:.1} s", self.way, began.elapsed().as_secs_f64());
        self.is_well(card, &boot);
        assert_eq!(boot.version(), Some(version), "{}", boot.said);
        boot
    }

    fn is_well(&self, card: &Path, boot: &Boot) {
        let ran = boot.version().unwrap_or_else(|| panic!("the application did not run:\n{}", boot.said));
        let found = self.verdict.inspect(card).unwrap_or_else(|error| panic!("{error:#}\n{}", boot.said));
        assert_eq!(found, ran, "{}", boot.said);
        let fsck = self.verdict.fsck(card, &self.spare).unwrap();
        fsck.unwrap_or_else(|complaint| panic!("fsck.vfat: {complaint}\n{}", boot.said));
        self.card.check_others(card).unwrap_or_else(|error| panic!("{error:#}\n{}", boot.said));
    }

    /// A further boot writes nothing; `spare` of them may, to renew the second backup.
    fn comes_to_rest(&self, card: &Path, version: &str, spare: usize) {
        for left in (0..=spare).rev() {
            let before = fs::read(card).unwrap();
            let boot = self.boots(card, version);
            if fs::read(card).unwrap() == before {
                return;
            }
            assert!(left > 0, "a further boot wrote something:\n{}", boot.said);
        }
    }

    /// Destroys the updater, a file of the client, and the first backup.
    fn damage(&self) {
        let stick = &self.card.stick;
        let garbage = stick.dir().join("garbage");
        fs::write(&garbage, vec![0x5A; 50_000]).unwrap();
        let garbage = garbage.to_str().unwrap();
        stick.tool(&["free", "put"], &[garbage, &updater_name(THIS_PLATFORM)]);
        stick.tool(&["free", "put"], &[garbage, "client/pages/01.txt"]);
        stick.tool(&["free", "rm"], &["client/run.sh"]);
        let hidden = Table::read(FileZone::open(self.disk(), Access::ReadOnly).unwrap()).unwrap().hidden().unwrap();
        // Behind the two records of 4 MiB each.
        let mut bytes = stick.bytes();
        let at = usize::try_from(hidden.start).unwrap() + (8 << 20);
        bytes[at..at + (1 << 20)].fill(0x5A);
        fs::write(self.disk(), bytes).unwrap();
    }

    /// A boot of a sound card from power-on, which writes nothing.
    fn leaves_alone(&self) {
        let (before, began) = (fs::read(self.disk()).unwrap(), Instant::now());
        let boot = self.board.boot_from_power_on(self.disk()).until_off();
        self.is_well(self.disk(), &boot);
        assert!(fs::read(self.disk()).unwrap() == before, "a sound card was written to:\n{}", boot.said);
        let (up, all) = (boot.up.unwrap(), began.elapsed().as_secs_f64());
        println!("{:?}: from the kernel's begin to the application {up:.1} s; {all:.1} s in all", self.way);
    }

    /// A boot that heals what is damaged.
    fn heals(&self) {
        self.damage();
        self.boots(self.disk(), OLD).expect("restored version 0.1.0 from");
    }

    /// A boot that cannot: the application does not start, and it is said why.
    fn holds_back(&self, status: i32, why: &str) {
        let began = Instant::now();
        let boot = self.board.boot(self.disk()).until_off();
        println!("{:?}: held back, {:.1} s", self.way, began.elapsed().as_secs_f64());
        assert_eq!((boot.version(), boot.up), (None, None), "{}", boot.said);
        boot.expect(&format!("{HELD}{status}")).expect(why);
        self.card.check_others(self.disk()).unwrap();
    }

    /// Destroys the virtual zone's file system.
    fn damage_the_virtual_zone(&self) {
        let table = Table::read(FileZone::open(self.disk(), Access::ReadOnly).unwrap()).unwrap();
        let at = usize::try_from(table.virtual_zone().unwrap().start).unwrap();
        let mut bytes = self.card.stick.bytes();
        bytes[at..at + (64 << 10)].fill(0x5A);
        fs::write(self.disk(), bytes).unwrap();
    }

    /// On a busy machine the emulated one may be too slow for the check window, and then does not update.
    fn tries<T>(&self, what: &str, mut what_is_tried: impl FnMut() -> Option<T>) -> T {
        (0..4).find_map(|_| what_is_tried()).unwrap_or_else(|| panic!("{:?}: {what} did not come about", self.way))
    }

    /// Cuts the power at moments spread over a boot that restores and updates, and boots again.
    fn survives_cuts(&self, count: usize) {
        let (from, card) = (self.card.stick.dir().join("before"), self.card.stick.dir().join("cut"));
        fs::copy(self.disk(), &from).unwrap();
        let total = self.tries("an update", || {
            fs::copy(&from, &card).unwrap();
            let mut whole = self.board.boot_counted(&card);
            whole.until("says hello").ok()?;
            let written = whole.written_bytes().ok()?;
            whole.console().contains(&format!("CLIENT {NEW} says hello")).then_some(written)
        });
        for number in 0..count {
            let aim = total * (2 * number as u64 + 1) / (2 * count as u64);
            let cut = self.tries("a cut", || {
                fs::copy(&from, &card).unwrap();
                self.board.boot_counted(&card).cut_after(aim).ok()
            });
            let what = format!("cut after {cut} of {total} bytes");
            self.recovers(&card, &what, is_full() || number == count / 2);
        }
    }

    /// Cuts the power once, in the middle of a boot that has restored the updater and updates, and boots again.
    fn survives_a_cut(&self) {
        let (from, card) = (self.card.stick.dir().join("before"), self.card.stick.dir().join("cut"));
        fs::copy(self.disk(), &from).unwrap();
        let cut = self.tries("a cut", || {
            fs::copy(&from, &card).unwrap();
            let mut running = self.board.boot_counted(&card);
            running.until("restored version 0.1.0").ok()?;
            let aim = running.written_bytes().ok()? + (8 << 20);
            running.cut_after(aim).ok()
        });
        self.recovers(&card, &format!("cut after {cut} bytes"), is_full());
    }

    /// What a cut left heals at the next boot; with `at_rest` it then comes to rest.
    fn recovers(&self, card: &Path, what: &str, at_rest: bool) {
        if let Some(astray) = self.verdict.astray(card, &self.spare).unwrap() {
            panic!("{:?}: {what}: {astray}", self.way);
        }
        let began = Instant::now();
        let boot = self.board.boot(card).until_off();
        self.is_well(card, &boot);
        let version = boot.version().unwrap().to_owned();
        println!("{:?}: {what}: healed to {version} in {:.1} s", self.way, began.elapsed().as_secs_f64());
        if at_rest {
            self.comes_to_rest(card, &version, 2);
        }
    }
}

fn is_full() -> bool {
    std::env::var_os(ALL_STATES).is_some()
}

/// Moments that are tried.
fn moments(few: usize) -> usize {
    if is_full() { 8 * few } else { few }
}

#[test]
fn a_board_without_systemd_heals_and_updates_in_its_initramfs_and_survives_power_cuts() {
    let Some(mut bench) = Bench::new(Way::Init) else { return };
    bench.leaves_alone();
    bench.heals();
    bench.comes_to_rest(bench.disk(), OLD, 1);
    bench.damage();
    bench.card.stick.publish(NEW);
    bench.survives_cuts(moments(3));
    bench.card.stick.server.stop();
    bench.holds_back(73, "The updater says that the client is not whole");
}

#[test]
fn under_systemd_a_oneshot_unit_heals_and_updates_before_the_applications_own_unit() {
    let Some(bench) = Bench::new(Way::Oneshot) else { return };
    bench.leaves_alone();
    bench.damage();
    bench.card.stick.publish(NEW);
    if is_full() {
        bench.survives_cuts(moments(2));
    } else {
        bench.survives_a_cut();
    }
    bench.damage_the_virtual_zone();
    bench.holds_back(66, "The virtual zone /dev/mmcblk0p2 cannot be mounted");
}

#[test]
fn under_systemd_a_unit_heals_and_starts_the_client_itself() {
    let Some(bench) = Bench::new(Way::Client) else { return };
    bench.heals();
}
