//! Checks, downloads, stages, commits, repairs and rolls back the client on a device.
