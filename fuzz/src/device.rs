//! What a device carries: configuration, updater images, the hidden zone, the journal, the launcher's note.

use std::cell::RefCell;
use std::sync::LazyLock;

use embedded_io::Read as _;
use firmware_image::backup::Index;
use firmware_image::device_config::DeviceConfig;
use firmware_image::host::DirZone;
use firmware_image::journal::{JOURNAL_SLOT_BYTES, Journal};
use firmware_image::key_slot::{Cost, Identity, SlotKind};
use firmware_image::launcher_note::{LauncherNote, MAX_NOTE_BYTES};
use firmware_image::places::Scratch;
use firmware_image::record::VersionRecord;
use firmware_image::region;
use firmware_image::seal::Secret;
use firmware_image::signature::{Domain, SIGNATURE_BYTES, SigningKey};
use firmware_image::slot::{self, Body, HEADER_BYTES, Header, Kind, OpenSlot, SEGMENT_BUFFER_BYTES};
use firmware_image::storage::{MemoryZone, RawZone as _, SliceReader};
use firmware_image::updater_image::{self, KeyCertificate, MAX_TRAILER_BYTES};
use firmware_image::{FreeZone as _, ZoneError, paths};

static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

fn vendor() -> &'static SigningKey {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[1; 32]));
    &KEY
}

/// A configuration as it is; then its body, signed by the vendor.
pub fn device_config(data: &[u8]) {
    const HEAD: usize = 16;
    let public = vendor().public();
    look_at(DeviceConfig::open(data, &public).ok());
    let Some(body) = data.get(HEAD..data.len().saturating_sub(SIGNATURE_BYTES)) else { return };
    let mut signed = data[..HEAD].to_vec();
    signed[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    signed.extend_from_slice(body);
    let signature = vendor().sign(Domain::DeviceConfig, &signed);
    signed.extend_from_slice(&signature);
    look_at(DeviceConfig::open(&signed, &public).ok());
}

fn look_at(config: Option<DeviceConfig<'_>>) {
    if let Some(config) = config {
        let _ = (config.client_command("linux-x86_64"), config.secret(), format!("{config:?}"));
        // What was read can be written again, and says the same.
        let mut out = vec![0; firmware_image::device_config::MAX_CONFIG_BYTES];
        if let Ok(bytes) = config.sign(vendor(), &mut out) {
            assert!(DeviceConfig::open(bytes, &vendor().public()).unwrap() == config);
        }
    }
}

/// An image as it is; then its end taken for the body of a trailer that a certified key signed.
pub fn updater_image(data: &[u8]) {
    static KEY: LazyLock<(SigningKey, KeyCertificate)> = LazyLock::new(|| {
        let key = SigningKey::from_seed(&[2; 32]);
        let certificate = KeyCertificate::issue(vendor(), 1, key.public());
        (key, certificate)
    });
    let public = vendor().public();
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let mut file = SliceReader::new(data);
    if let Ok(bytes) = updater_image::read_trailer(&mut file, data.len() as u64, &mut buffer) {
        if let Ok(trailer) = updater_image::authenticate(bytes, &public) {
            let mut blocks = [0; 4096];
            let _ = trailer.verify_image(&mut file, data.len() as u64, &mut blocks);
        }
        // The same bytes, signed anew.
        let mut signed = bytes.to_vec();
        let end = signed.len() - SIGNATURE_BYTES - 8;
        let signature = KEY.0.sign(Domain::UpdaterTrailer, &signed[..end]);
        signed[end..end + SIGNATURE_BYTES].copy_from_slice(&signature);
        let _ = &KEY.1;
        if let Ok(trailer) = updater_image::authenticate(&signed, &public) {
            let _ = (trailer.is_for("Field Handbook", "linux-x86_64"), format!("{:?}", trailer.body()));
            let mut blocks = [0; 4096];
            let _ = trailer.verify_image(&mut file, data.len() as u64, &mut blocks);
        }
    }
}

/// Plaintext to be sealed.
struct Plain<'a>(&'a [u8]);

impl Body for Plain<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        let at = offset as usize;
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }
}

