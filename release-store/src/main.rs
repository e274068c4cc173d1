//! Keys, publishing, and reading of a static, encrypted, deduplicated release store.
fn main() {}
