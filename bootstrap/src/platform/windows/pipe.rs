//! The pipe on which the updater says that it is ready: one end that a child inherits, one that can be waited for.
#![allow(unsafe_code)]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::prelude::v1::*;

use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, GENERIC_WRITE, GetLastError, HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, PIPE_ACCESS_INBOUND, ReadFile,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, CreatePipe, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PIPE_WAIT,
};
use windows_sys::Win32::System::Threading::CreateEventW;

use super::wide;

/// Bytes heard at once.
const ROOM: usize = 64;

/// The end that hears. A read is always under way until the other end has closed.
pub struct Ear {
    pipe: OwnedHandle,
    event: OwnedHandle,
    /// Made by `Box::into_raw`, owned by this and, while a read is under way, written by the system.
    read: *mut Reading,
    ended: bool,
}

struct Reading {
    overlapped: OVERLAPPED,
    bytes: [u8; ROOM],
}

fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a handle that a call has just made, and that nobody else knows.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// An event that stays set until it is reset.
pub fn event() -> io::Result<OwnedHandle> {
    // SAFETY: no attributes and no name.
    owned(unsafe { CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) })
}

impl Ear {
    /// A pipe: the end that hears, and the one to speak into.
    pub fn new() -> io::Result<(Self, OwnedHandle)> {
        let random = RandomState::new().build_hasher().finish();
        let name = wide(format!(r"\\.\pipe\holdfast-{}-{random:016x}", std::process::id()));
        let access = PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE;
        let mode = PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS;
        // SAFETY: a string that ends in zero and lives through the call, and no attributes.
        let pipe = owned(unsafe {
            CreateNamedPipeW(name.as_ptr(), access, mode, 1, ROOM as u32, ROOM as u32, 0, std::ptr::null())
        })?;
        // SAFETY: as above.
        let mouth = owned(unsafe {
            CreateFileW(name.as_ptr(), GENERIC_WRITE, 0, std::ptr::null(), OPEN_EXISTING, 0, std::ptr::null_mut())
        })?;
        let event = event()?;
        let overlapped = OVERLAPPED { hEvent: event.as_raw_handle(), ..Default::default() };
        let read = Box::into_raw(Box::new(Reading { overlapped, bytes: [0; ROOM] }));
        let mut ear = Self { pipe, event, read, ended: false };
        ear.listen();
        Ok((ear, mouth))
    }

    /// Set when there is something to hear, or the other end has closed.
    pub fn event(&self) -> HANDLE {
        self.event.as_raw_handle()
    }

    /// Begins the next read. None is under way.
    fn listen(&mut self) {
        // SAFETY: `read` is valid until `drop`, which waits for the read to end, and nobody looks into it before it has.
        let begun = unsafe {
            let bytes = (&raw mut (*self.read).bytes).cast();
            let overlapped = &raw mut (*self.read).overlapped;
            ReadFile(self.pipe.as_raw_handle(), bytes, ROOM as u32, std::ptr::null_mut(), overlapped)
        };
        // SAFETY: takes no memory of ours.
        self.ended = begun == 0 && unsafe { GetLastError() } != ERROR_IO_PENDING;
    }

    /// What was said; `None`: the other end has closed.
    pub fn hear(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut count = 0;
        // SAFETY: the structure of the read that is under way, and a place for the number.
        let done =
            unsafe { GetOverlappedResult(self.pipe.as_raw_handle(), &raw mut (*self.read).overlapped, &mut count, 0) };
        if done == 0 {
            // SAFETY: takes no memory of ours.
            if unsafe { GetLastError() } == ERROR_IO_INCOMPLETE {
                return Some(Vec::new());
            }
            self.ended = true;
            return None;
        }
        // SAFETY: the read has ended, so nobody writes to these bytes.
        let bytes = unsafe { (*self.read).bytes };
        let said = bytes[..ROOM.min(count as usize)].to_vec();
        self.listen();
        Some(said)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let pipe = self.pipe.as_raw_handle();
        // SAFETY: the read is ended and waited for before its memory, which `new` got from a box, is given back.
        unsafe {
            if !self.ended {
                let overlapped = &raw mut (*self.read).overlapped;
                let mut count = 0;
                CancelIoEx(pipe, overlapped);
                GetOverlappedResult(pipe, overlapped, &mut count, 1);
            }
            drop(Box::from_raw(self.read));
        }
    }
}

/// A pipe into which nothing is written: the end to be inherited, and the one whose closing is the message.
pub fn silent() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (mut read, mut write) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: two places for handles, and no attributes.
    if unsafe { CreatePipe(&mut read, &mut write, std::ptr::null(), 0) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((owned(read)?, owned(write)?))
}
