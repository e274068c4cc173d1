//! Files served to peers on loopback by nginx, which knows every kind of range, and what it was asked for.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::system;

/// A running server; it ends with this.
pub struct Http {
    child: Child,
    log: PathBuf,
    /// Its address.
    pub url: String,
}

impl Http {
    /// Serves the files below `root`; `home` is for what the server needs itself.
    pub fn start(root: &Path, home: &Path) -> Result<Self> {
        let nginx = system::find("nginx").context("nginx is not installed")?;
        fs::create_dir_all(home)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (at, log) = (home.display(), home.join("access.log"));
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; master_process off; {user} pid {at}/pid; error_log {at}/error.log;\n\
             events {{ }}\n\
             http {{\n\
             log_format sent '$request_method $uri $http_range $status $body_bytes_sent';\n\
             access_log {at}/access.log sent;\n\
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen 127.0.0.1:{port}; root {}; }}\n\
             }}\n",
            root.display()
        );
        let path = home.join("nginx.conf");
        fs::write(&path, config)?;
        let mut serve = Command::new(nginx);
        serve.arg("-c").arg(&path).arg("-p").arg(home).stdin(Stdio::null()).stdout(Stdio::null());
        let child = serve.stderr(fs::File::create(home.join("said"))?).spawn().context("cannot start nginx")?;
        let server = Self { child, log, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nginx does not listen: {}", fs::read_to_string(home.join("said"))?.trim())
    }

    /// Requests answered and bytes of bodies sent so far.
    pub fn total(&self) -> Result<(usize, u64)> {
        let mut log = String::new();
        // A line is written when the answer has gone out: shortly after the client has it.
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let more = fs::read_to_string(&self.log)?;
            if more.len() == log.len() {
                break;
            }
            log = more;
        }
        let sent = log.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(sent.fold((0, 0), |(requests, bytes), more| (requests + 1, bytes + more)))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
