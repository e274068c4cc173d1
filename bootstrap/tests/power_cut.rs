//! A restore that is cut at any of its writes leaves a device that the next launch heals.
//!
//! The free zone under test counts what changes it: each piece written, flush, rename, removal, set length. At the n-th it
//! fails, and so does everything after it: the medium is gone. A write that is cut may have happened by half.

mod support;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use bootstrap::{Session, Source};
use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::free_zone::{FreeZone, Metadata, ZoneFile};
use firmware_image::host::{DirFile, DirZone, FileZone};
use firmware_image::places::{Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::storage::Window;
use firmware_image::{ZoneError, paths};
use support::{ALIGN, Device, Fate, Memory, image};

/// Counts down to the cut.
#[derive(Clone)]
struct Power {
    left: Rc<Cell<Option<u32>>>,
    used: Rc<Cell<u32>>,
}

/// What becomes of one operation.
enum Verdict {
    Done,
    Torn,
    Dead,
}

impl Power {
    fn until(left: Option<u32>) -> Self {
        Self { left: Rc::new(Cell::new(left)), used: Rc::new(Cell::new(0)) }
    }

    fn spend(&self) -> Verdict {
        self.used.set(self.used.get() + 1);
        match self.left.get() {
            None => Verdict::Done,
            Some(0) => Verdict::Dead,
            Some(1) => {
                self.left.set(Some(0));
                Verdict::Torn
            }
            Some(n) => {
                self.left.set(Some(n - 1));
                Verdict::Done
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce() -> Result<T, ZoneError>) -> Result<T, ZoneError> {
        match self.spend() {
            Verdict::Done => change(),
            Verdict::Torn | Verdict::Dead => Err(ZoneError::Io(5)),
        }
    }

    fn is_out(&self) -> bool {
        self.left.get() == Some(0)
    }

    fn look<T>(&self, look: impl FnOnce() -> Result<T, ZoneError>) -> Result<T, ZoneError> {
        if self.is_out() { Err(ZoneError::Io(5)) } else { look() }
    }
}

struct Cut {
    zone: DirZone,
    power: Power,
    /// The driver's rename is a removal and a new name, as on FAT.
    rename_in_two: bool,
}

struct CutFile {
    file: DirFile,
    power: Power,
}

impl FreeZone for Cut {
    type File<'a> = CutFile;

    fn open(&self, path: &str) -> Result<Option<CutFile>, ZoneError> {
        let file = self.power.look(|| self.zone.open(path))?;
        Ok(file.map(|file| CutFile { file, power: self.power.clone() }))
    }
    fn open_rw(&self, path: &str) -> Result<CutFile, ZoneError> {
        let file = self.power.change(|| self.zone.open_rw(path))?;
        Ok(CutFile { file, power: self.power.clone() })
    }
    fn create(&self, path: &str) -> Result<CutFile, ZoneError> {
        let file = self.power.change(|| self.zone.create(path))?;
        Ok(CutFile { file, power: self.power.clone() })
    }
    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        self.power.look(|| self.zone.metadata(path))
    }
    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        self.power.look(|| self.zone.list(path, visit))
    }
    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        self.power.change(|| self.zone.remove(path))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        if self.rename_in_two {
            self.power.change(|| self.zone.remove(to))?;
        }
        self.power.change(|| self.zone.rename(from, to))
    }
    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        self.power.change(|| self.zone.create_dir_all(path))
    }
    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        self.power.change(|| self.zone.sync_dir(path))
    }
    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        self.power.change(|| self.zone.set_executable(path, executable))
    }
    fn free_bytes(&self) -> Result<u64, ZoneError> {
        self.power.look(|| self.zone.free_bytes())
    }
}

impl ErrorType for CutFile {
    type Error = ZoneError;
}

impl Read for CutFile {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let Self { file, power } = self;
        power.look(|| file.read(buf))
    }
}

impl Write for CutFile {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        match self.power.spend() {
            Verdict::Done => self.file.write(buf),
            Verdict::Torn => {
                self.file.write(&buf[..buf.len() / 2])?;
                Err(ZoneError::Io(5))
            }
            Verdict::Dead => Err(ZoneError::Io(5)),
        }
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        let Self { file, power } = self;
        power.change(|| file.flush())
    }
}

impl Seek for CutFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        let Self { file, power } = self;
        power.look(|| file.seek(to))
    }
}

