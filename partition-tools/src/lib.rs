//! Builds, writes, checks, reads and mends device images and devices.
