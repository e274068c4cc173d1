//! Sizes as people write them.

/// Reads `500`, `500k`, `10MiB`, `1.5G`: units are powers of 1024.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim().trim_end_matches("/s");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("{unit:?} is no unit: write k, M or G")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no size: write 500k, 10MiB, 1.5G"))?;
    let bytes = number * (1_u64 << shift) as f64;
    if bytes < 1.0 || bytes > u64::MAX as f64 / 2.0 {
        return Err(format!("{text:?} is too small or too large"));
    }
    Ok(bytes as u64)
}

/// Writes bytes for people.
pub fn show(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("500"), Ok(500));
        assert_eq!(parse("1.5k"), Ok(1536));
        assert_eq!(parse("10MiB"), Ok(10 << 20));
        assert_eq!(parse("2G"), Ok(2 << 30));
        assert_eq!(parse("64k/s"), Ok(64 << 10));
        assert!(parse("0").is_err());
        assert!(parse("ten").is_err());
        assert!(parse("5 parsec").is_err());
    }
}
