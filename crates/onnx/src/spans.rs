//! Where in a file the numbers of its tensors lie.
use crate::error::Place;
use crate::wire::{Fields, Wire};
use crate::{Result, data_type};
use tensor::DType;

/// The numbers of a tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub length: usize,
    /// The type of the numbers.
    pub dtype: DType,
    /// The tensor's sizes, as the file states them.
    pub sizes: Vec<i64>,
    /// True if each number is a protobuf integer (`int32_data`, `int64_data`, `uint64_data`); else they lie as in `raw_data`.
    pub varints: bool,
}

/// The numbers of all tensors of a serialized model, in the order of the file: `raw_data` and the packed fields of typed numbers, of
/// initializers, constants in attributes and in subgraphs and functions. Tensors of a type that is unknown, of strings, without numbers
/// and in other files are left out.
///
/// # Errors
/// [`crate::OnnxError`] if the bytes are no protobuf message with a graph.
pub fn spans(file: &[u8]) -> Result<Vec<Span>> {
    let mut found = Found { file, spans: vec![], depth: 0 };
    let mut graphs = 0;
    let read = each(file, &mut |number, bytes| match number {
        7 => {
            graphs += 1;
            found.graph(bytes)
        }
        25 => each(bytes, &mut |number, bytes| if number == 7 { found.node(bytes) } else { Ok(()) }),
        _ => Ok(()),
    });
    let read = read.and_then(|()| if graphs == 0 { Err("has no graph".to_string()) } else { Ok(()) });
    read.map_err(|what| Place::root("model").error(what))?;
    found.spans.sort_by_key(|span| span.at);
    Ok(found.spans)
}

/// Most graphs inside each other.
const DEPTH: usize = 64;

struct Found<'a> {
    file: &'a [u8],
    spans: Vec<Span>,
    depth: usize,
}

fn each<'a>(message: &'a [u8], f: &mut dyn FnMut(u32, &'a [u8]) -> std::result::Result<(), String>) -> std::result::Result<(), String> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        if let Wire::Bytes(bytes) = field.value {
            f(field.number, bytes)?;
        }
    }
    Ok(())
}

impl<'a> Found<'a> {
    fn graph(&mut self, message: &'a [u8]) -> std::result::Result<(), String> {
        if self.depth == DEPTH {
            return Err(format!("has more than {DEPTH} graphs inside each other"));
        }
        self.depth += 1;
        each(message, &mut |number, bytes| match number {
            1 => self.node(bytes),
            5 => self.tensor(bytes),
            _ => Ok(()),
        })?;
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, message: &'a [u8]) -> std::result::Result<(), String> {
        each(message, &mut |number, attribute| match number {
            5 => each(attribute, &mut |number, bytes| match number {
                5 | 10 => self.tensor(bytes),
                6 | 11 => self.graph(bytes),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    }

    fn tensor(&mut self, message: &'a [u8]) -> std::result::Result<(), String> {
        let (mut sizes, mut dtype, mut numbers) = (vec![], None, vec![]);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, sized) => sized.ints(&mut sizes)?,
                (2, Wire::Varint(code)) => dtype = data_type::from_number(code as i64).ok(),
                (4 | 5 | 7 | 9..=11, Wire::Bytes(bytes)) => numbers.push((field.number, bytes)),
                _ => {}
            }
        }
        let Some(dtype) = dtype else { return Ok(()) };
        for (field, numbers) in numbers.into_iter().filter(|(_, numbers)| !numbers.is_empty()) {
            // Complex numbers are pairs of floats.
            let dtype = match field {
                4 => DType::F32,
                10 => DType::F64,
                _ => dtype,
            };
            let at = numbers.as_ptr() as usize - self.file.as_ptr() as usize;
            let varints = matches!(field, 5 | 7 | 11);
            self.spans.push(Span { at, length: numbers.len(), dtype, sizes: sizes.clone(), varints });
        }
        Ok(())
    }
}
