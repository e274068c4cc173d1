//! Keys, publishing, and reading of a static, encrypted, deduplicated release store.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
