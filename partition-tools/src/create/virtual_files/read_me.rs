//! The page for whoever holds a device and worries: one template, filled with what stands on this device and reduced to
//! what its reader can do.
//!
//! ```text
//! {{NAME}}                   a value, escaped for HTML
//! {{#name}} … {{/name}}      kept where the condition holds; not within another of the same name
//! ```
//! Nothing in the page is fetched from anywhere, and nothing in it runs.

use firmware_image::device_config::Profile;
use firmware_image::image::fat::FormatOptions;
use firmware_image::image::gpt;
use firmware_image::paths;

const TEMPLATE: &str = include_str!("../../../assets/read-me-first.html");
const WINDOWS: &str = paths::WINDOWS_PLATFORM;

/// What the page tells of a device.
pub(super) struct Device<'a> {
    pub product: &'a str,
    pub profile: Profile,
    /// Platforms with a launcher in the virtual zone.
    pub launchers: Vec<&'a str>,
    /// Platforms with an updater in the virtual zone.
    pub updaters: Vec<&'a str>,
    /// The release that the virtual zone holds whole.
    pub offline_version: Option<&'a str>,
}

impl Device<'_> {
    /// The page.
    pub fn page(&self) -> String {
        render(TEMPLATE, &|name| self.holds(name), &|name| self.value(name))
    }

    /// Windows shows ISO 9660 from a CD-ROM only, never from a partition: what stands there cannot be started.
    fn starts_on_windows(&self) -> bool {
        self.profile == Profile::Dual && self.launchers.contains(&WINDOWS)
    }

    /// On a stick Windows' launcher stands in the free zone as well.
    fn is_stick_of_windows(&self) -> bool {
        self.profile != Profile::Dual && self.launchers.contains(&WINDOWS)
    }

    fn starts_on_linux(&self) -> bool {
        self.launchers.iter().any(|platform| platform.starts_with("linux-"))
    }

    fn holds(&self, condition: &str) -> bool {
        let starts = self.starts_on_linux() || self.starts_on_windows();
        match condition {
            "linux" => self.starts_on_linux(),
            "windows" => self.starts_on_windows(),
            "windows_stick" => self.is_stick_of_windows() && self.starts_on_linux(),
            "no_windows" => !self.launchers.contains(&WINDOWS),
            "starts" => starts,
            "nothing_starts" => !starts,
            "dual" => self.profile == Profile::Dual,
            "offline" => self.offline_version.is_some(),
            "online" => self.offline_version.is_none(),
            "same_label" => self.repair_label() == self.free_label(),
            "more_updaters" => self.updaters.len() > 1,
            _ => false,
        }
    }

    fn value(&self, name: &str) -> String {
        let updaters: Vec<String> = self.updaters.iter().map(|one| paths::updater_name(one).as_str().into()).collect();
        match name {
            "PRODUCT" => escape(self.product),
            "REPAIR_LABEL" => escape(&self.repair_label()),
            "FREE_LABEL" => escape(&self.free_label()),
            "FREE_PARTITION" => escape(gpt::NAME_FREE),
            "WINDOWS_LAUNCHER" => escape(&paths::bootstrap_name(WINDOWS)),
            "SYSTEMS" => self.systems().into(),
            "COPY_WHAT" => match updaters.len() {
                0 | 1 => "one file".into(),
                2 => "two files".into(),
                3 => "three files".into(),
                more => format!("{more} files"),
            },
            "FIRST_UPDATER" => escape(updaters.first().map_or("", |first| first)),
            "MORE_UPDATERS" => {
                let more = updaters.iter().skip(1).map(|name| format!("<code>{}</code>", escape(name)));
                more.collect::<Vec<_>>().join(" and ")
            }
            "VERSION" => self.offline_version.map(|version| format!(" {}", escape(version))).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// Systems on which the launcher starts, as people call them.
    fn systems(&self) -> &'static str {
        let on_pcs = self.launchers.contains(&"linux-x86_64");
        match (self.starts_on_windows(), self.starts_on_linux()) {
            (true, true) => "Windows or Linux",
            (true, false) => "Windows",
            (false, true) if !on_pcs && self.launchers.contains(&"linux-aarch64") => {
                "Linux on ARM (a Raspberry Pi, for example)"
            }
            (false, _) => "Linux",
        }
    }

    /// The name under which the virtual zone is shown: as `firmware_image::image::build` gives it to the volume.
    fn repair_label(&self) -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        self.product.to_uppercase().chars().map(allowed).take(16).collect()
    }

    /// The name under which the free zone is shown until somebody formats it.
    fn free_label(&self) -> String {
        String::from_utf8_lossy(&FormatOptions::label_of(self.product)).trim_end().to_owned()
    }
}

/// Fills a template. What is not closed stands for itself, so that a test can see it.
fn render(template: &str, holds: &dyn Fn(&str) -> bool, value: &dyn Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        out += before;
        rest = after;
        let Some(condition) = name.strip_prefix('#') else {
            out += &value(name);
            continue;
        };
        // A marker on a line of its own takes its line end with it.
        rest = rest.strip_prefix('\n').unwrap_or(rest);
        let Some((inner, after)) = rest.split_once(format!("{{{{/{condition}}}}}").as_str()) else { continue };
        rest =
            if inner.is_empty() || inner.ends_with('\n') { after.strip_prefix('\n').unwrap_or(after) } else { after };
        if holds(condition) {
            out += &render(inner, holds, value);
        }
    }
    out + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(product: &str) -> Device<'_> {
        Device {
            product,
            profile: Profile::Stick,
            launchers: vec!["linux-x86_64"],
            updaters: vec!["linux-x86_64"],
            offline_version: None,
        }
    }

    #[test]
    fn a_product_s_name_is_text_whatever_it_holds() {
        let page = device("<b>Salt & \"Pepper\"</b> {{#linux}}").page();
        assert!(page.contains("<h1>&lt;b&gt;Salt &amp; &quot;Pepper&quot;&lt;/b&gt; {{#linux}}: read me first</h1>"));
        assert!(!page.contains("<b>"));
    }

    #[test]
    fn two_drives_of_one_name_are_told_apart_by_the_page() {
        assert!(device("Acme").page().contains("<code>ACME</code> too, but this page is"));
        assert!(!device("Acme Notes").page().contains("too, but this page is"));
    }

    #[test]
    fn conditions_take_their_own_lines_with_them_and_nest() {
        let holds = |name: &str| name != "no";
        let value = |name: &str| name.to_lowercase();
        let template = "a\n{{#yes}}\nb {{#no}}x{{/no}}{{#on}}y{{/on}} {{C}}\n{{/yes}}\n{{#no}}\nd\n{{/no}}\ne\n";
        assert_eq!(render(template, &holds, &value), "a\nb y c\ne\n");
    }
}
