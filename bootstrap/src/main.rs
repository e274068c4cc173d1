//! The launcher: checks the updater, restores it, runs it, then runs the client.
fn main() {}
