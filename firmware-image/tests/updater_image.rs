//! Updater images: only what this vendor signed, for this product and platform, whole, is accepted.

mod common;

use common::*;
use firmware_image::Digest;
use firmware_image::paths::MAX_PLATFORM_BYTES;
use firmware_image::signature::SigningKey;
use firmware_image::storage::SliceReader;
use firmware_image::updater_image::{
    self, Floors, ImageError, KeyCertificate, MAX_IMAGE_BYTES, MAX_PRODUCT_BYTES, MAX_TRAILER_BYTES, TrailerBody,
    UpdaterVersion, authenticate, read_trailer, verify_bytes,
};

fn accepted(image: &[u8]) -> Result<UpdaterVersion, ImageError> {
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = verify_bytes(image, &vendor().public(), &mut buffer)?;
    trailer.is_for(PRODUCT, PLATFORM)?;
    Ok(trailer.body().version)
}

#[test]
fn a_signed_image_is_accepted_and_says_what_it_is() {
    let image = image("1.2.3", 10_001);
    assert_eq!(accepted(&image), Ok(UpdaterVersion { major: 1, minor: 2, patch: 3 }));
    assert_eq!(firmware_image::stamp::stamped_key(&image).unwrap(), Some(vendor().public()));
}

#[test]
fn no_flipped_byte_is_accepted() {
    let image = image("1.2.3", 2_000);
    for at in 0..image.len() {
        for bit in [0x01, 0x80] {
            let mut bad = image.clone();
            bad[at] ^= bit;
            assert!(accepted(&bad).is_err(), "byte {at} flipped by {bit:#x} was accepted");
        }
    }
}

#[test]
fn no_truncated_or_lengthened_image_is_accepted() {
    let image = image("1.2.3", 2_000);
    for length in 0..image.len() {
        assert!(accepted(&image[..length]).is_err(), "cut to {length} was accepted");
    }
    let mut longer = image.clone();
    longer.extend_from_slice(&[0; 8]);
    assert!(accepted(&longer).is_err());
    let mut doubled = image.clone();
    doubled.extend_from_slice(&image);
    assert!(accepted(&doubled).is_err());
}

#[test]
fn another_vendors_products_or_platforms_image_is_refused_by_name() {
    let image = image("1.0.0", 2_000);
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let other = SigningKey::from_seed(&[9; 32]).public();
    assert_eq!(verify_bytes(&image, &other, &mut buffer).err(), Some(ImageError::ForeignKey));
    let trailer = verify_bytes(&image, &vendor().public(), &mut buffer).unwrap();
    assert_eq!(trailer.is_for("Other", PLATFORM), Err(ImageError::WrongProduct));
    assert_eq!(trailer.is_for(PRODUCT, "linux-aarch64"), Err(ImageError::WrongPlatform));
}

#[test]
fn a_key_without_a_certificate_signs_nothing() {
    let stranger = SigningKey::from_seed(&[9; 32]);
    let self_made = KeyCertificate::issue(&stranger, 1, stranger.public());
    for (certificate, key, reason) in
        [(self_made, &stranger, ImageError::ForeignKey), (certificate(), &stranger, ImageError::BadSignature)]
    {
        let mut program = program(2_000);
        let mut out = [0; MAX_TRAILER_BYTES];
        let trailer =
            updater_image::make_trailer(&program, &statement("1.0.0"), &certificate, key, &mut out).unwrap().to_vec();
        program.extend_from_slice(&trailer);
        assert_eq!(accepted(&program), Err(reason));
    }
}

#[test]
fn floors_refuse_an_older_version_and_an_older_key() {
    let image = image("1.2.3", 2_000);
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = verify_bytes(&image, &vendor().public(), &mut buffer).unwrap();
    let version = |text| UpdaterVersion::parse(text).unwrap();
    assert!(trailer.is_above(&Floors { version: version("1.2.3"), key_serial: 1 }).is_ok());
    assert!(trailer.is_above(&Floors { version: version("1.2.4"), key_serial: 1 }).is_err());
    assert!(trailer.is_above(&Floors { version: version("0.0.0"), key_serial: 2 }).is_err());
}

