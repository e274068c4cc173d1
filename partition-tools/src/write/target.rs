//! Which devices may be overwritten: whole, unmounted, unused, removable, large enough.
//!
//! The facts come from `/sys` and `/proc`; where the system does not tell them, a device is refused and not guessed at.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use firmware_image::image::device::exclusively;
use firmware_image::image::gpt::SECTOR_BYTES;

use crate::error::ToolError;

/// What is allowed that is refused otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checks {
    /// Also a device that is mounted or in use.
    pub force_mounted: bool,
    /// Also a device that is not removable, or a plain file.
    pub force_fixed: bool,
}

/// Where the operating system tells about devices.
#[derive(Debug, Clone)]
pub struct System {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
    /// `/proc/swaps`.
    pub swaps: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { sys: "/sys".into(), mountinfo: "/proc/self/mountinfo".into(), swaps: "/proc/swaps".into() }
    }
}

impl System {
    /// Refuses a target that must not be overwritten with an image of `image_bytes` that comes from the `sources`.
    ///
    /// # Errors
    /// `Target` says why and what to do; `Host` where it cannot be looked at.
    pub fn check(&self, target: &Path, sources: &[&Path], image_bytes: u64, checks: &Checks) -> Result<(), ToolError> {
        let refuse = |reason: String| Err(ToolError::Target { target: target.to_owned(), reason });
        let metadata = fs::metadata(target).map_err(ToolError::host("opened", target))?;
        let layers = self.layers(target)?;
        for source in sources {
            if self.layers(source)?.iter().any(|layer| layers.contains(layer)) {
                return refuse(format!(
                    "it holds {}, which is to be written to it: name another target",
                    source.display()
                ));
            }
        }
        match device_number(&metadata) {
            None if metadata.is_file() => {
                if !checks.force_fixed {
                    return refuse("it is a plain file; give --force-fixed to overwrite it all the same".into());
                }
            }
            None => return refuse("it is neither a disk nor a file".into()),
            Some(number) => {
                let check = self.check_disk(number, checks).and_then(|()| self.check_sectors(number));
                if let Err(reason) = check {
                    return refuse(reason);
                }
            }
        }
        let end = fs::File::open(target).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let end = end.map_err(ToolError::host("opened", target))?;
        if end < image_bytes {
            let (end, needed) = (crate::size::show(end), crate::size::show(image_bytes));
            return refuse(format!("it holds {end}, and the image needs {needed}; make a smaller image with --size"));
        }
        Ok(())
    }

