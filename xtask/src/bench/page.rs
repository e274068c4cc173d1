//! The page of results: a part in front, and sections that other parts of the benchmarks write.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Replaces what stands in front of the first section.
pub fn write_front(path: &Path, front: &str) -> Result<()> {
    update(path, |page| with_front(page, front))
}

/// Replaces the section that begins with the line `heading`, or adds it at the end.
pub fn write_section(path: &Path, heading: &str, body: &str) -> Result<()> {
    update(path, |page| with_section(page, heading, body))
}

fn update(path: &Path, change: impl FnOnce(&str) -> String) -> Result<()> {
    let page = if path.exists() { fs::read_to_string(path)? } else { String::new() };
    fs::write(path, change(&page)).with_context(|| format!("cannot write {}", path.display()))
}

fn with_front(page: &str, front: &str) -> String {
    let sections = page.find("\n## ").map_or("", |at| &page[at + 1..]);
    join([front, sections])
}

fn with_section(page: &str, heading: &str, body: &str) -> String {
    let section = format!("{heading}\n\n{}", body.trim());
    let start = page.lines().scan(0, |at, line| Some((std::mem::replace(at, *at + line.len() + 1), line)));
    let Some((start, _)) = start.clone().find(|(_, line)| *line == heading).filter(|(at, _)| *at < page.len()) else {
        return join([page, &section]);
    };
    let behind = start + heading.len();
    let rest = page[behind..].find("\n## ").map_or("", |at| &page[behind + at + 1..]);
    join([&page[..start], &section, rest])
}

/// One below the other, with an empty line between.
fn join<const N: usize>(parts: [&str; N]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    parts.join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_added_then_replaced_and_the_others_stay() {
        let first = with_section("# Page\n\nfront\n", "## B", "one\n");
        assert_eq!(first, "# Page\n\nfront\n\n## B\n\none\n");
        let more = with_section(&first, "## C", "two");
        let again = with_section(&more, "## B", "new\n\n### below\n\nlines\n");
        assert_eq!(again, "# Page\n\nfront\n\n## B\n\nnew\n\n### below\n\nlines\n\n## C\n\ntwo\n");
    }

    #[test]
    fn a_new_front_leaves_the_sections() {
        assert_eq!(
            with_front("# Old\n\n| a |\n\n## B\n\none\n", "# New\n\n| b |\n"),
            "# New\n\n| b |\n\n## B\n\none\n"
        );
        assert_eq!(with_front("", "# New\n"), "# New\n");
    }
}