#[test]
fn a_trailer_from_one_image_does_not_fit_another() {
    let one = image("1.0.0", 2_000);
    let other = image("2.0.0", 2_000);
    let mut mixed = one[..2_000].to_vec();
    mixed.extend_from_slice(&other[2_000..]);
    assert_eq!(accepted(&mixed).is_ok(), one[..2_000] == other[..2_000], "same bytes, newer statement");
    mixed[500] ^= 1;
    assert_eq!(accepted(&mixed), Err(ImageError::Damaged));
}

/// A 64-bit PE of `length` bytes: only the fields that matter here.
fn pe_program(length: usize) -> Vec<u8> {
    let mut bytes = program(length);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60..64].copy_from_slice(&256u32.to_le_bytes());
    bytes[256..260].copy_from_slice(b"PE\0\0");
    bytes[280..282].copy_from_slice(&0x20bu16.to_le_bytes());
    bytes[280 + 64..280 + 68].fill(0);
    bytes[280 + 108..280 + 112].copy_from_slice(&16u32.to_le_bytes());
    bytes[280 + 112 + 32..280 + 112 + 40].fill(0);
    bytes
}

#[test]
fn authenticode_signing_afterwards_leaves_the_image_accepted_and_nothing_else_does() {
    let vendor_key = vendor().public();
    let image =
        updater_image::sign(pe_program(4_000), &statement("1.0.0"), &vendor_key, &certificate(), &updater_key())
            .unwrap();
    assert!(accepted(&image).is_ok());
    let mut signed = image.clone();
    signed[280 + 64..280 + 68].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
    signed[280 + 144..280 + 148].copy_from_slice(&(image.len() as u32).to_le_bytes());
    signed[280 + 148..280 + 152].copy_from_slice(&512u32.to_le_bytes());
    signed.extend_from_slice(&[7; 512]);
    assert!(accepted(&signed).is_ok(), "checksum, certificate entry and table are Authenticode's");
    let mut patched = signed.clone();
    patched[2_000] ^= 1;
    assert_eq!(accepted(&patched), Err(ImageError::Damaged));
    signed.pop();
    assert!(accepted(&signed).is_err(), "a certificate table that does not reach the end");
}

/// What is accepted as it is, and no more where a byte of a PE's checksum or certificate entry is another.
fn has_no_byte_that_may_change(program: Vec<u8>, checksum: usize) {
    let mut image = program;
    image.extend_from_slice(&trailer(&image, &statement("1.0.0")).unwrap());
    assert_eq!(accepted(&image).err(), None);
    image[checksum] ^= 1;
    assert_eq!(accepted(&image), Err(ImageError::Damaged));
}

/// The trailer of an executable that has no place for a stamp.
fn trailer(executable: &[u8], statement: &updater_image::Statement<'_>) -> Result<Vec<u8>, ImageError> {
    let mut out = [0; MAX_TRAILER_BYTES];
    let made = updater_image::make_trailer(executable, statement, &certificate(), &updater_key(), &mut out);
    made.map(<[u8]>::to_vec)
}

#[test]
fn only_a_whole_pe_header_makes_a_pe() {
    // The shortest: its header, and 240 bytes behind that.
    let (at, least) = (280, 256 + 24 + 240);
    for (magic, directories) in [(0x20b_u16, at + 112), (0x10b, at + 96)] {
        let mut program = pe_program(least);
        program[at..at + 2].copy_from_slice(&magic.to_le_bytes());
        program[directories - 4..directories].copy_from_slice(&5u32.to_le_bytes());
        let entry = directories + 32..directories + 40;
        program[entry.clone()].fill(0);
        let mut image = program.clone();
        image.extend_from_slice(&trailer(&program, &statement("1.0.0")).unwrap());
        let mut signed = image.clone();
        signed[at + 64..at + 68].fill(0xee);
        signed[entry.clone()].copy_from_slice(&[(image.len() as u32).to_le_bytes(), 8u32.to_le_bytes()].concat());
        signed.extend_from_slice(&[7; 8]);
        assert_eq!(accepted(&signed).err(), None, "{magic:#x}");
        for byte in [at + 63, at + 68, entry.start - 1, at] {
            let mut bad = signed.clone();
            bad[byte] ^= 1;
            assert!(accepted(&bad).is_err(), "{magic:#x}: byte {byte} was changed and accepted");
        }
    }
    has_no_byte_that_may_change(pe_program(least)[..least - 8].to_vec(), at + 64);
    let mut unmarked = pe_program(4_000);
    unmarked[0] = b'X';
    has_no_byte_that_may_change(unmarked, at + 64);
    // Nothing to look for a header in.
    for length in [8, 56, 64] {
        has_no_byte_that_may_change(vec![b'M'; length], length - 1);
    }
}

