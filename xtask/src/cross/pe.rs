//! What a PE file needs of the Windows that runs it (Microsoft, "PE Format").

use anyhow::{Context as _, Result, bail};

/// Libraries that are part of every Windows from 10 on.
const SYSTEM: &[&str] = &[
    "advapi32.dll",
    "api-ms-win-core-synch-l1-2-0.dll",
    "bcrypt.dll",
    "bcryptprimitives.dll",
    "cfgmgr32.dll",
    "crypt32.dll",
    "kernel32.dll",
    "msvcrt.dll",
    "ntdll.dll",
    "user32.dll",
    "userenv.dll",
    "ws2_32.dll",
];
/// The value of `Magic` for 64-bit programs.
const PE32_PLUS: u64 = 0x20b;
/// `IMAGE_SUBSYSTEM_…`.
const WINDOWS_GUI: u64 = 2;
const WINDOWS_CUI: u64 = 3;
/// The directories of libraries that are linked at the start and at the first call, with the size of an entry and where the
/// library's name stands in it.
const IMPORTS: (usize, usize, usize) = (1, 20, 12);
const DELAYED_IMPORTS: (usize, usize, usize) = (13, 32, 4);
/// More libraries than any program of ours has.
const MAX_LIBRARIES: usize = 64;

/// Whether a 64-bit program runs on any Windows by itself, with a console of its own only where it is to have one.
///
/// # Errors
/// It is no such program, or asks for a library of others.
pub fn check(program: &[u8], has_console: bool) -> Result<()> {
    let file = File::open(program)?;
    match (file.number(file.optional + 68, 2)?, has_console) {
        (WINDOWS_GUI, false) | (WINDOWS_CUI, true) => {}
        (WINDOWS_GUI, true) => bail!("has no console"),
        (WINDOWS_CUI, false) => bail!("opens a console"),
        (other, _) => bail!("is for subsystem {other}"),
    }
    for table in [IMPORTS, DELAYED_IMPORTS] {
        for library in file.libraries(table)? {
            if !SYSTEM.contains(&library.to_ascii_lowercase().as_str()) {
                bail!("asks for {library}");
            }
        }
    }
    Ok(())
}

struct File<'a> {
    bytes: &'a [u8],
    /// Where the optional header begins.
    optional: usize,
    /// Of each section: its first address, its bytes in the file, and where these begin.
    sections: Vec<[usize; 3]>,
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut file = Self { bytes, optional: 0, sections: Vec::new() };
        let header = usize::try_from(file.number(0x3c, 4)?)?;
        if !bytes.starts_with(b"MZ") || bytes.get(header..header + 4) != Some(b"PE\0\0") {
            bail!("no PE file");
        }
        file.optional = header + 24;
        if file.number(file.optional, 2)? != PE32_PLUS {
            bail!("no 64-bit program");
        }
        let table = file.optional + usize::try_from(file.number(header + 20, 2)?)?;
        for i in 0..usize::try_from(file.number(header + 6, 2)?)? {
            let field = |at| Ok::<_, anyhow::Error>(usize::try_from(file.number(table + i * 40 + at, 4)?)?);
            let section = [field(12)?, field(16)?, field(20)?];
            file.sections.push(section);
        }
        Ok(file)
    }

    fn number(&self, at: usize, bytes: usize) -> Result<u64> {
        let field = self.bytes.get(at..at + bytes).context("cut short")?;
        Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Where in the file an address is.
    fn place(&self, address: u64) -> Result<usize> {
        let address = usize::try_from(address)?;
        let holds = |[start, length, _]: &&[usize; 3]| (*start..start + length).contains(&address);
        let [start, _, at] = self.sections.iter().find(holds).context("an address outside of the file")?;
        Ok(at + (address - start))
    }

    /// The names in a table of imports.
    fn libraries(&self, (directory, entry_bytes, name): (usize, usize, usize)) -> Result<Vec<String>> {
        let mut found = Vec::new();
        // A program may end its list of directories before this one.
        if self.number(self.optional + 108, 4)? <= directory as u64 {
            return Ok(found);
        }
        let table = self.number(self.optional + 112 + directory * 8, 4)?;
        if table == 0 {
            return Ok(found);
        }
        let table = self.place(table)?;
        for i in 0..MAX_LIBRARIES {
            let address = self.number(table + i * entry_bytes + name, 4)?;
            if address == 0 {
                return Ok(found);
            }
            let name = self.bytes.get(self.place(address)?..).context("cut short")?;
            let end = name.iter().position(|byte| *byte == 0).context("a name without an end")?;
            found.push(String::from_utf8_lossy(&name[..end]).into_owned());
        }
        bail!("asks for more than {MAX_LIBRARIES} libraries")
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    /// A program with one section, which imports from one library.
    fn program(subsystem: u16, library: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, b"MZ");
        put(0x3c, &[0x40]);
        put(0x40, b"PE\0\0");
        // One section, behind an optional header of 240 bytes.
        put(0x46, &[1]);
        put(0x54, &[240]);
        put(0x58, &[0x0b, 2]);
        put(0x58 + 68, &subsystem.to_le_bytes());
        put(0x58 + 108, &[16]);
        put(0x58 + 112 + 8, &0x1010_u32.to_le_bytes());
        let section = 0x58 + 240;
        put(section + 12, &0x1000_u32.to_le_bytes());
        put(section + 16, &0x200_u32.to_le_bytes());
        put(section + 20, &0x200_u32.to_le_bytes());
        put(0x210 + 12, &0x1080_u32.to_le_bytes());
        put(0x280, library);
        bytes
    }

    #[test]
    fn only_the_systems_own_libraries_and_the_right_subsystem_pass() {
        assert!(check(&program(2, b"KERNEL32.dll"), false).is_ok());
        assert!(check(&program(3, b"ntdll.dll"), true).is_ok());
        let said = |subsystem, library: &[u8], has_console| {
            check(&program(subsystem, library), has_console).unwrap_err().to_string()
        };
        assert_eq!(said(3, b"kernel32.dll", false), "opens a console");
        assert_eq!(said(2, b"kernel32.dll", true), "has no console");
        assert_eq!(said(2, b"libgcc_s_seh-1.dll", false), "asks for libgcc_s_seh-1.dll");
        assert!(check(b"\x7fELF", false).is_err());
        for length in [0x30, 0x50, 0x100, 0x21f, 0x283] {
            assert!(check(&program(2, b"KERNEL32.dll")[..length], false).is_err(), "{length}");
        }
    }
}