    /// Whose bytes stand at `path`: the file's or disk's own and, of a loop device, those of what is below it.
    fn layers(&self, path: &Path) -> Result<Vec<Node>, ToolError> {
        let mut layers = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next.take() {
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if layers.is_empty() => return Err(ToolError::host("opened", path)(error)),
                // A loop device's file that was removed is nobody's source.
                Err(_) => break,
            };
            let found = node(&path, &metadata);
            if layers.contains(&found) {
                break;
            }
            layers.push(found);
            let backing = device_number(&metadata).and_then(|(major, minor)| {
                let place = self.sys.join(format!("dev/block/{major}:{minor}/loop/backing_file"));
                fs::read_to_string(place).ok()
            });
            next = backing.map(|text| PathBuf::from(text.trim_end_matches('\n')));
        }
        Ok(layers)
    }

    /// Refuses a disk that somebody uses. A fixed one is taken, and so is a plain file.
    ///
    /// # Errors
    /// As [`System::check`].
    pub fn check_idle(&self, target: &Path) -> Result<(), ToolError> {
        let metadata = fs::metadata(target).map_err(ToolError::host("opened", target))?;
        let Some(number) = device_number(&metadata) else { return Ok(()) };
        let idle = self.parts(number).and_then(|parts| self.check_use(&parts));
        idle.map_err(|reason| ToolError::Target { target: target.to_owned(), reason })
    }

    /// What speaks against overwriting the disk with this number.
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn check_disk(&self, number: (u32, u32), checks: &Checks) -> Result<(), String> {
        let parts = self.parts(number)?;
        if !checks.force_mounted {
            self.check_use(&parts).map_err(|reason| format!("{reason}, or give --force-mounted"))?;
        }
        if !checks.force_fixed && !is_removable(&parts.place) {
            return Err(
                "it is not removable: it may be the disk of this computer. If you are sure, give --force-fixed".into(),
            );
        }
        if fs::read_to_string(parts.place.join("ro")).is_ok_and(|says| says.trim() == "1") {
            return Err("it is write-protected: an SD card has a slide for that, some sticks a switch".into());
        }
        Ok(())
    }

    /// Refuses a disk that is not addressed in the sectors that an image is laid out in.
    fn check_sectors(&self, number: (u32, u32)) -> Result<(), String> {
        let path = self.parts(number)?.place.join("queue/logical_block_size");
        let text = fs::read_to_string(path)
            .map_err(|error| format!("the system does not tell how long its sectors are ({error})"))?;
        match text.trim() {
            text if text == SECTOR_BYTES.to_string() => Ok(()),
            other => Err(format!(
                "it is addressed in sectors of {other} bytes, and the partition table and the file systems of an image count in \
                 {SECTOR_BYTES}: no system would find anything on it. Take a device with sectors of {SECTOR_BYTES} bytes"
            )),
        }
    }

    /// The disk with this number, which must be a whole one.
    fn parts(&self, number: (u32, u32)) -> Result<Parts, String> {
        let (major, minor) = number;
        let link = self.sys.join(format!("dev/block/{major}:{minor}"));
        let place = fs::canonicalize(&link).map_err(|error| format!("the system tells nothing about it ({error})"))?;
        if place.join("partition").exists() {
            return Err("it is one partition; name the whole disk".into());
        }
        let mut numbers = vec![number];
        let mut held = is_held(&place);
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.join("partition").exists() {
                let text = fs::read_to_string(path.join("dev")).unwrap_or_default();
                let parsed = text.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                numbers.push(parsed.ok_or("the system does not tell the numbers of its partitions")?);
                held |= is_held(&path);
            }
        }
        Ok(Parts { place, numbers, held })
    }

    /// Who uses a disk: the reason against writing to it, and what to do first.
    fn check_use(&self, parts: &Parts) -> Result<(), String> {
        let mountinfo = fs::read_to_string(&self.mountinfo)
            .map_err(|error| format!("the system does not tell what is mounted ({error})"))?;
        if let Some(point) = mount_point(&mountinfo, &parts.numbers) {
            return Err(format!("it is mounted at {point}; unmount it first"));
        }
        if self.is_swap(&parts.numbers) {
            return Err("it holds swap space in use; switch that off first".into());
        }
        match parts.held {
            true => Err("another block device is built upon it; take that down first".into()),
            false => Ok(()),
        }
    }

    fn is_swap(&self, numbers: &[(u32, u32)]) -> bool {
        let swaps = fs::read_to_string(&self.swaps).unwrap_or_default();
        swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).any(|path| {
            fs::metadata(path).ok().and_then(|metadata| device_number(&metadata)).is_some_and(|n| numbers.contains(&n))
        })
    }

    /// On Linux an exclusive open fails for a disk that is mounted, also where the list of mounts did not show it.
    pub(crate) fn open_exclusively(&self, options: &mut OpenOptions, checks: &Checks) {
        if !checks.force_mounted {
            exclusively(options);
        }
    }
}

/// A disk and its partitions, as the system tells of them.
struct Parts {
    place: PathBuf,
    /// Its own number and its partitions'.
    numbers: Vec<(u32, u32)>,
    /// Whether another block device is built upon any of them.
    held: bool,
}

fn is_held(place: &Path) -> bool {
    fs::read_dir(place.join("holders")).is_ok_and(|mut holders| holders.next().is_some())
}

/// What the system itself refuses to open for us alone.
pub(super) fn in_use(target: &Path) -> ToolError {
    let reason =
        "it is mounted, or another program has it; unmount it or end that program first, or give --force-mounted";
    ToolError::Target { target: target.to_owned(), reason: reason.into() }
}

/// Whether people can take the disk out: the kernel says so, or it hangs on USB, or it is an SD card.
fn is_removable(place: &Path) -> bool {
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let on_usb = place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    read("removable").trim() == "1" || on_usb || read("device/type").trim() == "SD"
}

/// The first mount point of any of these devices in the text of a mountinfo (proc(5)).
fn mount_point(mountinfo: &str, numbers: &[(u32, u32)]) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = (major.parse().ok()?, minor.parse().ok()?);
        let point = fields.nth(1)?;
        numbers.contains(&number).then(|| point.replace("\\040", " "))
    })
}

#[cfg(unix)]
fn device_number(metadata: &Metadata) -> Option<(u32, u32)> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let number = metadata.rdev();
    metadata.file_type().is_block_device().then(|| (rustix::fs::major(number), rustix::fs::minor(number)))
}