impl ZoneFile for CutFile {
    fn len(&mut self) -> Result<u64, ZoneError> {
        let Self { file, power } = self;
        power.look(|| file.len())
    }
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        let Self { file, power } = self;
        power.change(|| file.set_len(length))
    }
}

/// A launch whose power fails at the `cut`-th change; how many changes it made.
fn launch(device: &Device, cut: Option<u32>, rename_in_two: bool, crash: bool) -> u32 {
    let power = Power::until(cut);
    let zone = Cut { zone: DirZone::open(&device.free).unwrap(), power: power.clone(), rename_in_two };
    let mut scratch = Box::<Scratch>::default();
    let hidden = FileZone::open(&device.hidden, firmware_image::host::Access::ReadOnly).unwrap();
    let mut zones = bootstrap::Device {
        places: Places {
            hidden: Some(firmware_image::hidden::HiddenZone::new(hidden, ALIGN).unwrap()),
            free: Some(&zone),
            cd_tail: None::<Window<FileZone>>,
        },
        plain: None::<FileZone>,
        memory: scratch.memory(),
    };
    let product = bootstrap::Product {
        vendor: firmware_image::signature::SigningKey::from_seed(&[1; 32]).public(),
        name: support::PRODUCT,
        platform: support::PLATFORM,
        secret: support::secret(),
    };
    let mut session = Session::open(product, &mut zones, &mut vec![0; MAX_RECORD_BYTES]);
    let mut first = crash;
    while let Some(start) = session.next(&mut zones, &mut Memory) {
        if std::mem::take(&mut first) {
            session.crashed(Some(&zone), &start, bootstrap::report::Crash::NotAProgram);
        } else {
            session.settle(&mut zones, &start);
            break;
        }
    }
    power.used.get()
}

fn sweep(rename_in_two: bool, crash: bool, prepare: impl Fn(&Device)) {
    let make = || {
        let device = Device::from_factory(&image("1.0.0"));
        prepare(&device);
        device
    };
    let writes = launch(&make(), None, rename_in_two, crash);
    assert!(writes > 5, "the sweep has something to cut: {writes}");
    for cut in 1..=writes {
        for again in [None, Some(cut), Some(1)] {
            let device = make();
            launch(&device, Some(cut), rename_in_two, crash);
            // A cut in the recovery as well.
            if let Some(cut) = again {
                launch(&device, Some(cut), rename_in_two, false);
            }
            let launched = device.launch(|start| {
                assert_eq!(start.copy.bytes(), image("1.0.0"), "cut {cut}");
                Fate::Ready
            });
            assert_eq!(launched.runs.len(), 1, "cut {cut}");
            assert_eq!(device.installed().unwrap(), image("1.0.0"), "cut {cut}");
            let launched = device.launch(|_| Fate::Ready);
            assert_eq!(launched.last().source, Source::Installed, "cut {cut}: healed for good");
        }
    }
}

#[test]
fn a_restore_of_a_missing_updater_cut_at_any_write_heals() {
    for rename_in_two in [false, true] {
        sweep(rename_in_two, false, |device| std::fs::remove_file(device.installed_path()).unwrap());
    }
}

#[test]
fn a_restore_over_a_damaged_updater_cut_at_any_write_heals() {
    for rename_in_two in [false, true] {
        sweep(rename_in_two, false, |device| {
            let mut damaged = image("1.0.0");
            damaged[5000] ^= 4;
            device.install(&damaged);
        });
    }
}

#[test]
fn giving_up_an_updater_that_will_not_start_cut_at_any_write_never_loses_the_one_that_does() {
    let device = || {
        let device = Device::from_factory(&image("1.0.0"));
        device.install(&image("1.1.0"));
        device
    };
    for rename_in_two in [false, true] {
        let writes = launch(&device(), None, rename_in_two, true);
        for cut in 1..=writes {
            let device = device();
            launch(&device, Some(cut), rename_in_two, true);
            let bad = support::digest_of(&image("1.1.0"));
            let launched =
                device.launch(|start| if start.copy.claim().digest == bad { Fate::Crash } else { Fate::Ready });
            assert_eq!(launched.last().bytes, image("1.0.0"), "cut {cut}");
            assert_eq!(device.installed().unwrap(), image("1.0.0"), "cut {cut}");
        }
    }
}

#[test]
fn a_restore_leaves_nothing_of_its_own_behind() {
    let device = Device::from_factory(&image("1.0.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    launch(&device, None, false, false);
    let beside = format!("{}.new", paths::updater_name(support::PLATFORM));
    assert!(!device.free.join(beside).exists());
}
