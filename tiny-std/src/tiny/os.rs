//! Names that std has for Unix alone.

pub mod fd {
    pub use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

pub mod unix {
    pub mod ffi {
        pub use crate::ffi::OsStrExt;
    }
    pub mod fs {
        pub use crate::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
    }
}