/// What no other file or disk has: the number of a disk, or of a file and of the file system that it is on.
#[cfg(unix)]
#[derive(PartialEq, Eq)]
enum Node {
    Disk(u32, u32),
    File(u64, u64),
}

#[cfg(unix)]
fn node(_path: &Path, metadata: &Metadata) -> Node {
    use std::os::unix::fs::MetadataExt as _;
    match device_number(metadata) {
        Some((major, minor)) => Node::Disk(major, minor),
        None => Node::File(metadata.dev(), metadata.ino()),
    }
}

/// Where a file is, without links on the way.
#[cfg(not(unix))]
type Node = PathBuf;

#[cfg(not(unix))]
fn node(path: &Path, _metadata: &Metadata) -> Node {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(not(unix))]
fn device_number(_metadata: &Metadata) -> Option<(u32, u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with one disk 8:16 of one partition 8:17.
    fn system(dir: &Path, removable: &str, usb: bool, mounts: &str) -> System {
        let parent = if usb { "devices/usb1/1-1/block/sdb" } else { "devices/ata1/block/sdb" };
        let disk = dir.join("sys").join(parent);
        fs::create_dir_all(disk.join("holders")).unwrap();
        fs::create_dir_all(disk.join("sdb1/holders")).unwrap();
        fs::write(disk.join("removable"), removable).unwrap();
        fs::write(disk.join("sdb1/partition"), "1\n").unwrap();
        fs::write(disk.join("sdb1/dev"), "8:17\n").unwrap();
        fs::create_dir_all(dir.join("sys/dev/block")).unwrap();
        #[cfg(unix)]
        {
            let _ = std::os::unix::fs::symlink(&disk, dir.join("sys/dev/block/8:16"));
            let _ = std::os::unix::fs::symlink(disk.join("sdb1"), dir.join("sys/dev/block/8:17"));
        }
        fs::write(dir.join("mountinfo"), mounts).unwrap();
        System { sys: dir.join("sys"), mountinfo: dir.join("mountinfo"), swaps: dir.join("swaps") }
    }

    const ELSEWHERE: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
    const PARTITION: &str =
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw\n";

    #[test]
    #[cfg(unix)]
    fn a_removable_disk_that_nobody_uses_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(system(dir.path(), "1\n", false, ELSEWHERE).check_disk((8, 16), &Checks::default()), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(system(dir.path(), "0\n", true, ELSEWHERE).check_disk((8, 16), &Checks::default()), Ok(()));
    }

    #[test]
    #[cfg(unix)]
    fn a_fixed_disk_a_partition_and_an_unknown_device_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let system = system(dir.path(), "0\n", false, ELSEWHERE);
        let fixed = system.check_disk((8, 16), &Checks::default()).unwrap_err();
        assert!(fixed.contains("--force-fixed"), "{fixed}");
        assert_eq!(system.check_disk((8, 16), &Checks { force_fixed: true, ..Checks::default() }), Ok(()));
        let partition = system.check_disk((8, 17), &Checks { force_fixed: true, force_mounted: true }).unwrap_err();
        assert!(partition.contains("whole disk"), "{partition}");
        assert!(system.check_disk((9, 9), &Checks { force_fixed: true, force_mounted: true }).is_err());
    }

    #[test]
    #[cfg(unix)]
    fn a_disk_with_a_mounted_partition_or_a_holder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let system_ = system(dir.path(), "1\n", false, PARTITION);
        let mounted = system_.check_disk((8, 16), &Checks::default()).unwrap_err();
        assert!(mounted.contains("/media/my stick"), "{mounted}");
        assert_eq!(system_.check_disk((8, 16), &Checks { force_mounted: true, ..Checks::default() }), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        let held = system(dir.path(), "1\n", false, ELSEWHERE);
        fs::write(dir.path().join("sys/devices/ata1/block/sdb/sdb1/holders/dm-0"), "").unwrap();
        assert!(held.check_disk((8, 16), &Checks::default()).unwrap_err().contains("built upon it"));
    }

    #[test]
    fn where_the_system_does_not_tell_the_answer_is_no() {
        let dir = tempfile::tempdir().unwrap();
        let system =
            System { sys: dir.path().join("none"), mountinfo: dir.path().join("m"), swaps: dir.path().join("s") };
        assert!(system.check_disk((8, 16), &Checks { force_fixed: true, force_mounted: true }).is_err());
    }
}