/// A slot as it is and with its checksum right; then the bytes behind the header as what a slot holds: a record, an index.
pub fn hidden_zone(data: &[u8]) {
    thread_local! {
        static SCRATCH: RefCell<Box<Scratch>> = RefCell::new(Box::new(Scratch::new()));
        static IDENTITY: Identity = SCRATCH.with_borrow_mut(|scratch| {
            Identity::mint(&[4; 64], Cost::UNATTENDED, &Secret::new([3; 32]), &mut scratch.blocks).unwrap()
        });
    }
    let mut zone = data.to_vec();
    for mended in [false, true] {
        if mended && zone.len() >= HEADER_BYTES {
            let crc = CRC.checksum(&zone[..HEADER_BYTES - 4]);
            zone[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
        for kind in [Kind::Record, Kind::Backup] {
            let Ok(header) = Header::read(&mut MemoryZone::new(&mut zone), kind) else { continue };
            assert!(header.slot_bytes().unwrap() <= zone.len() as u64);
            for key_slot in header.key_slots() {
                if key_slot.kind() != Some(SlotKind::Passphrase) {
                    let _ = key_slot.cost();
                }
            }
            SCRATCH.with_borrow_mut(|scratch| {
                let _ = header.unlock(&[3; 32], &mut scratch.blocks);
                IDENTITY.with(|identity| {
                    let zone = MemoryZone::new(&mut zone);
                    let mut open = OpenSlot::new(zone, kind, header.clone(), identity, &mut scratch.segment);
                    let _ = open.verify();
                });
            });
        }
    }
    let body = data.get(HEADER_BYTES..).unwrap_or(data);
    if let Ok(record) = VersionRecord::decode(body) {
        let mut out = vec![0; firmware_image::record::MAX_RECORD_BYTES + 1024];
        if let Ok(bytes) = record.encode(&mut out) {
            assert_eq!(VersionRecord::decode(bytes).unwrap(), record);
        }
        let _ = record.floors(&vendor().public(), "Field Handbook");
    }
    let _ = Index::read(&mut SliceReader::new(body), body.len() as u64);
    // Sealed and opened again, it is what it was.
    IDENTITY.with(|identity| {
        let mut sealed = vec![0; slot::slot_bytes(body.len() as u64, 12) as usize];
        let write = slot::Write { kind: Kind::Record, generation: 1, identity, segment_log2: 12 };
        let mut buffer = vec![0; SEGMENT_BUFFER_BYTES];
        let buffer: &mut [u8; SEGMENT_BUFFER_BYTES] = buffer.as_mut_slice().try_into().unwrap();
        write.write(&mut MemoryZone::new(&mut sealed), &mut Plain(body), buffer).unwrap();
        let header = Header::read(&mut MemoryZone::new(&mut sealed), Kind::Record).unwrap();
        let mut open = OpenSlot::new(MemoryZone::new(&mut sealed), Kind::Record, header, identity, buffer);
        let mut plain = vec![0; body.len()];
        let mut at = 0;
        while at < plain.len() {
            at += open.read(&mut plain[at..]).unwrap();
        }
        assert!(plain == body);
    });
}

/// A slot of a journal, as it is and with its checksum right.
pub fn journal(data: &[u8]) {
    let mut slot = [0; JOURNAL_SLOT_BYTES];
    let length = data.len().min(slot.len());
    slot[..length].copy_from_slice(&data[..length]);
    let _ = Journal::decode(&slot);
    let crc_at = JOURNAL_SLOT_BYTES - 4;
    let crc = CRC.checksum(&slot[..crc_at]);
    slot[crc_at..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(Some(journal)) = Journal::decode(&slot) {
        assert_eq!(Journal::decode(&journal.encode()).unwrap().unwrap().state(), journal.state());
    }
}

/// A launcher's note, as it is and with its checksum right.
pub fn launcher_note(data: &[u8]) {
    thread_local! {
        static ZONE: (tempfile::TempDir, DirZone) = {
            let memory = std::path::Path::new("/dev/shm");
            let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
            let zone = DirZone::open(dir.path()).unwrap();
            zone.create_dir_all(paths::STATE_DIR).unwrap();
            (dir, zone)
        };
    }
    ZONE.with(|(dir, zone)| {
        let mut note = data[..data.len().min(MAX_NOTE_BYTES)].to_vec();
        for mended in [false, true] {
            if mended {
                note.resize(MAX_NOTE_BYTES, 0);
                let crc = CRC.checksum(&note[4..]);
                note[..4].copy_from_slice(&crc.to_le_bytes());
            }
            std::fs::write(dir.path().join(paths::LAUNCHER_NOTE), &note).unwrap();
            let read = LauncherNote::read(zone).unwrap();
            read.write(zone).unwrap();
            assert!(LauncherNote::read(zone).unwrap() == read);
        }
    });
}

/// A region of flash: as it is, and with a checksum that fits.
pub fn region(data: &[u8]) {
    let mut zone = data.to_vec();
    for mended in [false, true] {
        if mended && zone.len() >= region::FOOTER_BYTES {
            let (footer, end) = (zone.len() - region::FOOTER_BYTES, zone.len());
            zone[footer..footer + 8].copy_from_slice(&region::FOOTER_MAGIC);
            let crc = CRC.checksum(&zone[footer..end - 4]);
            zone[end - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        let mut out = [0; 512];
        let read = region::read(&mut MemoryZone::new(&mut zone), &mut out).map(<[u8]>::len);
        let Ok(length) = region::file_bytes(&mut MemoryZone::new(&mut zone)) else {
            assert!(read.is_err());
            continue;
        };
        assert!(length as usize + region::FOOTER_BYTES <= zone.len());
        assert_eq!(read.is_ok(), length as usize <= out.len());
        let mut file = region::file(MemoryZone::new(&mut zone)).unwrap();
        assert_eq!(file.len().unwrap(), length);
        let mut head = [0; MAX_TRAILER_BYTES];
        let _ = updater_image::read_trailer(&mut file, length, &mut head);
    }
}
