//! The page for whoever worries, taken from finished devices: it must be true of the very device that it stands on.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use firmware_image::host::{Access, FileZone};
use firmware_image::image::gpt::{NAME_FREE, Table};
use firmware_image::sim::figures;
use support::{PRODUCT, Product};

const PAGE: &str = "READ ME FIRST.html";
/// What fetches or runs something in a page.
const FORBIDDEN: [&str; 20] = [
    "://",
    "src=",
    "href=",
    "srcset",
    "url(",
    "@import",
    "<script",
    "<link",
    "<img",
    "<iframe",
    "<object",
    "<embed",
    "<form",
    "<base",
    "<svg",
    "\"refresh\"",
    "javascript:",
    " onload",
    " onclick",
    " onerror",
];
const ISO_LABEL: u64 = 16 * 2048 + 40;
const FAT32_LABEL: u64 = 71;

/// A device of each kind: what it is called, its page, the files of its virtual zone, the names of its two volumes.
struct Made {
    name: &'static str,
    page: String,
    files: BTreeSet<String>,
    virtual_label: String,
    free_label: String,
}

/// All of them, made once.
fn devices() -> &'static [Made] {
    static MADE: OnceLock<Vec<Made>> = OnceLock::new();
    MADE.get_or_init(|| make_all(&Product::new()))
}

fn make_all(product: &Product) -> Vec<Made> {
    let linux = ["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"];
    let arm = ["--bootstrap", "linux-aarch64=bootstrap-arm", "--updater", "linux-aarch64=updater-arm"];
    let windows = ["--bootstrap", "windows-x86_64=bootstrap.exe", "--updater", "windows-x86_64=updater.exe"];
    let all = [&linux[..], &arm, &windows].concat();
    let release = ["--store", "store", "--release-version", "1.0.0"];
    let offline = [&release[..], &["--offline-source"]].concat();
    vec![
        make(product, "stick", &linux),
        make(product, "stick-with-release", &[&linux[..], &release].concat()),
        make(product, "stick-all-offline", &[&all[..], &offline].concat()),
        make(product, "stick-arm", &arm),
        make(product, "stick-without-launcher", &["--updater", "linux-x86_64=updater"]),
        make(product, "dual", &linux),
        make(product, "dual-windows", &windows),
        make(product, "dual-all-offline", &[&all[..], &offline].concat()),
    ]
}

fn make(product: &Product, name: &'static str, more: &[&str]) -> Made {
    let (disk, cd) = (format!("{name}.img"), format!("{name}.iso"));
    let dual = name.starts_with("dual");
    let mut arguments = vec!["create", "--size", "200MiB", "--keys", "keys", "--product", PRODUCT, "--out", &disk];
    arguments.extend(["--client-command", "client/run.sh", "--server", "http://127.0.0.1:1/store", "--profile"]);
    let profile = ["dual", "--cd-out", &cd];
    arguments.extend(if dual { &profile[..] } else { &["stick"] });
    arguments.extend(more);
    product.succeed(&arguments);
    let table = Table::read(FileZone::open(&product.path(&disk), Access::ReadOnly).unwrap()).unwrap();
    let (shown, start) = if dual { (&cd, 0) } else { (&disk, table.virtual_zone().unwrap().start) };
    Made {
        name,
        page: product.succeed(&["virtual", "cat", shown, PAGE]),
        files: top_files(product, shown),
        virtual_label: text_at(product, shown, start + ISO_LABEL, 32),
        free_label: text_at(product, &disk, table.free().unwrap().start + FAT32_LABEL, 11),
    }
}

fn top_files(product: &Product, image: &str) -> BTreeSet<String> {
    let listed = product.json(&["virtual", "ls", image, "--json"]);
    let names = listed.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned());
    names.filter(|name| !name.contains('/')).collect()
}

