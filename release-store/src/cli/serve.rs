//! `serve`: a store over HTTP, to try things with.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use lines::{errln, outln};
use release_store::serve::{ServeOptions, serve};

/// Serve a store over HTTP, to try things with
///
/// Any file server does as well. Prints its address to stdout once it listens (port 0 takes a free one), and runs until it
/// is ended.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  release-store serve store --listen 127.0.0.1:8080 --verbose")]
pub(super) struct Serve {
    /// The store
    store: PathBuf,
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Send whole files only, as servers without ranges do
    #[arg(long)]
    no_ranges: bool,
    /// Print each request
    #[arg(long)]
    verbose: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let listener = TcpListener::bind(self.listen).with_context(|| format!("cannot listen at {}", self.listen))?;
        let options = ServeOptions { ranges: !self.no_ranges, verbose: self.verbose };
        let server = serve(listener, &self.store, options)?;
        outln!("{}", server.url());
        errln!("Serving {} until Ctrl-C.", self.store.display());
        server.wait();
        Ok(ExitCode::SUCCESS)
    }
}