#[test]
fn a_pe_without_a_certificate_table_has_no_byte_that_may_change() {
    let mut program = pe_program(4_000);
    program[280 + 108..280 + 112].copy_from_slice(&4u32.to_le_bytes());
    // The program's own bytes, where other PE files have the table's entry.
    program[280 + 144..280 + 152].fill(0x55);
    let vendor_key = vendor().public();
    let image = updater_image::sign(program, &statement("1.0.0"), &vendor_key, &certificate(), &updater_key()).unwrap();
    assert!(accepted(&image).is_ok());
    for at in [280 + 64, 280 + 108, 280 + 144, 280 + 151] {
        let mut bad = image.clone();
        bad[at] ^= 1;
        assert!(accepted(&bad).is_err(), "byte {at} was changed and accepted");
    }
}

#[test]
fn floors_above_the_image_itself_are_not_signed() {
    let vendor_key = vendor().public();
    let signed = |version, key_serial| {
        let floors = Floors { version: UpdaterVersion::parse(version).unwrap(), key_serial };
        let raising = updater_image::Statement { floors, ..statement("1.2.0") };
        updater_image::sign(program(2_000), &raising, &vendor_key, &certificate(), &updater_key())
    };
    assert!(signed("1.2.0", 1).is_ok());
    for (version, key_serial) in [("1.2.1", 1), ("1.2.0", 2)] {
        let refused = signed(version, key_serial);
        assert!(matches!(refused, Err(updater_image::SignError::Image(ImageError::FloorAboveItself))), "{refused:?}");
    }
}

