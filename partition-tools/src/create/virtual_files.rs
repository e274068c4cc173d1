//! The files of the virtual zone.

mod read_me;

use std::sync::Arc;

use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::paths;

use super::{Request, release};
use crate::error::ToolError;

/// The page for whoever holds the device and worries.
pub const READ_ME: &str = "READ ME FIRST.html";
const AUTORUN_SH: &str = include_str!("../../assets/autorun.sh");

/// All files of the virtual zone, in a fixed order.
pub(super) fn collect(
    request: &Request,
    config: &[u8],
    launchers: &[(String, Vec<u8>)],
    updaters: &[(String, Vec<u8>)],
    release: Option<&release::Opened>,
) -> Result<Vec<IsoFile>, ToolError> {
    let page = read_me::Device {
        product: &request.product,
        profile: request.profile,
        launchers: launchers.iter().map(|(platform, _)| platform.as_str()).collect(),
        updaters: updaters.iter().map(|(platform, _)| platform.as_str()).collect(),
        offline_version: release.filter(|_| request.offline_source).map(release::Opened::version),
    }
    .page();
    let bytes = |bytes: &[u8]| Source::Bytes(Arc::from(bytes));
    let mut files = vec![
        IsoFile::new(READ_ME, bytes(page.as_bytes())),
        IsoFile::new("autorun.inf", bytes(&autorun_inf(&request.product, launchers))),
        IsoFile::program("autorun.sh", bytes(AUTORUN_SH.as_bytes())),
        IsoFile::new(paths::DEVICE_CONFIG, bytes(config)),
    ];
    for (platform, program) in launchers {
        files.push(IsoFile::program(paths::bootstrap_name(platform).as_str(), bytes(program)));
    }
    for (platform, image) in updaters {
        files.push(IsoFile::program(paths::updater_name(platform).as_str(), bytes(image)));
    }
    if let Some(release) = release.filter(|_| request.offline_source) {
        files.extend(release.offline_files()?);
    }
    Ok(files)
}

/// What Windows reads; its lines end as Windows wants. With a name that is not all ASCII it is UTF-16, which a byte-order mark
/// says: bytes without one are taken for letters of the computer's own code page.
fn autorun_inf(product: &str, launchers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let name: String = product.chars().filter(|c| !c.is_control()).collect();
    let mut lines = vec!["[autorun]".to_owned(), format!("label={name}")];
    if launchers.iter().any(|(platform, _)| platform == paths::WINDOWS_PLATFORM) {
        let program = paths::bootstrap_name(paths::WINDOWS_PLATFORM);
        lines.push(format!("open={program}"));
        lines.push(format!("icon={program}"));
        lines.push(format!("action=Start {name}"));
    }
    let text = lines.join("\r\n") + "\r\n";
    match text.is_ascii() {
        true => text.into_bytes(),
        false => "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect(),
    }
}
