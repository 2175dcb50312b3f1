//! NumPy's array format (`.npy`, versions 1 to 3): a text header, then the elements.
//!
//! Source: `numpy.lib.format`, whose header is a Python dictionary literal with the keys `descr`, `fortran_order` and
//! `shape`. Every fixed type is read, in either byte order and either memory order; object arrays (pickles) are refused.
use crate::{DataError, Result, memory};
use std::io::{Read, Write};
use std::path::Path;
use tensor::{Buffer, DType, Tensor, f16, shape};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read: NumPy's own limit for files it does not trust.
const MAX_HEADER: usize = 64 * 1024;

/// Reads one array from a file.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::Format`] if it is truncated, malformed or of a type that no tensor has.
pub fn read(path: &Path) -> Result<Tensor> {
    let open = || std::fs::File::open(path).map(std::io::BufReader::new).map_err(DataError::io(path));
    let fault = |what: String| DataError::format(path, what);
    memory::check(announced(&mut open()?).map_err(fault)?, memory::most()).map_err(fault)?;
    decode(&mut open()?).map_err(fault)
}

/// Writes one array to a file, which appears complete or not at all.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::Format`] if NumPy has no such element type.
pub fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    files::write_with(path, DataError::io(path), |file| encode(tensor, file).map_err(|what| DataError::format(path, what)))
}

struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// Bytes that an array takes in memory while it is read, by its header alone; the error is a sentence without the file's name.
pub(crate) fn announced(reader: &mut impl Read) -> Result<u64, String> {
    let header = read_header(reader)?;
    let type_ = ElementType::parse(&header.descr)?;
    let count = shape::count(&header.shape).map_err(|e| e.to_string())?;
    // The file's bytes, and what they become.
    let own = if matches!(type_.kind, 'S' | 'U') { size_of::<String>() + type_.bytes } else { type_.bytes };
    Ok((count as u64).saturating_mul((type_.bytes + own) as u64))
}

/// Reads an array; the error is a sentence without the file's name.
pub(crate) fn decode(reader: &mut impl Read) -> Result<Tensor, String> {
    let header = read_header(reader)?;
    let type_ = ElementType::parse(&header.descr)?;
    let count = shape::count(&header.shape).map_err(|e| e.to_string())?;
    let size = count.checked_mul(type_.bytes).ok_or_else(|| format!("shape {:?} is too large", header.shape))?;
    let mut bytes = Vec::new();
    // `take` grows with what is there, so a lying header cannot make us allocate more than the file holds.
    reader.take(size as u64).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() != size {
        return Err(format!("truncated: shape {:?} of {} needs {size} bytes, {} are there", header.shape, header.descr, bytes.len()));
    }
    if type_.big_endian {
        bytes.chunks_exact_mut(type_.swap).for_each(|element| element.reverse());
    }
    if header.fortran && header.shape.len() > 1 {
        bytes = to_row_major(&bytes, &header.shape, type_.bytes);
    }
    let (dtype, buffer) = type_.buffer(&bytes)?;
    Tensor::from_buffer(dtype, buffer, header.shape).map_err(|e| e.to_string())
}

fn read_header(reader: &mut impl Read) -> Result<Header, String> {
    let mut start = [0u8; 8];
    reader.read_exact(&mut start).map_err(|_| "not a NumPy array: shorter than its magic number")?;
    if &start[..6] != MAGIC {
        return Err("not a NumPy array: it does not begin with \\x93NUMPY".into());
    }
    let mut length = [0u8; 4];
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("NumPy format version {version} is not known")),
    };
    reader.read_exact(&mut length[..width]).map_err(|_| "truncated in the header")?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(format!("the header claims {length} bytes, more than {MAX_HEADER}"));
    }
    let mut text = vec![0u8; length];
    reader.read_exact(&mut text).map_err(|_| "truncated in the header")?;
    let text = String::from_utf8(text).map_err(|_| "the header is not text")?;
    parse_header(&text).ok_or_else(|| format!("header not understood: {}", text.trim_end()))
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Option<Header> {
    let value = |key: &str| {
        let after = text.find(&format!("'{key}'"))? + key.len() + 2;
        text[after..].trim_start().strip_prefix(':').map(str::trim_start)
    };
    let descr = value("descr")?.strip_prefix('\'')?.split('\'').next()?.to_string();
    let order = value("fortran_order")?;
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return None;
    }
    let dims = value("shape")?.strip_prefix('(')?;
    let dims = &dims[..dims.find(')')?];
    let shape = dims.split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.trim_end_matches('L').parse().ok());
    Some(Header { descr, fortran, shape: shape.collect::<Option<_>>()? })
}

