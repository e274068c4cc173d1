//! The way from an address in a device's configuration to a server on this machine: a proxy on loopback, so that a device
//! whose configuration names a guest's address can be judged on the host. Everything that is asked goes to one server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};

/// A proxy, for as long as this process lives.
#[derive(Debug)]
pub struct Proxy(SocketAddr);

/// A proxy's address that leads nowhere: whoever asks is refused at once.
pub fn nowhere() -> String {
    // Port 1 (tcpmux) is nobody's.
    "http://127.0.0.1:1".into()
}

impl Proxy {
    /// A proxy to the server at `address` (host and port).
    ///
    /// # Errors
    /// No port is free.
    pub fn to(address: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port is free on loopback")?;
        let own = listener.local_addr()?;
        let address = address.to_owned();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let address = address.clone();
                // A connection that fails is seen by whoever made it.
                std::thread::spawn(move || pass(connection, &address));
            }
        });
        Ok(Self(own))
    }

    /// What `http_proxy` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

/// Passes one connection on: a tunnel (`CONNECT`), or a request that names its server.
fn pass(connection: TcpStream, address: &str) -> Result<()> {
    let mut from = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while from.read_line(&mut head)? > 2 {}
    let mut to = TcpStream::connect(address)?;
    let mut back = connection.try_clone()?;
    if head.starts_with("CONNECT ") {
        back.write_all(b"HTTP/1.1 200 here you are\r\n\r\n")?;
    } else {
        // `GET http://10.0.2.2:8000/store/x HTTP/1.1`: what stands before the path is not the server's business.
        let (method, rest) = head.split_once(' ').context("no request")?;
        let path = rest.strip_prefix("http://").and_then(|rest| Some(&rest[rest.find('/')?..])).unwrap_or(rest);
        to.write_all(format!("{method} {path}").as_bytes())?;
    }
    let mut there = to.try_clone()?;
    let forth = std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 || there.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // The other side may be gone by now.
        let _ = there.shutdown(Shutdown::Write);
    });
    std::io::copy(&mut to, &mut back)?;
    back.shutdown(Shutdown::Both)?;
    // It ends with its connection.
    let _ = forth.join();
    Ok(())
}
