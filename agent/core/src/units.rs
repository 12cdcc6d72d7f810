//! Amounts as text: bit rates as `tc` writes them, and counts of bytes.
//!
//! A number, which may have decimals, and a unit, in any case: `10mbit`, `1.5Gbit`, `16KiB`. What is ambiguous is not
//! accepted: a lone `k` of bytes (1000 or 1024) and `tc`'s `bps`, which are bytes.

/// `bit`, `kbit`, `mbit` and `gbit`, by the thousand; a plain number is in bits per second.
const BIT_RATES: [(&str, f64); 5] = [
    ("", 1.0),
    ("bit", 1.0),
    ("kbit", 1e3),
    ("mbit", 1e6),
    ("gbit", 1e9),
];

/// `kB`, `MB` and `GB` by the thousand, `KiB`, `MiB` and `GiB` by 1024; a plain number is in bytes.
const BYTE_COUNTS: [(&str, f64); 8] = [
    ("", 1.0),
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
];

/// Bits per second, as in `10mbit`, `1.5gbit`, `800kbit` or `56000`.
pub fn bit_rate(text: &str) -> Option<u64> {
    quantity(text, &BIT_RATES)
}

/// Bytes, as in `16KiB`, `32kB` or `3028`.
pub fn byte_count(text: &str) -> Option<u64> {
    quantity(text, &BYTE_COUNTS)
}

fn quantity(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let value = (number.parse::<f64>().ok()? * factor).round();
    // Every whole number up to here is one of f64.
    (value <= (1u64 << 53) as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_tc_writes_them() {
        for (text, rate) in [
            ("56000", 56_000),
            ("9600bit", 9_600),
            ("800kbit", 800_000),
            ("10mbit", 10_000_000),
            ("10Mbit", 10_000_000),
            ("1.5GBIT", 1_500_000_000),
            (" 2 gbit ", 2_000_000_000),
            (".5kbit", 500),
        ] {
            assert_eq!(bit_rate(text), Some(rate), "{text}");
        }
        for bad in [
            "",
            "mbit",
            "10m",
            "10mbps",
            "10kb",
            "-1mbit",
            "1e6",
            "1.2.3kbit",
            ".",
            "inf",
            "NaN",
            "10mbit/s",
            "99999999999999999999gbit",
        ] {
            assert_eq!(bit_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_read_by_the_thousand_and_by_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("3028", 3_028),
            ("1514B", 1_514),
            ("32kB", 32_000),
            ("32KB", 32_000),
            ("16KiB", 16_384),
            ("1.5MiB", 1_572_864),
            ("2mb", 2_000_000),
            ("1GiB", 1 << 30),
            ("1 GB", 1_000_000_000),
        ] {
            assert_eq!(byte_count(text), Some(bytes), "{text}");
        }
        for bad in ["", "k", "16k", "16Ki", "16kbit", "-1B", "1TB", "one"] {
            assert_eq!(byte_count(bad), None, "{bad}");
        }
    }
}
