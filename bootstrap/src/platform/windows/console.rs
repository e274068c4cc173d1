//! Where people read what the launcher says. It is no console program, so that a double-click opens no black window: it
//! speaks where it was started from, and where nobody can have read that, in a window.
#![allow(unsafe_code)]

use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_UNKNOWN, GetFileType};
use windows_sys::Win32::System::Console::{
    ATTACH_PARENT_PROCESS, AttachConsole, GetConsoleCP, GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX, SetErrorMode,
};
use windows_sys::Win32::System::LibraryLoader::SetDllDirectoryW;
use windows_sys::Win32::System::StationsAndDesktops::{
    GetProcessWindowStation, GetUserObjectInformationW, UOI_FLAGS, USEROBJECTFLAGS,
};
use windows_sys::Win32::UI::WindowsAndMessaging::{MB_ICONWARNING, MB_OK, MB_SETFOREGROUND, MessageBoxW, WSF_VISIBLE};

use super::wide;

/// Called first. The system shows no box of its own and waits for nobody's click: that a reader has no card any more is told to
/// this program, and what an updater ends by to whoever started it. Takes the console of whoever started this program, if there
/// is one and output leads nowhere else.
pub fn prepare() {
    // SAFETY: takes no memory of ours.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX) };
    // The client starts in the root of the free zone, where anybody puts what he likes: neither it nor what it starts by a bare
    // name looks for libraries and programs there.
    // SAFETY: an empty string that ends in zero. On Windows setting a variable is always sound (std::env::set_var).
    unsafe {
        SetDllDirectoryW([0].as_ptr());
        std::env::set_var("NoDefaultCurrentDirectoryInExePath", "1");
    }
    if !leads_somewhere(STD_ERROR_HANDLE) && !leads_somewhere(STD_OUTPUT_HANDLE) {
        // SAFETY: takes no memory of ours. Without such a console nothing changes.
        unsafe { AttachConsole(ATTACH_PARENT_PROCESS) };
    }
}

/// Shows a text in a window until somebody closes it, if nobody can have read it elsewhere, and somebody can see the window.
pub fn show(title: &str, text: &str) {
    if leads_somewhere(STD_ERROR_HANDLE) || !is_seen() {
        return;
    }
    let (title, text) = (wide(title), wide(text));
    // SAFETY: two strings that end in zero and live through the call; no window owns this one.
    unsafe {
        MessageBoxW(std::ptr::null_mut(), text.as_ptr(), title.as_ptr(), MB_OK | MB_ICONWARNING | MB_SETFOREGROUND)
    };
}

/// Whether windows of this process are shown to anybody; those of services are not.
fn is_seen() -> bool {
    let mut flags = USEROBJECTFLAGS::default();
    // SAFETY: room of the length that is told, for plain numbers; the station is the process's own, and need not be closed.
    let found = unsafe {
        let station = GetProcessWindowStation();
        let room = (&raw mut flags).cast();
        GetUserObjectInformationW(station, UOI_FLAGS, room, size_of_val(&flags) as u32, std::ptr::null_mut())
    };
    found != 0 && flags.dwFlags & WSF_VISIBLE.cast_unsigned() != 0
}

/// Whether something was given to read from or to write to. The desktop starts programs with the number of a screen in the
/// place of standard output, which is no handle.
pub fn leads_somewhere(which: STD_HANDLE) -> bool {
    // SAFETY: takes no memory of ours; what is no handle has no type.
    unsafe {
        let handle = GetStdHandle(which);
        !handle.is_null() && handle != INVALID_HANDLE_VALUE && GetFileType(handle) != FILE_TYPE_UNKNOWN
    }
}

/// Whether this process has a console, which its children then share.
pub fn has_console() -> bool {
    // SAFETY: takes no memory of ours.
    unsafe { GetConsoleCP() != 0 }
}