fn text_at(product: &Product, image: &str, at: u64, length: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(product.path(image)).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

/// What the page shows as names on the screen.
fn names(page: &str) -> BTreeSet<String> {
    page.split("<code>").skip(1).map(|rest| rest.split_once("</code>").unwrap().0.to_owned()).collect()
}

/// The page without the wrapping of its source, as it is read.
fn flowing(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_names_the_files_drives_and_partitions_of_its_own_device_and_no_others() {
    for made in devices() {
        let mut rest = names(&made.page);
        for name in [&made.virtual_label, &made.free_label, "client", ".holdfast"] {
            assert!(rest.contains(name), "{}: {name} in {rest:?}", made.name);
        }
        for name in [&made.virtual_label, &made.free_label, "client", ".holdfast", NAME_FREE, ".exe"] {
            rest.remove(name);
        }
        let unknown: Vec<_> = rest.difference(&made.files).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?} are not on the device", made.name);
        let updaters: BTreeSet<_> = made.files.iter().filter(|name| name.starts_with("updater-")).collect();
        let named: BTreeSet<_> = rest.iter().filter(|name| name.starts_with("updater-")).collect();
        assert_eq!(named, updaters, "{}", made.name);
        assert!(!updaters.is_empty());
    }
}

#[test]
fn the_page_tells_nobody_to_start_what_their_computer_does_not_show() {
    for made in devices() {
        let (page, named) = (flowing(&made.page), names(&made.page));
        // Windows shows no ISO 9660 file system on a partition: a stick has its launcher in the free zone as well.
        let has_windows = made.files.contains("bootstrap-windows-x86_64.exe");
        let windows = made.name.starts_with("dual") && has_windows;
        let linux = made.files.iter().any(|name| name.starts_with("bootstrap-linux-"));
        let stick = has_windows && !windows && linux;
        assert_eq!(page.contains("<h3>On Windows</h3>"), windows || stick, "{}", made.name);
        assert_eq!(page.contains("Windows shows your drive, and not the repair drive"), stick, "{}", made.name);
        assert_eq!(named.contains("bootstrap-windows-x86_64.exe"), windows || stick, "{}", made.name);
        assert_eq!(page.contains("<h3>On Linux</h3>"), linux, "{}", made.name);
        assert_eq!(named.contains("autorun.sh"), linux, "{}", made.name);
        assert_eq!(page.contains("Ask whoever gave it to you"), !linux && !windows, "{}", made.name);
        assert_eq!(page.contains("computer with Windows, cannot start"), linux && !has_windows, "{}", made.name);
    }
}

#[test]
fn the_page_promises_a_return_without_network_only_where_the_device_carries_it() {
    for made in devices() {
        let page = flowing(&made.page);
        let offline = made.name.ends_with("offline");
        assert_eq!(page.contains(&format!("a copy of {PRODUCT} 1.0.0 and brings it back")), offline, "{}", made.name);
        assert_eq!(page.contains("must be connected to the internet"), !offline, "{}", made.name);
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    for made in devices() {
        let page = made.page.to_lowercase();
        for what in FORBIDDEN {
            assert!(!page.contains(what), "{}: {what}", made.name);
        }
        assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""), "{}", made.name);
    }
}

#[test]
fn the_page_is_sound_html_with_headings_in_order() {
    for made in devices() {
        let page = &made.page;
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{}", made.name);
        assert!(!page.contains("{{") && !page.contains("}}"), "{}", made.name);
        let levels: Vec<u32> = page
            .split("<h")
            .filter_map(|rest| rest.chars().next().and_then(|c| c.to_digit(10)).filter(|_| rest[1..].starts_with('>')))
            .collect();
        assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1, "{}: {levels:?}", made.name);
        assert_eq!(levels.first(), Some(&1), "{}", made.name);
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{}: {levels:?}", made.name);
        let Ok(mut tidy) = Command::new("tidy")
            .args(["-quiet", "-errors", "-utf8"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            figures::skipped("tidy is not installed");
            continue;
        };
        tidy.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = tidy.wait_with_output().unwrap();
        assert!(output.status.success(), "{}: {}", made.name, String::from_utf8_lossy(&output.stderr));
    }
}
