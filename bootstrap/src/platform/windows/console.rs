//! Where people read what the launcher says. It is no console program, so that a double-click opens no black window: it
//! speaks where it was started from, and where nobody can have read that, in a window.
#![allow(unsafe_code)]

use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::System::Console::{
    ATTACH_PARENT_PROCESS, AttachConsole, GetConsoleCP, GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::UI::WindowsAndMessaging::{MB_ICONWARNING, MB_OK, MB_SETFOREGROUND, MessageBoxW};

use super::wide;

/// Takes the console of whoever started this program, if there is one and output leads nowhere else.
pub fn open_console() {
    if !leads_somewhere(STD_ERROR_HANDLE) && !leads_somewhere(STD_OUTPUT_HANDLE) {
        // SAFETY: takes no memory of ours. Without such a console nothing changes.
        unsafe { AttachConsole(ATTACH_PARENT_PROCESS) };
    }
}

/// Shows a text in a window until somebody closes it, if nobody can have read it elsewhere.
pub fn show(title: &str, text: &str) {
    if leads_somewhere(STD_ERROR_HANDLE) {
        return;
    }
    let (title, text) = (wide(title), wide(text));
    // SAFETY: two strings that end in zero and live through the call; no window owns this one.
    unsafe {
        MessageBoxW(std::ptr::null_mut(), text.as_ptr(), title.as_ptr(), MB_OK | MB_ICONWARNING | MB_SETFOREGROUND)
    };
}

/// Whether something was given to write to.
pub fn leads_somewhere(which: STD_HANDLE) -> bool {
    // SAFETY: takes no memory of ours.
    let handle = unsafe { GetStdHandle(which) };
    !handle.is_null() && handle != INVALID_HANDLE_VALUE
}

/// Whether this process has a console, which its children then share.
pub fn has_console() -> bool {
    // SAFETY: takes no memory of ours.
    unsafe { GetConsoleCP() != 0 }
}