/// A trailer with this body, signed whatever is in it; `stated` is how long it says to be.
fn trailer_of(body: &[u8], stated: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut bytes = [&updater_image::TRAILER_MAGIC[..], &updater_image::TRAILER_FORMAT.to_le_bytes()].concat();
    bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let signature = updater_key().sign(firmware_image::signature::Domain::UpdaterTrailer, &bytes);
    bytes.extend_from_slice(&signature);
    let length = stated(bytes.len() + 8) as u32;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

fn encoded(body: &TrailerBody<'_>) -> Vec<u8> {
    postcard::to_slice(body, &mut [0; 2 * MAX_TRAILER_BYTES]).unwrap().to_vec()
}

#[test]
fn an_appended_trailer_field_is_skipped_by_todays_reader() {
    // A later format's body: today's fields, and bytes behind them, as many as there is room for.
    let vendor_key = vendor().public();
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let program = program(2_000);
    let image = image("1.0.0", 2_000);
    let today = *verify_bytes(&image, &vendor_key, &mut buffer).unwrap().body();
    let body = encoded(&TrailerBody { sha256: Digest::of(&program), ..today });
    let most = MAX_TRAILER_BYTES - 12 - 64 - 8 - body.len();
    for more in [0, 1, 20, most] {
        let later = trailer_of(&[&body[..], &vec![42; more]].concat(), |length| length);
        assert_eq!(later.len() == MAX_TRAILER_BYTES, more == most);
        let image = [program.clone(), later].concat();
        assert!(accepted(&image).is_ok(), "{more} bytes more");
    }
    let longer = trailer_of(&[&body[..], &vec![42; most + 8]].concat(), |length| length);
    assert_eq!(authenticate(&longer, &vendor_key).err(), Some(ImageError::NoTrailer));
    assert_eq!(accepted(&[program, longer].concat()), Err(ImageError::NoTrailer));
}

#[test]
fn what_is_signed_and_over_a_limit_is_refused() {
    let vendor_key = vendor().public();
    let image = image("1.0.0", 2_000);
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let sound = *verify_bytes(&image, &vendor_key, &mut buffer).unwrap().body();
    let long = "x".repeat(MAX_PRODUCT_BYTES + 1);
    let of = |length: usize| &long[..length];
    let cases = [
        (TrailerBody { product: of(MAX_PRODUCT_BYTES), ..sound }, true),
        (TrailerBody { product: of(MAX_PRODUCT_BYTES + 1), ..sound }, false),
        (TrailerBody { platform: of(MAX_PLATFORM_BYTES), ..sound }, true),
        (TrailerBody { platform: of(MAX_PLATFORM_BYTES + 1), ..sound }, false),
        (TrailerBody { image_bytes: MAX_IMAGE_BYTES, ..sound }, true),
        (TrailerBody { image_bytes: MAX_IMAGE_BYTES + 1, ..sound }, false),
    ];
    for (body, taken) in &cases {
        let bytes = trailer_of(&encoded(body), |length| length);
        let read = authenticate(&bytes, &vendor_key);
        assert_eq!(read.err(), (!taken).then_some(ImageError::Malformed), "{body:?}");
        if let Ok(read) = read {
            assert!(read.body() == body && read.bytes() == bytes);
        }
    }
    let lying = trailer_of(&encoded(&sound), |length| length + 8);
    assert_eq!(authenticate(&lying, &vendor_key).err(), Some(ImageError::Malformed));
    // Too short for anything, and just long enough for nothing.
    let empty = trailer_of(&[0; 4], |length| length);
    let least = [&empty[..12], &empty[16..]].concat();
    for length in 0..least.len() {
        assert_eq!(authenticate(&least[..length], &vendor_key).err(), Some(ImageError::NoTrailer), "{length} bytes");
    }
    assert_eq!(authenticate(&least, &vendor_key).err(), Some(ImageError::Malformed));
    // A file that is a trailer and nothing else is read; one that says to be longer than the file is none.
    for (stated, read) in [(least.len(), true), (least.len() + 8, false)] {
        let mut file = least.clone();
        let at = file.len() - 8;
        file[at..at + 4].copy_from_slice(&(stated as u32).to_le_bytes());
        let found = read_trailer(&mut SliceReader::new(&file), file.len() as u64, &mut buffer);
        assert_eq!(found, if read { Ok(&file[..]) } else { Err(ImageError::NoTrailer) }, "{stated} bytes stated");
    }
    let zeros = vec![0; MAX_IMAGE_BYTES as usize + 1];
    for (length, reason) in [(MAX_IMAGE_BYTES, ImageError::NoTrailer), (MAX_IMAGE_BYTES + 1, ImageError::TooLong)] {
        let found = read_trailer(&mut SliceReader::new(&zeros), length, &mut buffer);
        assert_eq!(found, Err(reason));
    }
}

#[test]
fn what_is_over_a_limit_is_not_signed() {
    let long = "x".repeat(MAX_PRODUCT_BYTES + 1);
    let executable = program(2_000);
    for (product, platform, taken) in [
        (MAX_PRODUCT_BYTES, MAX_PLATFORM_BYTES, true),
        (MAX_PRODUCT_BYTES + 1, 5, false),
        (5, MAX_PLATFORM_BYTES + 1, false),
    ] {
        let said =
            updater_image::Statement { product: &long[..product], platform: &long[..platform], ..statement("1.0.0") };
        let made = trailer(&executable, &said);
        assert_eq!(made.is_ok(), taken, "{product} and {platform} bytes: {made:?}");
        assert!(taken || made == Err(ImageError::TooLong));
    }
    let most = MAX_IMAGE_BYTES as usize - MAX_TRAILER_BYTES;
    let zeros = vec![0; most + 8];
    let said = statement("1.0.0");
    assert!(trailer(&zeros[..most], &said).is_ok());
    assert_eq!(trailer(&zeros, &said), Err(ImageError::TooLong));
    assert_eq!(trailer(&zeros[..4], &said), Err(ImageError::Malformed));
}

#[test]
fn the_higher_floors_are_the_higher_field_by_field() {
    let floors = |text, key_serial| Floors { version: UpdaterVersion::parse(text).unwrap(), key_serial };
    assert_eq!(floors("1.2.3", 4).max(floors("1.3.0", 2)), floors("1.3.0", 4));
    assert_eq!(floors("1.3.0", 2).max(floors("1.2.3", 4)), floors("1.3.0", 4));
}

#[test]
fn each_reason_has_its_words() {
    let version = UpdaterVersion::parse("1.2.3").unwrap();
    let all = [
        ImageError::NoTrailer,
        ImageError::UnknownFormat(77),
        ImageError::Malformed,
        ImageError::ForeignKey,
        ImageError::BadSignature,
        ImageError::WrongProduct,
        ImageError::WrongPlatform,
        ImageError::Damaged,
        ImageError::TooLong,
        ImageError::BelowFloor(version),
        ImageError::FloorAboveItself,
        ImageError::Zone(firmware_image::ZoneError::NotFound),
    ];
    let said: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), all.len(), "{said:?}");
    assert!(said.contains("version 1.2.3 is too old to be allowed"));
}

