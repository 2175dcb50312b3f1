//! `TensorProto` and `SparseTensorProto`: stored elements, in the file or beside it.
use crate::data_type;
use crate::error::{OnnxError, Place, Result};
use crate::wire::{Fields, Message};
use graph::Extra;
use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::Arc;
use tensor::{Buffer, DType, Tensor};

/// A stored tensor with all fields of its message.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) tensor: Tensor,
    pub(crate) external: Option<External>,
    pub(crate) extra: Extra,
}

/// The place of external bytes.
pub(crate) struct External {
    pub(crate) location: String,
    pub(crate) offset: u64,
    pub(crate) entries: Vec<(String, String)>,
}

#[derive(Default)]
struct Raw<'a> {
    dims: Vec<i64>,
    data_type: i64,
    floats: Vec<f32>,
    ints: Vec<i64>,
    longs: Vec<i64>,
    doubles: Vec<f64>,
    unsigned: Vec<i64>,
    strings: Vec<&'a [u8]>,
    raw: Option<&'a [u8]>,
    external: Vec<(String, String)>,
    location: i64,
}

/// Reads a `TensorProto`. External data is looked for in `folder`.
pub(crate) fn read(bytes: &[u8], folder: Option<&Path>, place: &Place) -> Result<Stored> {
    let mut r = Raw::default();
    let (mut name, mut extra) = (String::new(), Extra::default());
    let mut fields = Fields::new(bytes);
    let wrong = |what: String| place.error(what);
    while let Some(f) = fields.next_field().map_err(wrong)? {
        match f.number {
            1 => f.value.ints(&mut r.dims),
            2 => f.value.int().map(|v| r.data_type = v),
            4 => f.value.floats(&mut r.floats),
            5 => f.value.ints(&mut r.ints),
            6 => f.value.bytes().map(|b| r.strings.push(b)),
            7 => f.value.ints(&mut r.longs),
            8 => f.value.string().map(|s| name = s),
            9 => f.value.bytes().map(|b| r.raw = Some(b)),
            10 => f.value.doubles(&mut r.doubles),
            11 => f.value.ints(&mut r.unsigned),
            13 => f.value.bytes().and_then(entry).map(|e| r.external.push(e)),
            14 => f.value.int().map(|v| r.location = v),
            _ => {
                extra.0.extend(f.raw);
                Ok(())
            }
        }
        .map_err(|e| place.error(format!("tensor '{name}': field {} {e}", f.number)))?;
    }
    let inner = place.inside("tensor", &name);
    let dtype = data_type::from_number(r.data_type).map_err(|e| inner.error(e))?;
    let shape = dims(&r.dims).map_err(|e| inner.error(e))?;
    let count = tensor::shape::count(&shape).map_err(|e| inner.error(e.to_string()))?;
    if r.location == 1 {
        let external = external(&r, &inner)?;
        let folder = folder
            .ok_or_else(|| inner.error(format!("its elements lie in '{}', but the model was not read from a file", external.location)))?;
        let raw = read_external(&external, folder, dtype, count, &inner)?;
        let tensor = data_type::from_bytes(dtype, &raw, shape, count).map_err(|e| inner.error(e))?;
        return Ok(Stored { name, tensor, external: Some(external), extra });
    }
    let tensor = match r.raw {
        Some(raw) if dtype != DType::String && !(raw.is_empty() && count > 0 && r.has_typed()) => {
            if data_type::packed_len(dtype, count) != Some(raw.len()) {
                return Err(inner.error(format!("{} raw bytes are not {count} elements of {dtype} (shape {shape:?})", raw.len())));
            }
            data_type::from_bytes(dtype, raw, shape, count)
        }
        _ => r.typed(dtype, shape, count),
    };
    Ok(Stored { name: name.clone(), tensor: tensor.map_err(|e| inner.error(e))?, external: None, extra })
}

fn dims(dims: &[i64]) -> std::result::Result<Vec<usize>, String> {
    dims.iter().map(|d| usize::try_from(*d).map_err(|_| format!("dimension {d} is negative"))).collect()
}

/// Reads a `StringStringEntryProto`.
pub(crate) fn entry(bytes: &[u8]) -> std::result::Result<(String, String), String> {
    let (mut key, mut value) = (String::new(), String::new());
    let mut fields = Fields::new(bytes);
    while let Some(f) = fields.next_field()? {
        match f.number {
            1 => key = f.value.string()?,
            2 => value = f.value.string()?,
            _ => {}
        }
    }
    Ok((key, value))
}

