//! What stands between the guest and the server: a proxy that counts what comes out of packs, and stops after so many bytes,
//! as a server does that is too slow to be told from a dead one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Nothing: whoever asks is refused.
    Closed,
    /// Everything.
    Open,
    /// Metadata, and so many bytes of answers about packs; then silence.
    Packs(u64),
}

/// A proxy to one server.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    opening: Opening,
    /// Which opening this is: connections of an earlier one are over.
    number: u64,
    /// Bytes of answers about packs so far.
    passed: u64,
    stalled: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Gate {
    /// A gate before the server at `server` (host and port), closed.
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { opening: Opening::Closed, number: 0, passed: 0, stalled: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (server, passing) = (server.to_owned(), Arc::clone(&shared));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (server, shared) = (server.clone(), Arc::clone(&passing));
                // A connection that fails is seen by whoever made it.
                std::thread::spawn(move || pass(connection, &server, &shared));
            }
        });
        Self { address, shared }
    }

    /// What `http_proxy` is set to in a guest.
    pub fn guest_url(&self) -> String {
        format!("http://10.0.2.2:{}", self.address.port())
    }

    /// From now on this passes.
    pub fn set(&self, opening: Opening) {
        let mut state = self.shared.state();
        *state = State { opening, number: state.number + 1, passed: 0, stalled: false };
        self.shared.changed.notify_all();
    }

    /// Bytes of answers about packs since it was set.
    pub fn passed(&self) -> u64 {
        self.shared.state().passed
    }

    /// Whether somebody waits for bytes that do not pass.
    pub fn is_stalled(&self) -> bool {
        self.shared.state().stalled
    }
}

/// Passes one connection on: a tunnel (`CONNECT`), or a request that names its server.
fn pass(connection: TcpStream, server: &str, shared: &Shared) -> std::io::Result<()> {
    let number = {
        let state = shared.state();
        if state.opening == Opening::Closed {
            return connection.shutdown(Shutdown::Both);
        }
        state.number
    };
    let mut from = BufReader::new(connection.try_clone()?);
    let mut request = String::new();
    from.read_line(&mut request)?;
    let mut to = TcpStream::connect(server)?;
    let mut packs = request.contains("/packs/");
    let is_tunnel = request.starts_with("CONNECT ");
    if is_tunnel {
        let mut line = String::new();
        while from.read_line(&mut line)? > 2 {
            line.clear();
        }
        (&connection).write_all(b"HTTP/1.1 200 here you are\r\n\r\n")?;
    } else {
        // `GET http://10.0.2.2:8000/x HTTP/1.1`: what stands before the path is not the server's business.
        let (method, rest) = request.split_once(' ').unwrap_or(("GET", &request));
        let path = rest.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(rest);
        to.write_all(format!("{method} {path}").as_bytes())?;
    }
    let asked = Arc::new(std::sync::atomic::AtomicBool::new(packs));
    let (asking, mut there) = (Arc::clone(&asked), to.try_clone()?);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if String::from_utf8_lossy(&buffer[..n]).contains("/packs/") {
                asking.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            if there.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // The other side may be gone by now.
        let _ = there.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 4 << 10];
    loop {
        let n = to.read(&mut buffer)?;
        if n == 0 {
            return connection.shutdown(Shutdown::Both);
        }
        packs |= asked.load(std::sync::atomic::Ordering::SeqCst);
        let allowed = if packs { allow(shared, number, n) } else { n };
        (&connection).write_all(&buffer[..allowed])?;
        if allowed < n {
            let mut state = shared.state();
            state.stalled |= state.number == number;
            shared.changed.notify_all();
            while state.number == number {
                state = shared.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            return connection.shutdown(Shutdown::Both);
        }
    }
}

/// How many of `n` bytes may pass.
fn allow(shared: &Shared, number: u64, n: usize) -> usize {
    let mut state = shared.state();
    if state.number != number {
        return 0;
    }
    let allowed = match state.opening {
        Opening::Packs(most) => usize::try_from(most.saturating_sub(state.passed)).unwrap_or(n).min(n),
        Opening::Open | Opening::Closed => n,
    };
    state.passed += allowed as u64;
    allowed
}
