//! A disk with a mind of its own, for what QEMU's own fault injection cannot do: it may lie about its size, refuse writes
//! from a moment on, or forget what it was told.
//!
//! It speaks NBD (Network Block Device, doc/proto.md: fixed newstyle negotiation, simple replies) to QEMU over a socket.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// No request of a guest is longer.
const MAX_REQUEST_BYTES: u32 = 32 << 20;
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054; // IHAVEOPT
const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
/// Has flags, knows flushes.
const EXPORT_FLAGS: u16 = 1 | 4;
const EIO: u32 = 5;
const EPERM: u32 = 1;

/// What the disk is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temper {
    /// Bytes that it says it has.
    pub claimed_bytes: u64,
    /// Bytes that it really has. What is written behind is lost, and zeros are read there.
    pub real_bytes: u64,
    /// Bytes that cannot be written.
    pub worn_out: Range<u64>,
    /// Writes that it takes before it refuses all; `None`: any number.
    pub writes_left: Option<u64>,
}

impl Temper {
    /// An honest disk of this many bytes.
    pub fn honest(bytes: u64) -> Self {
        Self { claimed_bytes: bytes, real_bytes: bytes, worn_out: 0..0, writes_left: None }
    }
}

struct Shared {
    file: File,
    temper: Mutex<Temper>,
}

/// The disk, served until this is dropped and QEMU has hung up.
pub struct Unruly {
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl Unruly {
    /// Serves the image `disk` on a socket in `dir`.
    ///
    /// # Errors
    /// What the system reports.
    pub fn serve(disk: &Path, dir: &Path, temper: Temper) -> io::Result<Self> {
        let socket = dir.join("unruly.sock");
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let listener = UnixListener::bind(&socket)?;
        let file = OpenOptions::new().read(true).write(true).open(disk)?;
        let shared = Arc::new(Shared { file, temper: Mutex::new(temper) });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let shared = Arc::clone(&serving);
                // A connection that breaks is a pulled stick; there is nobody to tell.
                std::thread::spawn(move || shared.talk(stream));
            }
        });
        Ok(Self { socket, shared })
    }

    /// Where QEMU finds it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it is up to, to look at or to change.
    ///
    /// # Panics
    /// A thread of the disk has panicked.
    pub fn temper(&self) -> MutexGuard<'_, Temper> {
        self.shared.temper()
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        // Without its name nobody finds it any more; the thread waits in vain and ends with the process.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn temper(&self) -> MutexGuard<'_, Temper> {
        self.temper.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn talk(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        let _client_flags = read_u32(&mut stream)?;
        loop {
            if read_u64(&mut stream)? != OPTION_MAGIC {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let option = read_u32(&mut stream)?;
            let length = read_u32(&mut stream)?;
            read_bytes(&mut stream, length)?;
            if option != OPTION_GO {
                reply(&mut stream, option, REPLY_UNSUPPORTED, &[])?;
                continue;
            }
            let mut info = 0u16.to_be_bytes().to_vec();
            info.extend(self.temper().claimed_bytes.to_be_bytes());
            info.extend(EXPORT_FLAGS.to_be_bytes());
            reply(&mut stream, option, REPLY_INFO, &info)?;
            reply(&mut stream, option, REPLY_ACK, &[])?;
            break;
        }
        while self.answer(&mut stream)? {}
        Ok(())
    }

    /// Answers one request; false: it was the last.
    fn answer(&self, stream: &mut UnixStream) -> io::Result<bool> {
        if read_u32(stream)? != REQUEST_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let command = read_u32(stream)? & 0xFFFF;
        let handle = read_u64(stream)?;
        let from = read_u64(stream)?;
        let length = read_u32(stream)?;
        let mut bytes = Vec::new();
        let error = match command {
            0 => self.read(from, length, &mut bytes),
            1 => {
                let data = read_bytes(stream, length)?;
                self.write(from, &data)
            }
            2 => return Ok(false),
            _ => Ok(()),
        }
        .err()
        .unwrap_or(0);
        let mut answer = ANSWER_MAGIC.to_be_bytes().to_vec();
        answer.extend(error.to_be_bytes());
        answer.extend(handle.to_be_bytes());
        if error == 0 {
            answer.extend(bytes);
        }
        stream.write_all(&answer)?;
        Ok(true)
    }

    fn read(&self, from: u64, length: u32, into: &mut Vec<u8>) -> Result<(), u32> {
        if length > MAX_REQUEST_BYTES {
            return Err(EIO);
        }
        into.resize(length as usize, 0);
        let there = self.temper().real_bytes.saturating_sub(from).min(u64::from(length));
        let there = usize::try_from(there).map_err(|_| EIO)?;
        self.file.read_exact_at(&mut into[..there], from).map_err(|_| EIO)
    }

    fn write(&self, from: u64, data: &[u8]) -> Result<(), u32> {
        let mut temper = self.temper();
        if from < temper.worn_out.end && from + data.len() as u64 > temper.worn_out.start {
            return Err(EIO);
        }
        if let Some(left) = &mut temper.writes_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Err(EPERM),
            }
        }
        let there = temper.real_bytes.saturating_sub(from).min(data.len() as u64);
        let there = usize::try_from(there).map_err(|_| EIO)?;
        self.file.write_all_at(&data[..there], from).map_err(|_| EIO)
    }
}

fn reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).map_err(io::Error::other)?.to_be_bytes());
    bytes.extend(data);
    stream.write_all(&bytes)
}

fn read_u32(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_bytes(stream: &mut UnixStream, length: u32) -> io::Result<Vec<u8>> {
    if length > MAX_REQUEST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