impl Raw<'_> {
    fn has_typed(&self) -> bool {
        !(self.floats.is_empty() && self.ints.is_empty() && self.longs.is_empty() && self.doubles.is_empty() && self.unsigned.is_empty())
    }

    /// Elements from the typed fields, as `TensorProto`'s comments assign them to types.
    fn typed(&self, dtype: DType, shape: Vec<usize>, count: usize) -> std::result::Result<Tensor, String> {
        let need = |n: usize| if n == count { Ok(()) } else { Err(format!("{n} elements are stored, shape {shape:?} has {count}")) };
        macro_rules! ints {
            ($variant:ident, $ty:ty) => {{
                need(self.ints.len())?;
                Buffer::$variant(Arc::new(self.ints.iter().map(|v| *v as $ty).collect()))
            }};
        }
        let buffer = match dtype {
            DType::F32 => {
                need(self.floats.len())?;
                Buffer::F32(Arc::new(self.floats.clone()))
            }
            DType::F64 => {
                need(self.doubles.len())?;
                Buffer::F64(Arc::new(self.doubles.clone()))
            }
            DType::I64 => {
                need(self.longs.len())?;
                Buffer::I64(Arc::new(self.longs.clone()))
            }
            DType::U64 => {
                need(self.unsigned.len())?;
                Buffer::U64(Arc::new(self.unsigned.iter().map(|v| *v as u64).collect()))
            }
            DType::U32 => {
                need(self.unsigned.len())?;
                Buffer::U32(Arc::new(self.unsigned.iter().map(|v| *v as u32).collect()))
            }
            DType::C64 => {
                need(self.floats.len() / 2)?;
                Buffer::C64(Arc::new(self.floats.chunks_exact(2).map(|p| [p[0], p[1]]).collect()))
            }
            DType::C128 => {
                need(self.doubles.len() / 2)?;
                Buffer::C128(Arc::new(self.doubles.chunks_exact(2).map(|p| [p[0], p[1]]).collect()))
            }
            DType::String => {
                need(self.strings.len())?;
                let text = |b: &&[u8]| String::from_utf8(b.to_vec()).map_err(|_| "a string is not UTF-8".to_string());
                Buffer::String(Arc::new(self.strings.iter().map(text).collect::<std::result::Result<_, _>>()?))
            }
            DType::I32 => ints!(I32, i32),
            DType::I16 => ints!(I16, i16),
            DType::U16 => ints!(U16, u16),
            DType::I8 => ints!(I8, i8),
            DType::Bool => {
                need(self.ints.len())?;
                Buffer::Bool(Arc::new(self.ints.iter().map(|v| *v != 0).collect()))
            }
            DType::F16 => {
                need(self.ints.len())?;
                Buffer::F16(Arc::new(self.ints.iter().map(|v| half::f16::from_bits(*v as u16)).collect()))
            }
            DType::BF16 => {
                need(self.ints.len())?;
                Buffer::BF16(Arc::new(self.ints.iter().map(|v| half::bf16::from_bits(*v as u16)).collect()))
            }
            DType::U8 | DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => ints!(U8, u8),
            DType::I4 | DType::U4 | DType::F4E2M1 | DType::I2 | DType::U2 => {
                // One packed byte in each int32.
                let bytes: Vec<u8> = self.ints.iter().map(|v| *v as u8).collect();
                if data_type::packed_len(dtype, count) != Some(bytes.len()) {
                    return Err(format!("{} packed bytes are not {count} elements of {dtype}", bytes.len()));
                }
                return data_type::from_bytes(dtype, &bytes, shape, count);
            }
        };
        Tensor::from_buffer(dtype, buffer, shape).map_err(|e| e.to_string())
    }
}

fn external(r: &Raw, place: &Place) -> Result<External> {
    let mut e = External { location: String::new(), offset: 0, entries: vec![] };
    for (key, value) in &r.external {
        match key.as_str() {
            "location" => e.location = value.clone(),
            "offset" => e.offset = value.parse().map_err(|_| place.error(format!("external offset '{value}' is not a number")))?,
            _ => e.entries.push((key.clone(), value.clone())),
        }
    }
    if e.location.is_empty() {
        return Err(place.error("its elements are external, but no location is given"));
    }
    Ok(e)
}

