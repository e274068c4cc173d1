//! Text from outside for people: names on a medium, a vendor's own words, a path that somebody typed. Whoever wrote it must not
//! steer the terminal on which it is read, nor make one line look like two, or one name like another.
//!
//! JSON and files get what is there, as it is.

/// `text` with everything that shows nothing by itself (controls, line ends, marks of direction, spaces of no width) as `\n` or
/// `\u{1b}`, and a backslash as two. Letters of all scripts stay, with their accents.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => out.push(c),
            // Behind another letter an accent is printable.
            _ => {
                let pair: String = ['x', c].into_iter().collect();
                out.extend(pair.escape_debug().skip(1));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_is_printed_as_it_is_and_all_else_as_its_number() {
        for (text, shown) in [
            ("client/Größe \"1\" o'clock ….txt", "client/Größe \"1\" o'clock ….txt"),
            ("Gro\u{308}ße 日本 😀", "Gro\u{308}ße 日本 😀"),
            ("a\u{1b}[2J\u{9b}1m", "a\\u{1b}[2J\\u{9b}1m"),
            ("one\r\ntwo\t\0", "one\\r\\ntwo\\t\\0"),
            ("\u{202e}gpj.exe\u{200b}\u{feff}\u{2028}", "\\u{202e}gpj.exe\\u{200b}\\u{feff}\\u{2028}"),
            ("\\u{1b}", "\\\\u{1b}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