fn to_row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let rank = shape.len();
    let mut column_strides = vec![size; rank];
    for axis in 1..rank {
        column_strides[axis] = column_strides[axis - 1] * shape[axis - 1];
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0usize; rank];
    for _ in 0..bytes.len() / size.max(1) {
        let at: usize = index.iter().zip(&column_strides).map(|(i, s)| i * s).sum();
        out.extend_from_slice(&bytes[at..at + size]);
        for axis in (0..rank).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// An element type as the header spells it: byte order, kind, width.
struct ElementType {
    big_endian: bool,
    kind: char,
    bytes: usize,
    /// Width of what a byte swap reverses: half of a complex number, one character of a string.
    swap: usize,
}

impl ElementType {
    fn parse(descr: &str) -> Result<Self, String> {
        let unknown = || format!("element type '{descr}' is not supported");
        let mut chars = descr.chars();
        let mut kind = chars.next().ok_or_else(unknown)?;
        let mut big_endian = false;
        if matches!(kind, '<' | '>' | '|' | '=') {
            big_endian = kind == '>';
            kind = chars.next().ok_or_else(unknown)?;
        }
        let width: usize = chars.as_str().parse().map_err(|_| unknown())?;
        let (bytes, swap) = match (kind, width) {
            ('b', 1) => (1, 1),
            ('i' | 'u', 1 | 2 | 4 | 8) | ('f', 2 | 4 | 8) => (width, width),
            ('c', 8 | 16) => (width, width / 2),
            ('S', _) => (width, 1),
            ('U', _) => (width.checked_mul(4).ok_or_else(unknown)?, 4),
            _ => return Err(unknown()),
        };
        Ok(ElementType { big_endian, kind, bytes, swap })
    }

    /// Little-endian, row-major bytes as typed elements.
    fn buffer(&self, bytes: &[u8]) -> Result<(DType, Buffer), String> {
        macro_rules! elements {
            ($variant:ident, $ty:ty) => {
                (DType::$variant, Buffer::$variant(elements(bytes, <$ty>::from_le_bytes).into()))
            };
        }
        Ok(match (self.kind, self.bytes) {
            ('b', _) => (DType::Bool, Buffer::Bool(bytes.iter().map(|b| *b != 0).collect::<Vec<_>>().into())),
            ('i', 1) => elements!(I8, i8),
            ('i', 2) => elements!(I16, i16),
            ('i', 4) => elements!(I32, i32),
            ('i', _) => elements!(I64, i64),
            ('u', 1) => (DType::U8, Buffer::U8(bytes.to_vec().into())),
            ('u', 2) => elements!(U16, u16),
            ('u', 4) => elements!(U32, u32),
            ('u', _) => elements!(U64, u64),
            ('f', 2) => elements!(F16, f16),
            ('f', 4) => elements!(F32, f32),
            ('f', _) => elements!(F64, f64),
            ('c', 8) => (DType::C64, Buffer::C64(pairs(elements(bytes, f32::from_le_bytes)).into())),
            ('c', _) => (DType::C128, Buffer::C128(pairs(elements(bytes, f64::from_le_bytes)).into())),
            ('S' | 'U', 0) => return Err("strings of length 0 have no count".into()),
            ('S', width) => (DType::String, Buffer::String(strings(bytes, width, byte_string)?.into())),
            (_, width) => (DType::String, Buffer::String(strings(bytes, width, utf32_string)?.into())),
        })
    }
}

fn elements<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

fn pairs<T: Copy>(parts: Vec<T>) -> Vec<[T; 2]> {
    parts.as_chunks::<2>().0.to_vec()
}

fn strings(bytes: &[u8], width: usize, read: impl Fn(&[u8]) -> Option<String>) -> Result<Vec<String>, String> {
    bytes.chunks_exact(width).enumerate().map(|(i, s)| read(s).ok_or_else(|| format!("element {i} is not text"))).collect()
}

fn byte_string(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    String::from_utf8(bytes[..end].to_vec()).ok()
}

fn utf32_string(bytes: &[u8]) -> Option<String> {
    let text: Option<String> = elements(bytes, u32::from_le_bytes).into_iter().map(char::from_u32).collect();
    text.map(|t| t.trim_end_matches('\0').to_string())
}

/// Writes an array as NumPy does (version 1, little-endian, row-major); the error is a sentence without the file's name.
pub(crate) fn encode(tensor: &Tensor, writer: &mut impl Write) -> Result<(), String> {
    let (descr, body) = body(tensor)?;
    let dims: String = match tensor.shape() {
        [one] => format!("{one},"),
        dims => dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // Magic, version, length and header together fill a multiple of 64 bytes; the last byte is a newline.
    let padding = 63 - (MAGIC.len() + 4 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| format!("a shape of rank {} does not fit the header", tensor.rank()))?;
    let mut start = MAGIC.to_vec();
    start.extend([1, 0]);
    start.extend(length.to_le_bytes());
    start.extend(header.as_bytes());
    writer.write_all(&start).and_then(|()| writer.write_all(&body)).map_err(|e| e.to_string())
}

fn body(tensor: &Tensor) -> Result<(String, Vec<u8>), String> {
    macro_rules! plain {
        ($descr:literal, $values:expr) => {
            ($descr.to_string(), $values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
    }
    let foreign = || Err(format!("NumPy has no element type {}: cast it first", tensor.dtype()));
    use DType::*;
    if matches!(tensor.dtype(), F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 | I2 | I4 | U2 | U4) {
        return foreign();
    }
    Ok(match tensor.buffer() {
        Buffer::BF16(_) => return foreign(),
        Buffer::F32(v) => plain!("<f4", v),
        Buffer::F64(v) => plain!("<f8", v),
        Buffer::F16(v) => plain!("<f2", v),
        Buffer::I8(v) => plain!("|i1", v),
        Buffer::I16(v) => plain!("<i2", v),
        Buffer::I32(v) => plain!("<i4", v),
        Buffer::I64(v) => plain!("<i8", v),
        Buffer::U8(v) => ("|u1".into(), v.to_vec()),
        Buffer::U16(v) => plain!("<u2", v),
        Buffer::U32(v) => plain!("<u4", v),
        Buffer::U64(v) => plain!("<u8", v),
        Buffer::Bool(v) => ("|b1".into(), v.iter().map(|b| u8::from(*b)).collect()),
        Buffer::C64(v) => plain!("<c8", v.as_flattened()),
        Buffer::C128(v) => plain!("<c16", v.as_flattened()),
        Buffer::String(v) => {
            // NumPy stores one width for all elements; an empty string still takes one character.
            let width = v.iter().map(|s| s.chars().count()).max().unwrap_or(1).max(1);
            let padded = |s: &std::string::String| s.chars().map(u32::from).chain(std::iter::repeat(0)).take(width).collect::<Vec<_>>();
            (format!("<U{width}"), v.iter().flat_map(padded).flat_map(u32::to_le_bytes).collect())
        }
    })
}
