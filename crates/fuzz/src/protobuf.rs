//! Changes to a serialized protobuf message that leave it well formed, so that they reach the code behind its reader: fields
//! removed, repeated, moved, copied from elsewhere; numbers at the limits of their types.
use crate::mutate::{self, NUMBERS};
use crate::random::Random;

/// Messages nested deeper count as bytes.
const DEEPEST: usize = 24;

struct Field {
    number: u64,
    value: Value,
}

enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

/// Changes a message a few times, at any depth.
pub(crate) fn message(r: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=r.below(4) {
        match parse(file) {
            Some(mut fields) if !r.chance(5) => {
                change(r, &mut fields, other, 0);
                *file = write(&fields);
            }
            _ => mutate::bytes(r, file, other),
        }
    }
}

fn change(r: &mut Random, fields: &mut Vec<Field>, other: &[u8], depth: usize) {
    if fields.is_empty() {
        fields.push(Field { number: 1 + r.below(25) as u64, value: Value::Varint(*r.pick(NUMBERS) as u64) });
        return;
    }
    let at = r.below(fields.len());
    if depth < DEEPEST
        && r.chance(80)
        && let Value::Bytes(inner) = &mut fields[at].value
        && let Some(mut message) = parse(inner).filter(|m| !m.is_empty())
    {
        change(r, &mut message, other, depth + 1);
        *inner = write(&message);
        return;
    }
    match r.below(8) {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = write(&fields[at..=at]);
            let to = r.below(fields.len() + 1);
            if let Some(copy) = parse(&copy).and_then(|mut c| c.pop()) {
                fields.insert(to, copy);
            }
        }
        2 => {
            let to = r.below(fields.len());
            fields.swap(at, to);
        }
        3 => fields[at].number = 1 + r.below(30) as u64,
        4 => {
            if let Some(theirs) = inside(r, other) {
                let to = r.below(fields.len() + 1);
                fields.insert(to, theirs);
            }
        }
        _ => value(r, &mut fields[at].value, other),
    }
}

fn value(r: &mut Random, value: &mut Value, other: &[u8]) {
    match value {
        Value::Varint(v) => match r.below(3) {
            0 => *v = v.wrapping_add(r.below(5) as u64).wrapping_sub(2),
            1 => *v = r.below(32) as u64,
            _ => *v = *r.pick(NUMBERS) as u64,
        },
        Value::Fixed32(b) => {
            *b = r
                .pick(&[0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, 1e9])
                .to_le_bytes();
        }
        Value::Fixed64(b) => *b = r.pick(&[0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, 1e-320]).to_le_bytes(),
        // Packed numbers of 8 bytes, such as dimensions and shapes, are changed more often than other bytes.
        Value::Bytes(b) if b.len() >= 8 && b.len() % 8 == 0 && r.chance(50) => {
            let at = 8 * r.below(b.len() / 8);
            b[at..at + 8].copy_from_slice(&r.pick(NUMBERS).to_le_bytes());
        }
        Value::Bytes(b) if b.len() < 16 && r.chance(30) => {
            let mut packed = vec![];
            varint(&mut packed, *r.pick(NUMBERS) as u64);
            *b = packed;
        }
        Value::Bytes(b) => mutate::bytes(r, b, other),
    }
}

/// A field of another message, at a random depth.
fn inside(r: &mut Random, message: &[u8]) -> Option<Field> {
    let mut fields = parse(message)?;
    loop {
        if fields.is_empty() {
            return None;
        }
        let field = fields.swap_remove(r.below(fields.len()));
        match &field.value {
            Value::Bytes(b) if r.chance(75) => match parse(b).filter(|m| !m.is_empty()) {
                Some(inner) => fields = inner,
                None => return Some(field),
            },
            _ => return Some(field),
        }
    }
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(read_varint(&mut bytes)?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?.to_vec())
            }
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(n)?;
    *bytes = tail;
    Some(head)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut out = vec![];
    for f in fields {
        let wire = match &f.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        varint(&mut out, f.number << 3 | wire);
        match &f.value {
            Value::Varint(v) => varint(&mut out, *v),
            Value::Fixed64(b) => out.extend(b),
            Value::Bytes(b) => {
                varint(&mut out, b.len() as u64);
                out.extend(b);
            }
            Value::Fixed32(b) => out.extend(b),
        }
    }
    out
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_and_changes_repeat() {
        let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/gelu_20.onnx")).unwrap();
        assert_eq!(write(&parse(&file).unwrap()), file);
        let changed = |number| {
            let mut copy = file.clone();
            message(&mut Random::of(1, "onnx", number), &mut copy, &file);
            copy
        };
        assert_eq!(changed(3), changed(3));
        assert!((0..50).filter(|n| changed(*n) != file).count() > 40);
        // Most changed messages stay well formed.
        assert!((0..50).filter(|n| parse(&changed(*n)).is_some()).count() > 40);
    }
}
