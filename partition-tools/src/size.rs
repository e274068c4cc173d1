//! Sizes as people write them.

/// Reads `256MiB`, `4 GiB`, `32GB`, `512K` or a number of bytes. `K`, `M`, `G` and `T` alone are binary, as in `dd`.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("'{unit}' is no unit of size; use KiB, MiB, GiB, or kB, MB, GB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is no size; write for example 256MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is more than any disk has"))
}

/// Bytes for people: `256 MiB`, `1.5 GiB`.
pub fn show(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse(" 4 GiB"), Ok(4 << 30));
        assert_eq!(parse("32GB"), Ok(32_000_000_000));
        assert_eq!(parse("512k"), Ok(512 << 10));
        assert_eq!(parse("17"), Ok(17));
        for bad in ["", "MiB", "-1", "1.5GiB", "12 parsecs", "99999999999 GiB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(1536 << 20), "1.5 GiB");
        assert_eq!(show(4 << 20), "4 MiB");
        assert_eq!(show(17), "17 B");
    }
}
