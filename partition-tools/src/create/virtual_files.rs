//! The files of the virtual zone.

use std::sync::Arc;

use firmware_image::image::fat::FormatOptions;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::paths;

use super::{Request, release};
use crate::error::ToolError;

/// The page for whoever holds the device and worries.
pub const READ_ME: &str = "READ ME FIRST.html";
const READ_ME_TEMPLATE: &str = include_str!("../../assets/read-me-first.html");
const AUTORUN_SH: &str = include_str!("../../assets/autorun.sh");
/// The launcher that Windows' autorun starts.
const WINDOWS_PLATFORM: &str = "windows-x86_64";

/// All files of the virtual zone, in a fixed order.
pub(super) fn collect(
    request: &Request,
    config: &[u8],
    launchers: &[(String, Vec<u8>)],
    updaters: &[(String, Vec<u8>)],
    release: Option<&release::Opened>,
) -> Result<Vec<IsoFile>, ToolError> {
    let bytes = |bytes: &[u8]| Source::Bytes(Arc::from(bytes));
    let mut files = vec![
        IsoFile::new(READ_ME, bytes(read_me(request, launchers, updaters).as_bytes())),
        IsoFile::new("autorun.inf", bytes(autorun_inf(&request.product, launchers).as_bytes())),
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

fn read_me(request: &Request, launchers: &[(String, Vec<u8>)], updaters: &[(String, Vec<u8>)]) -> String {
    let mut starts = String::new();
    for (platform, _) in launchers {
        let name = escape(&paths::bootstrap_name(platform));
        starts += &format!("<li>on {}: <code>{name}</code></li>\n", system(platform));
    }
    if launchers.iter().any(|(platform, _)| platform.starts_with("linux-")) {
        starts += "<li>on Linux also: <code>autorun.sh</code>, which picks the right one</li>\n";
    }
    if starts.is_empty() {
        starts += "<li>no program to start from here was put on this device; ask whoever gave it to you</li>\n";
    }
    let mut copies = String::new();
    for (platform, _) in updaters {
        let name = escape(&paths::updater_name(platform));
        copies += &format!("<li>on {}: <code>{name}</code></li>\n", system(platform));
    }
    let label = FormatOptions::label_of(&request.product);
    let label = String::from_utf8_lossy(&label).trim_end().to_owned();
    READ_ME_TEMPLATE
        .replace("{{PRODUCT}}", &escape(&request.product))
        .replace("{{LAUNCHERS}}", &starts)
        .replace("{{UPDATERS}}", &copies)
        .replace("{{FREE_LABEL}}", &format!("called <strong>{}</strong>", escape(&label)))
}

/// A platform as people call it.
fn system(platform: &str) -> String {
    match platform {
        "linux-x86_64" => "Linux".into(),
        "linux-aarch64" => "Linux on ARM (a Raspberry Pi, for example)".into(),
        "windows-x86_64" => "Windows".into(),
        other => escape(other),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What Windows reads; its lines end as Windows wants.
fn autorun_inf(product: &str, launchers: &[(String, Vec<u8>)]) -> String {
    let name: String = product.chars().filter(|c| !c.is_control()).collect();
    let mut lines = vec!["[autorun]".to_owned(), format!("label={name}")];
    if launchers.iter().any(|(platform, _)| platform == WINDOWS_PLATFORM) {
        let program = paths::bootstrap_name(WINDOWS_PLATFORM);
        lines.push(format!("open={program}"));
        lines.push(format!("icon={program}"));
        lines.push(format!("action=Start {name}"));
    }
    lines.join("\r\n") + "\r\n"
}
