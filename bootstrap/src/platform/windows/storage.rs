//! Volumes, disks, partitions and units, as Windows tells of them to anybody: without the right to read one byte of them.
#![allow(unsafe_code)]

use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use windows_sys::Win32::Devices::DeviceAndDriverInstallation::{
    CM_GET_DEVICE_INTERFACE_LIST_PRESENT, CM_Get_Device_IDW, CM_Get_Device_Interface_List_SizeW,
    CM_Get_Device_Interface_ListW, CM_Get_Device_Interface_PropertyW, CM_Get_Parent, CM_LOCATE_DEVNODE_NORMAL,
    CM_Locate_DevNodeW, CR_SUCCESS,
};
use windows_sys::Win32::Devices::Properties::DEVPKEY_Device_InstanceId;
use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::Storage::FileSystem::{
    FindFirstVolumeW, FindNextVolumeW, FindVolumeClose, GetVolumeNameForVolumeMountPointW,
    GetVolumePathNamesForVolumeNameW,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::{
    DRIVE_LAYOUT_INFORMATION_EX, GUID_DEVINTERFACE_CDROM, GUID_DEVINTERFACE_DISK, IOCTL_DISK_GET_DRIVE_LAYOUT_EX,
    IOCTL_STORAGE_GET_DEVICE_NUMBER, PARTITION_INFORMATION_EX, PARTITION_STYLE_GPT, STORAGE_DEVICE_NUMBER,
};
use windows_sys::core::GUID;

use super::presence::volume_of;
use super::wide;
use crate::launcher::layout::{Partition, Place, Storage, Volume};

/// The name of a volume has 49 units; paths of mount points in all are rarely longer.
const NAME_UNITS: usize = 4096;
/// The most volumes, units and partitions that are looked at.
const MAX_UNITS: usize = 256;
/// Room for the layout of a disk with so many partitions, in bytes.
const LAYOUT_BYTES: usize = 64 << 10;
/// How the instance ids of USB devices and of their functions begin; those of controllers begin with that of their bus.
const USB: &str = r"USB\";
/// The types of devices (ntddk.h, `FILE_DEVICE_…`).
const FILE_DEVICE_CD_ROM: u32 = 2;
const FILE_DEVICE_DISK: u32 = 7;
const FILE_DEVICE_DVD: u32 = 0x33;

/// What Windows tells of disks and units.
pub struct OfWindows;

impl Storage for OfWindows {
    fn partitions(&self, disk: u32) -> Vec<Partition> {
        partitions(disk)
    }

    fn beside(&self, own: Place, disks: bool) -> Vec<u32> {
        let of_kind = |disks| units(if disks { &GUID_DEVINTERFACE_DISK } else { &GUID_DEVINTERFACE_CDROM });
        let own_units = of_kind(own.is_disk);
        let parent = own_units.iter().find(|(place, _)| place.unit == own.unit && place.is_disk == own.is_disk);
        let Some((_, parent)) = parent else { return Vec::new() };
        of_kind(disks).iter().filter(|(_, other)| other == parent).map(|(place, _)| place.unit).collect()
    }
}

/// Asks a device something that needs no right.
fn ask(path: &Path, code: u32, answer: &mut [u64]) -> Option<usize> {
    let device = std::fs::OpenOptions::new().access_mode(0).open(path).ok()?;
    let mut bytes = 0;
    // SAFETY: a handle that is open, and room of the length that is told, all of which live through the call.
    let done = unsafe {
        DeviceIoControl(
            device.as_raw_handle(),
            code,
            std::ptr::null(),
            0,
            answer.as_mut_ptr().cast(),
            size_of_val(answer) as u32,
            &mut bytes,
            std::ptr::null_mut(),
        )
    };
    (done != 0).then_some(bytes as usize)
}

/// What a device's path leads to.
fn place_of_device(path: &Path) -> Option<Place> {
    let mut answer = [0; 4];
    if ask(path, IOCTL_STORAGE_GET_DEVICE_NUMBER, &mut answer)? < size_of::<STORAGE_DEVICE_NUMBER>() {
        return None;
    }
    // SAFETY: the system has filled in the whole structure, which is plain numbers and needs no more alignment than `u64`.
    let found = unsafe { answer.as_ptr().cast::<STORAGE_DEVICE_NUMBER>().read() };
    let is_disk = match found.DeviceType {
        FILE_DEVICE_DISK => true,
        FILE_DEVICE_CD_ROM | FILE_DEVICE_DVD => false,
        _ => return None,
    };
    // A CD has no partitions, and says so by this.
    let partition = if found.PartitionNumber == u32::MAX { 0 } else { found.PartitionNumber };
    Some(Place { is_disk, unit: found.DeviceNumber, partition })
}

/// On what the volume stands that holds `path`.
pub fn place_of(path: &Path) -> Option<Place> {
    let root = volume_of(path)?;
    let mut name = [0; NAME_UNITS];
    // SAFETY: a string that ends in zero, and room of the length that is told.
    let found = unsafe { GetVolumeNameForVolumeMountPointW(root.as_ptr(), name.as_mut_ptr(), NAME_UNITS as u32) };
    if found == 0 { None } else { place_of_device(&device_of(&text(&name))) }
}

/// A volume's name leads to its root directory, and without the backslash at its end to the volume itself.
fn device_of(volume: &str) -> PathBuf {
    PathBuf::from(volume.trim_end_matches('\\'))
}

fn text(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}

/// Every volume of a disk or CD-ROM.
pub fn volumes() -> Vec<Volume> {
    let mut found = Vec::new();
    let mut name = [0; NAME_UNITS];
    // SAFETY: room of the length that is told.
    let search = unsafe { FindFirstVolumeW(name.as_mut_ptr(), NAME_UNITS as u32) };
    if search == INVALID_HANDLE_VALUE {
        return found;
    }
    for _ in 0..MAX_UNITS {
        let volume = text(&name);
        if let Some(place) = place_of_device(&device_of(&volume)) {
            found.push(Volume { place, root: root_of(&volume) });
        }
        // SAFETY: a search that is open, and room of the length that is told.
        if unsafe { FindNextVolumeW(search, name.as_mut_ptr(), NAME_UNITS as u32) } == 0 {
            break;
        }
    }
    // SAFETY: a search that is open, and not used any more.
    unsafe { FindVolumeClose(search) };
    found
}

fn root_of(volume: &str) -> PathBuf {
    let mut paths = [0; NAME_UNITS];
    let mut length = 0;
    // SAFETY: a string that ends in zero, room of the length that is told, and a place for a number.
    let found = unsafe {
        let name = wide(volume);
        GetVolumePathNamesForVolumeNameW(name.as_ptr(), paths.as_mut_ptr(), NAME_UNITS as u32, &mut length)
    };
    let first = text(&paths);
    PathBuf::from(if found == 0 || first.is_empty() { volume } else { &first })
}

fn partitions(disk: u32) -> Vec<Partition> {
    let mut answer = vec![0; LAYOUT_BYTES / size_of::<u64>()];
    let path = PathBuf::from(format!(r"\\.\PhysicalDrive{disk}"));
    let Some(bytes) = ask(&path, IOCTL_DISK_GET_DRIVE_LAYOUT_EX, &mut answer) else { return Vec::new() };
    let head = std::mem::offset_of!(DRIVE_LAYOUT_INFORMATION_EX, PartitionEntry);
    let room = bytes.min(LAYOUT_BYTES).saturating_sub(head) / size_of::<PARTITION_INFORMATION_EX>();
    let layout = answer.as_ptr().cast::<DRIVE_LAYOUT_INFORMATION_EX>();
    // SAFETY: the buffer is larger than the structure's head, zeroed where the system wrote nothing, and as aligned.
    let count = unsafe { (&raw const (*layout).PartitionCount).read() } as usize;
    let mut found = Vec::new();
    for i in 0..count.min(room).min(MAX_UNITS) {
        // SAFETY: the entry lies within the bytes that the system has written. Only numbers are read: whatever a driver has put
        // there is one, while other fields are `bool`.
        let (number, style, name, start) = unsafe {
            let entry = (&raw const (*layout).PartitionEntry).cast::<PARTITION_INFORMATION_EX>().add(i);
            let number = (&raw const (*entry).PartitionNumber).read();
            let name = (&raw const (*entry).Anonymous.Gpt.Name).read();
            (number, (&raw const (*entry).PartitionStyle).read(), name, (&raw const (*entry).StartingOffset).read())
        };
        // What has no number is a gap, or a table within the table.
        if number != 0 {
            found.push(Partition {
                number,
                name: if style == PARTITION_STYLE_GPT { text(&name) } else { String::new() },
                start,
            });
        }
    }
    found
}

/// The units of a kind that are plugged in, each with the number of the device that it is part of.
fn units(kind: &GUID) -> Vec<(Place, u32)> {
    let mut length = 0;
    // SAFETY: a place for a number, and the name of a kind of devices; no device is named.
    let asked = unsafe {
        CM_Get_Device_Interface_List_SizeW(&mut length, kind, std::ptr::null(), CM_GET_DEVICE_INTERFACE_LIST_PRESENT)
    };
    if asked != CR_SUCCESS {
        return Vec::new();
    }
    let mut list = vec![0; length as usize];
    // SAFETY: room of the length that is told, for a list of that length; as above.
    let listed = unsafe {
        CM_Get_Device_Interface_ListW(
            kind,
            std::ptr::null(),
            list.as_mut_ptr(),
            length,
            CM_GET_DEVICE_INTERFACE_LIST_PRESENT,
        )
    };
    if listed != CR_SUCCESS {
        return Vec::new();
    }
    let paths = list.split(|unit| *unit == 0).filter(|path| !path.is_empty()).take(MAX_UNITS);
    paths.filter_map(|path| Some((place_of_device(&PathBuf::from(text(path)))?, parent_of(&text(path))?))).collect()
}

/// The USB device that has the interface's device as a part.
fn parent_of(interface: &str) -> Option<u32> {
    let mut kind = 0;
    let mut name = [0_u16; NAME_UNITS];
    let mut bytes = size_of_val(&name) as u32;
    let (mut own, mut parent) = (0, 0);
    // SAFETY: strings that end in zero, room of the length that is told, and places for numbers, all of which live through
    // the calls. The name ends in zero: it is the system's, and shorter than the room.
    let found = unsafe {
        let interface = wide(interface);
        let key = &DEVPKEY_Device_InstanceId;
        let room = name.as_mut_ptr().cast();
        CM_Get_Device_Interface_PropertyW(interface.as_ptr(), key, &mut kind, room, &mut bytes, 0) == CR_SUCCESS
            && name.last() == Some(&0)
            && CM_Locate_DevNodeW(&mut own, name.as_ptr(), CM_LOCATE_DEVNODE_NORMAL) == CR_SUCCESS
            && CM_Get_Parent(&mut parent, own, 0) == CR_SUCCESS
            && CM_Get_Device_IDW(parent, name.as_mut_ptr(), NAME_UNITS as u32, 0) == CR_SUCCESS
    };
    let is_usb = || text(&name).get(..USB.len()).is_some_and(|start| start.eq_ignore_ascii_case(USB));
    (found && is_usb()).then_some(parent)
}
