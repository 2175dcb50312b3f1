//! Changes to bytes and to text.
use crate::random::Random;

/// Extreme values of the integer types.
pub(crate) const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    -2,
    3,
    7,
    8,
    9,
    16,
    17,
    31,
    32,
    63,
    64,
    65,
    100,
    127,
    128,
    255,
    256,
    -128,
    -129,
    1000,
    4096,
    32767,
    65535,
    65536,
    -32768,
    1 << 20,
    1 << 24,
    1 << 30,
    (1 << 31) - 1,
    1 << 31,
    -(1 << 31),
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    1 << 53,
    1 << 60,
    1 << 62,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
    i64::MIN + 1,
];

/// Changes a file a few times; `other` is a file of another seed, for crossing.
pub(crate) fn bytes(r: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=r.below(4) {
        change(r, file, other);
    }
}

fn change(r: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    let n = file.len();
    if n == 0 {
        file.push(r.next() as u8);
        return;
    }
    let at = r.below(n);
    let length = 1 + r.below((n - at).min(64));
    match r.below(12) {
        0 => file[at] ^= 1 << r.below(8),
        1 => file[at] = r.next() as u8,
        2 => file[at] = *r.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        3 => file.truncate(at),
        4 => drop(file.drain(at..at + length)),
        5 => {
            let part = file[at..at + length].to_vec();
            let to = r.below(n);
            file.splice(to..to, part);
        }
        6 => file[at..at + length].fill(*r.pick(&[0, 0xff, 0x80])),
        7 | 8 => {
            let number = r.pick(NUMBERS).to_le_bytes();
            let width = *r.pick(&[2usize, 4, 8]);
            let big = r.chance(50);
            for i in 0..width.min(n - at) {
                file[at + i] = number[if big { width - 1 - i } else { i }];
            }
        }
        9 => {
            let from = r.below(other.len());
            let part = other[from..(from + length).min(other.len())].to_vec();
            let to = r.below(n);
            file.splice(to..(to + part.len()).min(n), part);
        }
        10 => {
            let from = r.below(other.len());
            file.truncate(at);
            file.extend(&other[from..]);
        }
        _ => file[at] = file[at].wrapping_add(r.below(9) as u8).wrapping_sub(4),
    }
}

/// Values to put in a text in place of others.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "1",
    "1e308",
    "-0.0",
    "nan",
    "inf",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1e999",
    "0.5",
    "true",
    "false",
    "null",
    "\"\"",
    "\"../../etc\"",
    "\"\\u0000\"",
    "\"\\u001b[2J\"",
    "[]",
    "{}",
    "[[]]",
    "[1, -1]",
    "\"x\"",
    "\"10 GB\"",
    "\"99999999999 TB\"",
    "'''",
    "\"\"\"",
    "1979-05-27",
    "0x7fffffffffffffff",
    "18446744073709551616",
];

/// Changes a text a few times, by lines and by words, sometimes by bytes.
pub(crate) fn text(r: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=r.below(4) {
        if r.chance(15) {
            change(r, file, other);
            continue;
        }
        let own = String::from_utf8_lossy(file).into_owned();
        *file = change_text(r, &own, &String::from_utf8_lossy(other)).into_bytes();
    }
}

fn change_text(r: &mut Random, own: &str, other: &str) -> String {
    let mut lines: Vec<String> = own.lines().map(String::from).collect();
    if lines.is_empty() {
        return (*r.pick(WORDS)).to_string();
    }
    let at = r.below(lines.len());
    match r.below(6) {
        0 => drop(lines.remove(at)),
        1 => {
            let line = lines[at].clone();
            lines.insert(r.below(lines.len()), line);
        }
        2 => {
            let to = r.below(lines.len());
            lines.swap(at, to);
        }
        3 => {
            let theirs: Vec<&str> = other.lines().collect();
            if !theirs.is_empty() {
                lines.insert(at, (*r.pick(&theirs)).to_string());
            }
        }
        _ => {
            // A value follows an equals sign or a colon.
            let line = &mut lines[at];
            let value = line.find(['=', ':']).map_or(0, |i| i + 1);
            let comma = if line.trim_end().ends_with(',') { "," } else { "" };
            *line = format!("{} {}{comma}", &line[..value], r.pick(WORDS));
        }
    }
    lines.join("\n") + "\n"
}
