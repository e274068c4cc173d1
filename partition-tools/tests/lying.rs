//! `write` onto devices that claim more than they have, or lose what is written to them. What real ones do at will, here a disk
//! does on demand.

mod support;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::sim::{Medium, SimDisk, figures};
use firmware_image::{RawZone, ZoneError};
use partition_tools::ToolError;
use partition_tools::progress::Silent;
use partition_tools::write::{Plan, Written};
use support::Product;

/// How a device lies.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// Not at all.
    None,
    /// What is behind this byte is put where it stands modulo that.
    WrapsAt(u64),
    /// What is written behind this byte is dropped.
    DropsBehind(u64),
    /// This write is dropped, counted from 0.
    Loses(usize),
}

struct Liar {
    disk: SimDisk,
    lie: Lie,
    length: u64,
    position: u64,
    writes: usize,
}

impl Liar {
    fn new(claimed: u64, lie: Lie) -> Self {
        Self { disk: SimDisk::new(Medium::zeros(claimed)), lie, length: claimed, position: 0, writes: 0 }
    }

    /// What of `length` bytes at the position stands together on the medium, and where.
    fn place(&self, length: usize) -> (u64, usize) {
        let length = length.min((self.length - self.position) as usize);
        match self.lie {
            Lie::WrapsAt(end) => {
                let at = self.position % end;
                (at, length.min((end - at) as usize))
            }
            _ => (self.position, length),
        }
    }
}

impl ErrorType for Liar {
    type Error = ZoneError;
}

impl Read for Liar {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let (at, take) = self.place(buf.len());
        self.disk.seek(SeekFrom::Start(at))?;
        let n = self.disk.read(&mut buf[..take])?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for Liar {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let (at, mut take) = self.place(buf.len());
        let number = self.writes;
        self.writes += 1;
        let kept = match self.lie {
            Lie::DropsBehind(end) => {
                take = if at < end { take.min((end - at) as usize) } else { take };
                at < end
            }
            Lie::Loses(lost) => number != lost,
            _ => true,
        };
        if kept {
            self.disk.seek(SeekFrom::Start(at))?;
            self.disk.write(&buf[..take])?;
        }
        self.position += take as u64;
        Ok(take)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        self.disk.flush()
    }
}

impl Seek for Liar {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = firmware_image::storage::seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

impl RawZone for Liar {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.length)
    }
}

/// Writes onto such a device: what came of it, what stands there, and how many writes it took.
fn written(plan: &Plan<'_>, claimed: u64, lie: Lie) -> (Result<Written, ToolError>, Medium, usize) {
    let mut liar = Liar::new(claimed, lie);
    let result = plan.carry_out(&mut liar, &mut Silent);
    (result, liar.disk.medium(), liar.writes)
}

#[test]
fn a_device_that_has_less_than_it_claims_is_found_out_however_little_is_written_to_it() {
    let product = Product::new();
    product.create("device.img", &[]);
    let request = product.request();
    let plan = Plan::make(&request).unwrap();
    let (image, mib) = (200 << 20, 1 << 20);
    assert!(written(&plan, image, Lie::None).0.is_ok());
    let mut tried = 0;
    // The claims of sticks are rarely powers of two, the ends of their addresses always.
    for claimed in [image, 256 * mib, 250 * mib + 512, 1000 * mib, 16 << 30, 64_023_257_088, 2 << 40] {
        let powers = (20..40).map(|power| 1u64 << power).filter(|end| *end < claimed);
        let wrapping = powers.map(Lie::WrapsAt);
        let behind = [64 * mib, 100 * mib, 199 * mib, claimed / 2 + 512, claimed - 2 * mib];
        for lie in wrapping.chain(behind.map(Lie::DropsBehind)) {
            let (result, ..) = written(&plan, claimed, lie);
            let error = result.expect_err(&format!("{claimed} bytes, {lie:?}")).to_string();
            assert!(error.contains("does not keep what is written to it"), "{claimed} bytes, {lie:?}: {error}");
            assert!(error.contains("do not use this device"), "{error}");
            tried += 1;
        }
    }
    println!("write: {tried} devices that have less than they claim, 0 not found out");
}

#[test]
fn a_write_that_a_device_loses_is_noticed_or_did_not_matter() {
    let product = Product::new();
    product.create("device.img", &[]);
    let request = product.request();
    let plan = Plan::make(&request).unwrap();
    let claimed = 208 << 20;
    let (result, wanted, writes) = written(&plan, claimed, Lie::None);
    result.unwrap();
    let full = std::env::var_os("HOLDFAST_FULL").is_some();
    // The last ones are the table's.
    let tried: Vec<usize> = (0..writes).filter(|number| full || number % 40 == 7 || number + 12 > writes).collect();
    let (mut noticed, mut silent) = (0, Vec::new());
    for number in &tried {
        let (result, medium, _) = written(&plan, claimed, Lie::Loses(*number));
        match result {
            Err(error) => {
                noticed += 1;
                let said = error.to_string();
                assert!(said.contains("does not keep what is written to it"), "{number}: {said}");
                let table = firmware_image::image::gpt::Table::read(SimDisk::new(medium));
                assert!(table.is_err(), "{number}: it looks like a device");
            }
            Ok(_) if medium.digest() == wanted.digest() => {}
            Ok(_) => silent.push(number),
        }
    }
    println!("write: each of {} of {writes} writes lost, {noticed} noticed", tried.len());
    figures::count(figures::CUT_STATES, "write, lost", tried.len(), silent.len());
    assert!(silent.is_empty() && noticed > tried.len() / 2, "{silent:?}");
}
