//! Small programs with functions that call each other and refer to data, for each format that patches understand.

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    ElfX86,
    ElfArm64,
    PeX86,
}

impl Machine {
    pub const ALL: [Self; 3] = [Self::ElfX86, Self::ElfArm64, Self::PeX86];
}

const HEADER_BYTES: usize = 0x400;
const CODE_ADDRESS: u64 = 0x1_4000_1000;

/// A program: functions that may be moved by inserting bytes into them.
#[derive(Debug, Clone)]
pub struct Program {
    machine: Machine,
    bodies: Vec<Vec<u8>>,
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes
}

impl Program {
    pub fn new(machine: Machine, functions: usize) -> Self {
        // Bytes below 0x60 look like no opcode that takes an operand; words of them like no ARM64 reference.
        let body = |number: usize| noise(number as u64 + 1, 48).into_iter().map(|byte| byte % 0x30 + 0x30).collect();
        Self { machine, bodies: (0..functions).map(body).collect() }
    }

    /// Makes a function longer: all behind it move.
    pub fn insert(&mut self, function: usize, bytes: usize) {
        let new = noise(function as u64 + 77, bytes).into_iter().map(|byte| byte % 0x30 + 0x30);
        self.bodies[function].splice(16..16, new);
    }

    /// The file.
    pub fn image(&self) -> Vec<u8> {
        let count = self.bodies.len();
        // Each function ends with a call and a reference to data.
        let references = 12;
        let mut starts = Vec::with_capacity(count);
        let mut address = CODE_ADDRESS;
        for body in &self.bodies {
            starts.push(address);
            address += body.len() as u64 + references;
        }
        let data_address = (address + 0xffff) & !0xfff;
        let mut code = Vec::new();
        for (number, body) in self.bodies.iter().enumerate() {
            let here = starts[number] + body.len() as u64;
            let callee = starts[(number * 7919 + 13) % count];
            let datum = data_address + (number as u64 * 8);
            code.extend_from_slice(body);
            match self.machine {
                Machine::ElfArm64 => arm64(&mut code, here, callee, datum),
                Machine::ElfX86 | Machine::PeX86 => x86(&mut code, here, callee, datum),
            }
        }
        let mut data = Vec::new();
        for number in 0..count {
            data.extend_from_slice(&starts[(number * 31 + 5) % count].to_le_bytes());
        }
        let code_bytes = code.len();
        let mut image = match self.machine {
            Machine::PeX86 => pe(code_bytes, data_address, data.len()),
            Machine::ElfX86 => elf(62, code_bytes, data_address, data.len()),
            Machine::ElfArm64 => elf(183, code_bytes, data_address, data.len()),
        };
        image.resize(HEADER_BYTES, 0);
        image.extend_from_slice(&code);
        image.extend_from_slice(&data);
        image
    }
}

/// `call callee; lea rax, [rip + datum]`.
fn x86(code: &mut Vec<u8>, here: u64, callee: u64, datum: u64) {
    code.push(0xe8);
    code.extend_from_slice(&(callee.wrapping_sub(here + 5) as u32).to_le_bytes());
    code.extend_from_slice(&[0x48, 0x8d, 0x05]);
    code.extend_from_slice(&(datum.wrapping_sub(here + 12) as u32).to_le_bytes());
}

/// `bl callee; adrp x0, datum; add x0, x0, datum`.
fn arm64(code: &mut Vec<u8>, here: u64, callee: u64, datum: u64) {
    let branch = 0x9400_0000 | (callee.wrapping_sub(here) >> 2) as u32 & 0x03ff_ffff;
    let pages = (datum >> 12).wrapping_sub((here + 4) >> 12) as u32;
    let page = 0x9000_0000 | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5;
    let low = 0x9100_0000 | (datum as u32 & 0xfff) << 10;
    for word in [branch, page, low] {
        code.extend_from_slice(&word.to_le_bytes());
    }
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An ELF64 header with two loaded segments.
fn elf(machine: u16, code_bytes: usize, data_address: u64, data_bytes: usize) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    put(&mut image, 16, &2_u16.to_le_bytes());
    put(&mut image, 18, &machine.to_le_bytes());
    put(&mut image, 32, &64_u64.to_le_bytes());
    put(&mut image, 54, &56_u16.to_le_bytes());
    put(&mut image, 56, &2_u16.to_le_bytes());
    let code = (5_u32, HEADER_BYTES, CODE_ADDRESS, code_bytes);
    let data = (6_u32, HEADER_BYTES + code_bytes, data_address, data_bytes);
    for (number, (flags, offset, address, len)) in [code, data].into_iter().enumerate() {
        let at = 64 + number * 56;
        put(&mut image, at, &1_u32.to_le_bytes());
        put(&mut image, at + 4, &flags.to_le_bytes());
        put(&mut image, at + 8, &(offset as u64).to_le_bytes());
        put(&mut image, at + 16, &address.to_le_bytes());
        put(&mut image, at + 32, &(len as u64).to_le_bytes());
        put(&mut image, at + 40, &(len as u64).to_le_bytes());
    }
    image
}

/// A PE32+ header with two sections.
fn pe(code_bytes: usize, data_address: u64, data_bytes: usize) -> Vec<u8> {
    const IMAGE_BASE: u64 = 0x1_4000_0000;
    let mut image = b"MZ".to_vec();
    put(&mut image, 0x3c, &0x80_u32.to_le_bytes());
    put(&mut image, 0x80, b"PE\0\0");
    put(&mut image, 0x84, &0x8664_u16.to_le_bytes());
    put(&mut image, 0x86, &2_u16.to_le_bytes());
    put(&mut image, 0x94, &0xf0_u16.to_le_bytes());
    put(&mut image, 0x98, &0x20b_u16.to_le_bytes());
    put(&mut image, 0x98 + 24, &IMAGE_BASE.to_le_bytes());
    let code = (0x6000_0020_u32, HEADER_BYTES, CODE_ADDRESS, code_bytes);
    let data = (0xc000_0040_u32, HEADER_BYTES + code_bytes, data_address, data_bytes);
    for (number, (flags, offset, address, len)) in [code, data].into_iter().enumerate() {
        let at = 0x98 + 0xf0 + number * 40;
        put(&mut image, at + 8, &(len as u32).to_le_bytes());
        put(&mut image, at + 12, &((address - IMAGE_BASE) as u32).to_le_bytes());
        put(&mut image, at + 16, &(len as u32).to_le_bytes());
        put(&mut image, at + 20, &(offset as u32).to_le_bytes());
        put(&mut image, at + 36, &flags.to_le_bytes());
    }
    image
}
