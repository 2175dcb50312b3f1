//! Numbers and names as text.

/// Bytes with a decimal unit: `1.10 MB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB")]).unwrap_or_else(|| format!("{n} B"))
}

/// A count with a decimal suffix: `40.6 M`.
pub fn count(n: u64) -> String {
    scaled(n as f64, &[(1e9, "G"), (1e6, "M"), (1e3, "k")]).unwrap_or_else(|| n.to_string())
}

fn scaled(n: f64, units: &[(f64, &str)]) -> Option<String> {
    // The limit is just below the unit, so that 999,999 is written as 1.00 MB and not as 1000 kB.
    let (factor, unit) = units.iter().find(|(f, _)| n >= f * 0.9995)?;
    let value = n / factor;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    Some(format!("{value:.digits$} {unit}"))
}

/// A share, 0..1, as a percentage: `91.73 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// A number with four significant digits: `0.2145`, `12.30`, `1234`.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = (3.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

/// [`number`] with its sign.
pub fn signed(value: f64) -> String {
    let number = number(value);
    if value >= 0.0 { format!("+{number}") } else { number }
}

/// True for so few samples that a confidence interval should be shown.
pub(crate) fn few(samples: u64) -> bool {
    samples < FEW
}

/// The note that goes with a sparsity.
pub const SPARSITY_ALONE: &str = "zeros alone make neither the file smaller nor the run faster: they are stored and computed with like any \
                                  other value, and pay where the file is compressed or kernels for sparse weights are used";

/// The 95 % confidence interval of a share, from `right` of `all` (E. B. Wilson, "Probable inference, the law of succession, and
/// statistical inference", 1927).
pub fn wilson(right: f64, all: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (all as f64, Z * Z);
    let p = right / n;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// Smallest number of test samples for which an accuracy is written without its interval.
const FEW: u64 = 5000;

/// An accuracy, with its 95 % confidence interval if there are few samples: `98.61 % (96.8..99.4)`.
pub fn accuracy(share: f64, samples: Option<u64>) -> String {
    match samples.filter(|n| few(*n)) {
        Some(n) => {
            let (low, high) = wilson(share * n as f64, n);
            format!("{} ({:.1}..{:.1})", percent(share), low * 100.0, high * 100.0)
        }
        None => percent(share),
    }
}

/// Seconds as a duration: `0.42 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.995 {
        return format!("{seconds:.2} s");
    }
    let s = seconds.round() as u64;
    match s {
        ..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// A date and time in UTC: `2026-11-24 23:44`.
pub fn date(unix: u64) -> String {
    // Civil date from days (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = (unix / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = unix % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600, seconds % 3600 / 60)
}

/// True for characters that control a terminal or a browser: control characters, and those that change the direction of text or
/// break lines.
fn obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn shown(s: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match obeyed(c) && !kept.contains(&c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

/// A name from a file, as one line that can be shown anywhere: control characters are written as `\u{1b}`.
pub fn line(s: &str) -> String {
    shown(s, &[])
}

/// The same for a text of several lines: line breaks and tabs stay.
pub fn block(s: &str) -> String {
    shown(s, &['\n', '\t'])
}

/// A command line, quoted for a shell.
pub fn command_line(arguments: &[String]) -> String {
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c));
    let quote = |s: &String| if plain(s) { s.clone() } else { format!("'{}'", s.replace('\'', r"'\''")) };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(line("a\u{1b}[2Jb\nc\u{202e}d\u{9b}é"), r"a\u{1b}[2Jb\u{a}c\u{202e}d\u{9b}é");
        assert_eq!(block("a\n\tb\r\u{7}"), "a\n\tb\\u{d}\\u{7}");
    }

    #[test]
    fn intervals_are_wilsons() {
        // By definition the observed share is 1.96 standard deviations away from the bound, at the bound's own deviation.
        for (right, all) in [(354.0, 359), (1.0, 10), (9173.0, 10_000)] {
            let (seen, bounds) = (right / f64::from(all), wilson(right, all as u64));
            for bound in [bounds.0, bounds.1] {
                let deviations = (seen - bound).abs() / (bound * (1.0 - bound) / f64::from(all)).sqrt();
                assert!((deviations - 1.96).abs() < 1e-4, "{right} of {all}: {bound} is {deviations} off");
            }
        }
        assert_eq!(wilson(0.0, 10).0, 0.0);
        assert!((wilson(10.0, 10).1 - 1.0).abs() < 1e-12);
        assert_eq!(accuracy(354.0 / 359.0, Some(359)), "98.61 % (96.8..99.4)");
        assert_eq!(accuracy(0.9173, Some(10_000)), "91.73 %");
    }

    #[test]
    fn numbers_for_people() {
        for (v, text) in [(0.0, "0"), (0.214_54, "0.2145"), (12.304, "12.30"), (1234.6, "1235"), (-0.001_234_5, "-0.001234")] {
            assert_eq!(number(v), text);
        }
        assert_eq!((signed(0.5), signed(-0.5)), ("+0.5000".to_string(), "-0.5000".to_string()));
        for (n, text) in [(0, "0 B"), (999, "999 B"), (1097256, "1.10 MB"), (92939, "92.9 kB"), (999_999, "1.00 MB"), (147_600, "148 kB")] {
            assert_eq!(bytes(n), text);
        }
        for (s, text) in [(0.416, "0.42 s"), (59.7, "1 min 00 s"), (185.0, "3 min 05 s"), (7800.0, "2 h 10 min")] {
            assert_eq!(duration(s), text);
        }
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(1_795_563_878), "2026-11-24 23:44");
        assert_eq!(command_line(&["a b".into(), "c=d".into(), "it's".into()]), r"'a b' c=d 'it'\''s'");
    }
}
