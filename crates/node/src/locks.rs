//! Locks that hold between two copies of SQLite in one process (locks.c).
#![expect(unsafe_code, reason = "a function of C sets SQLite up")]

use std::sync::OnceLock;

use libsqlite3_sys::SQLITE_OK;

use crate::failure::Failure;

#[cfg(unix)]
unsafe extern "C" {
    fn syncline_locks_apart() -> std::ffi::c_int;
}

/// Has the SQLite of this addon take locks that others in this process see, and leave theirs
/// alone. To be called before a file is opened.
pub(crate) fn keep_apart() -> Result<(), Failure> {
    static DONE: OnceLock<i32> = OnceLock::new();
    match *DONE.get_or_init(set_up) {
        SQLITE_OK => Ok(()),
        code => Err(Failure::new(
            "locks",
            "file",
            format!(
                "this system cannot keep two copies of SQLite apart in one process (SQLite's \
                 result {code}); run `syncline sync FILE --watch` beside the program instead"
            ),
        )),
    }
}

#[cfg(unix)]
fn set_up() -> i32 {
    // SAFETY: it takes nothing and changes SQLite's table of system calls, once, before this copy
    // of SQLite has opened a file: every path to the library begins with `keep_apart`.
    unsafe { syncline_locks_apart() }
}

/// Elsewhere locks belong to an open file already.
#[cfg(not(unix))]
fn set_up() -> i32 {
    SQLITE_OK
}
