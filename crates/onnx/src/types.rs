//! `ValueInfoProto` and `TypeProto`: declared types of values.
use crate::data_type;
use crate::error::{Place, Result};
use crate::import::{at, each};
use graph::{Dim, Extra, Value, ValueType};

/// The type of a known tensor.
pub(crate) fn tensor_type(t: &tensor::Tensor) -> ValueType {
    ValueType::Tensor { dtype: t.dtype(), shape: Some(t.shape().iter().map(|d| Dim::Known(*d)).collect()) }
}

pub(crate) fn value_info(bytes: &[u8], place: &Place) -> Result<Value> {
    let mut v = Value::default();
    let mut extra = Extra::default();
    each(bytes, place, &mut extra, |f| {
        match f.number {
            1 => v.name = at(place, 1)(f.value.string())?,
            2 => v.ty = value_type(at(place, 2)(f.value.bytes())?, place)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    v.extra = extra;
    Ok(v)
}

/// A dense tensor type is parsed; everything else (sequences, denotations) is kept as bytes.
fn value_type(bytes: &[u8], place: &Place) -> Result<ValueType> {
    let other = || Ok(ValueType::Other(Extra(bytes.to_vec())));
    let mut extra = Extra::default();
    let mut tensor = None;
    each(bytes, place, &mut extra, |f| {
        if f.number == 1 {
            tensor = Some(at(place, 1)(f.value.bytes())?);
        }
        Ok(f.number == 1)
    })?;
    let (Some(tensor), true) = (tensor, extra.0.is_empty()) else { return other() };
    let (mut element, mut shape) = (0, None);
    each(tensor, place, &mut extra, |f| {
        match f.number {
            1 => element = at(place, 1)(f.value.int())?,
            2 => shape = Some(at(place, 2)(f.value.bytes())?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let dtype = match data_type::from_number(element) {
        Ok(d) => d,
        Err(_) if element == 0 => return other(),
        Err(e) => return Err(place.error(e)),
    };
    let mut dims = vec![];
    if let Some(shape) = shape {
        each(shape, place, &mut extra, |f| {
            if f.number == 1 {
                let dim = at(place, 1)(f.value.bytes())?;
                let mut d = Dim::Unknown;
                each(dim, place, &mut Extra::default(), |f| {
                    match f.number {
                        1 => {
                            let n = at(place, 1)(f.value.int())?;
                            d = usize::try_from(n).map_or(Dim::Unknown, Dim::Known);
                        }
                        2 => {
                            let s = at(place, 2)(f.value.string())?;
                            d = if s.is_empty() { Dim::Unknown } else { Dim::Symbol(s) };
                        }
                        _ => {}
                    }
                    Ok(true)
                })?;
                dims.push(d);
            }
            Ok(f.number == 1)
        })?;
    }
    if !extra.0.is_empty() {
        return other();
    }
    Ok(ValueType::Tensor { dtype, shape: shape.map(|_| dims) })
}