#[test]
fn stamping_refuses_what_is_not_a_program_of_ours() {
    use firmware_image::stamp::{StampError, stamp};
    let key = vendor().public();
    assert_eq!(stamp(&mut [0; 500], &key), Err(StampError::NoMarker));
    let mut twice = program(1_000);
    let copy = program(1_000);
    twice.extend_from_slice(&copy);
    assert_eq!(stamp(&mut twice, &key), Err(StampError::ManyMarkers));
    let mut stamped = program(1_000);
    assert_eq!(stamp(&mut stamped, &key), Ok(true));
    assert_eq!(stamp(&mut stamped, &key), Ok(false));
    assert_eq!(stamp(&mut stamped, &SigningKey::from_seed(&[9; 32]).public()), Err(StampError::OtherVendor));
}

#[test]
fn the_vectors_read_as_their_names_say() {
    let dir = testdata().join("updater-image/v1");
    let write = std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some();
    let good = image("1.2.3", 512);
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let end = good.len();
    let trailer_bytes = u32::from_le_bytes(good[end - 8..end - 4].try_into().unwrap()) as usize;
    let foreign_vendor = SigningKey::from_seed(&[9; 32]);
    let foreign_certificate = KeyCertificate::issue(&foreign_vendor, 1, updater_key().public());
    let foreign = updater_image::sign(
        program(512),
        &statement("1.2.3"),
        &foreign_vendor.public(),
        &foreign_certificate,
        &updater_key(),
    );
    let vectors: [(&str, Vec<u8>, Option<ImageError>); 7] = [
        ("good-1.2.3.img", good.clone(), None),
        ("executable-byte-flipped.img", flipped(300), Some(ImageError::Damaged)),
        ("signature-byte-flipped.img", flipped(end - 20), Some(ImageError::BadSignature)),
        ("magic-byte-flipped.img", flipped(end - trailer_bytes), Some(ImageError::NoTrailer)),
        ("unknown-format.img", flipped(end - trailer_bytes + 8), Some(ImageError::UnknownFormat(0))),
        ("cut-in-the-trailer.img", good[..end - 8].to_vec(), Some(ImageError::NoTrailer)),
        ("foreign-vendor.img", foreign.unwrap(), Some(ImageError::ForeignKey)),
    ];
    for (name, bytes, reason) in vectors {
        if write {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), &bytes).unwrap();
        }
        let stored = std::fs::read(dir.join(name)).unwrap();
        assert_eq!(Digest::of(&stored), Digest::of(&bytes), "{name} is not what today's writer makes");
        assert_eq!(accepted(&stored).err(), reason, "{name}");
    }
}

#[test]
fn a_trailer_alone_carries_the_floors_it_states() {
    let raising = updater_image::Statement {
        floors: Floors { version: UpdaterVersion::parse("1.1.0").unwrap(), key_serial: 1 },
        ..statement("1.2.0")
    };
    let image =
        updater_image::sign(program(2_000), &raising, &vendor().public(), &certificate(), &updater_key()).unwrap();
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let bytes = read_trailer(&mut SliceReader::new(&image), image.len() as u64, &mut buffer).unwrap().to_vec();
    let trailer = authenticate(&bytes, &vendor().public()).unwrap();
    assert_eq!(trailer.body().floors.version.to_string(), "1.1.0");
    let mut record = firmware_image::record::VersionRecord::new(Default::default());
    record.statement = &bytes;
    assert_eq!(record.floors(&vendor().public(), PRODUCT), trailer.body().floors);
    assert_eq!(record.floors(&vendor().public(), "Other"), Floors::default());
    assert_eq!(record.floors(&updater_key().public(), PRODUCT), Floors::default());
    record.statement = &bytes[..bytes.len() - 9];
    assert_eq!(record.floors(&vendor().public(), PRODUCT), Floors::default());
}