/// The places of external data in a serialized model, at any depth. Parts that cannot be read are skipped.
pub(crate) fn external_locations(model: &[u8]) -> BTreeSet<String> {
    /// Messages of the schema that may contain a tensor.
    #[derive(Clone, Copy)]
    enum In {
        Model,
        Graph,
        Node,
        Attribute,
        Tensor,
    }
    let mut found = BTreeSet::new();
    let mut waiting = vec![(In::Model, model)];
    while let Some((kind, message)) = waiting.pop() {
        let mut fields = Fields::new(message);
        while let Ok(Some(f)) = fields.next_field() {
            let Ok(bytes) = f.value.bytes() else { continue };
            match (kind, f.number) {
                (In::Model, 7) | (In::Attribute, 6 | 11) => waiting.push((In::Graph, bytes)),
                (In::Graph, 1) => waiting.push((In::Node, bytes)),
                (In::Node, 5) => waiting.push((In::Attribute, bytes)),
                (In::Graph, 5) | (In::Attribute, 5 | 10) => waiting.push((In::Tensor, bytes)),
                (In::Tensor, 13) => found.extend(entry(bytes).ok().filter(|(k, _)| k == "location").map(|(_, v)| v)),
                _ => {}
            }
        }
    }
    found
}

/// Reads exactly the bytes the shape asks for, from inside the model's folder.
fn read_external(e: &External, folder: &Path, dtype: DType, count: usize, place: &Place) -> Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let path = folder.join(&e.location);
    let io = |source| OnnxError::Io { path: path.display().to_string(), source };
    let leaves = |how: &str| {
        let what =
            format!("external location '{}' leaves the model's folder{how}: --allow-external PATH lets it lie below PATH", e.location);
        place.error(what)
    };
    let plain = Path::new(&e.location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain && crate::data_files::allowed().is_empty() {
        return Err(leaves(""));
    }
    let real = path.canonicalize().map_err(io)?;
    let home = plain && real.starts_with(folder.canonicalize().map_err(io)?);
    if !home && !crate::data_files::allowed().iter().any(|a| real.starts_with(a)) {
        return Err(leaves(if plain { " by a link" } else { "" }));
    }
    let need = data_type::packed_len(dtype, count).ok_or_else(|| place.error("its size cannot be counted"))?;
    if let Some((_, length)) = e.entries.iter().find(|(k, _)| k == "length")
        && length.parse() != Ok(need)
    {
        return Err(place.error(format!("external length {length} is not the {need} bytes its shape needs")));
    }
    let mut file = std::fs::File::open(&path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if e.offset.checked_add(need as u64).is_none_or(|end| end > size) {
        return Err(place.error(format!("needs {need} bytes at {} of '{}', which has {size}", e.offset, e.location)));
    }
    file.seek(SeekFrom::Start(e.offset)).map_err(io)?;
    let mut raw = vec![0; need];
    file.read_exact(&mut raw).map_err(io)?;
    Ok(raw)
}

/// Writes a `TensorProto`; with `external`, the message holds only the place of the bytes.
pub(crate) fn write(name: &str, t: &Tensor, extra: &Extra, external: Option<(&str, u64, &[(String, String)])>) -> Message {
    let mut m = Message::default();
    m.packed_ints(1, &t.shape().iter().map(|d| *d as i64).collect::<Vec<_>>());
    m.int(2, data_type::number(t.dtype()));
    m.text(8, name);
    match (external, data_type::to_bytes(t), t.buffer()) {
        (Some((location, offset, entries)), _, _) => {
            let fixed = [("location".to_string(), location.to_string()), ("offset".to_string(), offset.to_string())];
            for (key, value) in fixed.iter().chain(entries) {
                m.message(13, write_entry(key, value));
            }
            m.int(14, 1);
        }
        (None, Some(raw), _) => m.bytes(9, &raw),
        (None, None, Buffer::String(v)) => v.iter().for_each(|s| m.bytes(6, s.as_bytes())),
        (None, None, _) => {}
    }
    m.raw(&extra.0);
    m
}

/// Writes a `StringStringEntryProto`.
pub(crate) fn write_entry(key: &str, value: &str) -> Message {
    let mut m = Message::default();
    m.bytes(1, key.as_bytes());
    m.bytes(2, value.as_bytes());
    m
}

/// Reads a `SparseTensorProto` into a dense tensor. Its size is bounded by what the rest of the file justifies.
pub(crate) fn read_sparse(bytes: &[u8], folder: Option<&Path>, place: &Place) -> Result<Stored> {
    const LARGEST: usize = 1 << 31;
    let (mut values, mut indices, mut shape) = (None, None, vec![]);
    let mut fields = Fields::new(bytes);
    while let Some(f) = fields.next_field().map_err(|e| place.error(e))? {
        let wrong = |e: String| place.error(format!("sparse tensor: {e}"));
        match f.number {
            1 => values = Some(read(f.value.bytes().map_err(wrong)?, folder, place)?),
            2 => indices = Some(read(f.value.bytes().map_err(wrong)?, folder, place)?),
            3 => f.value.ints(&mut shape).map_err(wrong)?,
            _ => {}
        }
    }
    let (Some(values), Some(indices)) = (values, indices) else { return Err(place.error("a sparse tensor lacks values or indices")) };
    let place = place.inside("sparse tensor", &values.name);
    let shape = dims(&shape).map_err(|e| place.error(e))?;
    let count = tensor::shape::count(&shape).ok().filter(|c| c.checked_mul(8).is_some_and(|b| b < LARGEST));
    let count = count.ok_or_else(|| place.error(format!("shape {shape:?} is too large to make dense")))?;
    let index = indices.tensor.as_slice::<i64>().map_err(|e| place.error(e.to_string()))?;
    let nonzero = values.tensor.len();
    let linear: Vec<usize> = match indices.tensor.shape() {
        [n] if *n == nonzero => index.iter().map(|i| usize::try_from(*i).unwrap_or(usize::MAX)).collect(),
        [n, rank] if *n == nonzero && *rank == shape.len() && *rank > 0 => {
            let strides = tensor::shape::strides(&shape);
            let inside = |row: &[i64]| row.iter().zip(&shape).all(|(i, d)| *i >= 0 && (*i as usize) < *d);
            index
                .chunks(*rank)
                .map(|row| if inside(row) { row.iter().zip(&strides).map(|(i, s)| *i as usize * s).sum() } else { usize::MAX })
                .collect()
        }
        other => return Err(place.error(format!("indices of shape {other:?} do not fit {nonzero} values"))),
    };
    if let Some(bad) = linear.iter().position(|i| *i >= count) {
        return Err(place.error(format!("index {bad} lies outside shape {shape:?}")));
    }
    let size = data_type::packed_len(values.tensor.dtype(), 1).filter(|_| values.tensor.dtype().bits() >= 8);
    let size = size.ok_or_else(|| place.error(format!("sparse {} is not supported", values.tensor.dtype())))?;
    let raw = data_type::to_bytes(&values.tensor).ok_or_else(|| place.error("sparse strings are not supported"))?;
    let mut dense = vec![0u8; count * size];
    for (i, element) in linear.iter().zip(raw.chunks_exact(size)) {
        dense[i * size..(i + 1) * size].copy_from_slice(element);
    }
    let tensor = data_type::from_bytes(values.tensor.dtype(), &dense, shape, count).map_err(|e| place.error(e))?;
    Ok(Stored { name: values.name, tensor, external: None, extra: values.extra })
}

/// Writes the nonzero elements of a tensor as a `SparseTensorProto` with linear indices; `None` where that is not possible.
pub(crate) fn write_sparse(name: &str, t: &Tensor, extra: &Extra) -> Option<Message> {
    let size = data_type::packed_len(t.dtype(), 1).filter(|_| t.dtype().bits() >= 8)?;
    let raw = data_type::to_bytes(t)?;
    let live: Vec<usize> = raw.chunks_exact(size).enumerate().filter(|(_, e)| e.iter().any(|b| *b != 0)).map(|(i, _)| i).collect();
    let kept: Vec<u8> = live.iter().flat_map(|i| raw[i * size..(i + 1) * size].iter().copied()).collect();
    let values = data_type::from_bytes(t.dtype(), &kept, vec![live.len()], live.len()).ok()?;
    let indices = Tensor::vector(live.iter().map(|i| *i as i64).collect::<Vec<_>>());
    let mut m = Message::default();
    m.message(1, write(name, &values, extra, None));
    m.message(2, write("", &indices, &Extra::default(), None));
    m.packed_ints(3, &t.shape().iter().map(|d| *d as i64).collect::<Vec<_>>());
    Some(m)
}
