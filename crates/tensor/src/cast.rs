//! Conversion between element types.
use crate::device::on_device;
use crate::small_float::SmallFloat;
use crate::{Buffer, DType, Element, Result, Tensor, TensorError, memory, record};
use half::{bf16, f16};
use num_traits::AsPrimitive;

/// Rounding of a value between two powers of two to float8e8m0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PowerRounding {
    /// To the larger power.
    #[default]
    Up,
    /// To the smaller power.
    Down,
    /// To the nearer power.
    Nearest,
}

/// Handling of values that a narrow float cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CastOptions {
    /// Saturates: values beyond the largest finite one become that value instead of infinity or NaN, in 8-bit floats.
    pub saturate: bool,
    /// Rounding of float8e8m0.
    pub power_rounding: PowerRounding,
}

impl Default for CastOptions {
    fn default() -> Self {
        CastOptions { saturate: true, power_rounding: PowerRounding::Up }
    }
}

/// Converts a slice element by element.
fn convert<S: Copy, D: Element>(from: &[S], f: impl Fn(S) -> D) -> Vec<D> {
    from.iter().map(|v| f(*v)).collect()
}

/// The elements of any numeric tensor (bool as 0 and 1, narrow floats decoded) as `D`, as Rust's `as` converts them:
/// floats to integers saturate, integers to narrower ones wrap.
fn numbers<D: Element + Copy>(t: &Tensor) -> Result<Vec<D>>
where
    f32: AsPrimitive<D>,
    f64: AsPrimitive<D>,
    f16: AsPrimitive<D>,
    bf16: AsPrimitive<D>,
    i8: AsPrimitive<D>,
    i16: AsPrimitive<D>,
    i32: AsPrimitive<D>,
    i64: AsPrimitive<D>,
    u8: AsPrimitive<D>,
    u16: AsPrimitive<D>,
    u32: AsPrimitive<D>,
    u64: AsPrimitive<D>,
{
    memory::room::<D>("cast", t.shape())?;
    if let Some(format) = SmallFloat::of(t.dtype()) {
        let table = format.table();
        return Ok(convert(t.as_slice::<u8>()?, |code| table[code as usize].as_()));
    }
    Ok(match t.buffer() {
        Buffer::F32(v) => convert(v, |x: f32| x.as_()),
        Buffer::F64(v) => convert(v, |x: f64| x.as_()),
        Buffer::F16(v) => convert(v, |x: f16| x.to_f32().as_()),
        Buffer::BF16(v) => convert(v, |x: bf16| x.to_f32().as_()),
        Buffer::I8(v) => convert(v, |x: i8| x.as_()),
        Buffer::I16(v) => convert(v, |x: i16| x.as_()),
        Buffer::I32(v) => convert(v, |x: i32| x.as_()),
        Buffer::I64(v) => convert(v, |x: i64| x.as_()),
        Buffer::U8(v) => convert(v, |x: u8| x.as_()),
        Buffer::U16(v) => convert(v, |x: u16| x.as_()),
        Buffer::U32(v) => convert(v, |x: u32| x.as_()),
        Buffer::U64(v) => convert(v, |x: u64| x.as_()),
        Buffer::Bool(v) => convert(v, |x: bool| (x as u8).as_()),
        Buffer::String(_) | Buffer::C64(_) | Buffer::C128(_) => return Err(TensorError::dtype("cast", t.dtype(), "is not a real number")),
    })
}

/// Strings as ONNX's Cast reads them: decimal or scientific, `INF`, `-INF`, `NaN` in any case.
fn parse(t: &Tensor) -> Result<Tensor> {
    let parsed: Vec<f64> = t
        .as_slice::<String>()?
        .iter()
        .enumerate()
        .map(|(i, s)| s.trim().parse().map_err(|_| TensorError::value("cast", format!("element {i}, '{s}', is not a number"))))
        .collect::<Result<_>>()?;
    Tensor::new(parsed, t.shape())
}

fn parse_integers(t: &Tensor) -> Option<Result<Tensor>> {
    let parsed: Option<Vec<i64>> = t.as_slice::<String>().ok()?.iter().map(|s| s.trim().parse().ok()).collect();
    Some(Tensor::new(parsed?, t.shape()))
}

fn print(t: &Tensor) -> Result<Vec<String>> {
    fn float(v: impl num_traits::Float + std::fmt::Debug) -> String {
        match (v.is_nan(), v.is_infinite(), v.is_sign_negative()) {
            (true, ..) => "NaN".into(),
            (_, true, false) => "INF".into(),
            (_, true, true) => "-INF".into(),
            _ => format!("{v:?}"),
        }
    }
    Ok(match t.dtype() {
        DType::F64 => convert(t.as_slice::<f64>()?, float),
        d if d.is_float() || SmallFloat::of(d).is_some() => convert(&numbers::<f32>(t)?, float),
        DType::Bool => convert(t.as_slice::<bool>()?, |v| if v { "True".into() } else { "False".into() }),
        DType::U64 => convert(t.as_slice::<u64>()?, |v| v.to_string()),
        _ => convert(&numbers::<i64>(t)?, |v| v.to_string()),
    })
}

/// The low `bits` of an integer, as a two's complement number if `signed`.
fn wrap_bits(v: i64, bits: u32, signed: bool) -> i64 {
    let shift = 64 - bits;
    if signed { (v << shift) >> shift } else { ((v as u64) << shift >> shift) as i64 }
}

impl Tensor {
    /// The elements as another type: floats to integers truncate and saturate (4- and 2-bit ones wrap), integers wrap,
    /// narrow floats round to nearest even and saturate, strings are parsed and printed. Differentiable between floats.
    ///
    /// # Errors
    /// [`TensorError::DType`] for complex numbers; [`TensorError::Value`] for a string that is not a number.
    pub fn cast(&self, to: DType) -> Result<Tensor> {
        self.cast_with(to, CastOptions::default())
    }

    /// The same, with options for narrow floats.
    ///
    /// # Errors
    /// As [`Tensor::cast`].
    pub fn cast_with(&self, to: DType, options: CastOptions) -> Result<Tensor> {
        let from = self.dtype();
        if from == to {
            return Ok(self.clone());
        }
        let out = self.converted(to, options)?;
        if !(from.is_float() && to.is_float()) {
            return Ok(out);
        }
        Ok(record("cast", &[self], out, move |dy| Ok(vec![Some(dy.cast(from)?)])))
    }

    fn converted(&self, to: DType, options: CastOptions) -> Result<Tensor> {
        use DType::*;
        if to == F32 {
            on_device!(crate::gpu::to_float(self));
        }
        if self.dtype() == String {
            let read = if to.is_int() { parse_integers(self) } else { None };
            return read.unwrap_or_else(|| parse(self))?.cast_with(to, options);
        }
        let shape = self.shape();
        if !matches!(to, F32 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64) {
            // The conversion goes through intermediate values of a common type.
            memory::work_space::<u64>("cast", self.len(), if to == String { 4 } else { 2 })?;
        }
        if let Some(format) = SmallFloat::of(to) {
            let table = format.table();
            let codes = convert(&numbers::<f32>(self)?, |v| format.encode(&table, v, options));
            return Tensor::from_buffer(to, u8::wrap(codes.into()), shape);
        }
        match to {
            F32 => Tensor::new(numbers::<f32>(self)?, shape),
            F64 => Tensor::new(numbers::<f64>(self)?, shape),
            F16 if self.dtype() == F64 => Tensor::new(convert(self.as_slice::<f64>()?, f16::from_f64), shape),
            F16 => Tensor::new(convert(&numbers::<f32>(self)?, f16::from_f32), shape),
            BF16 if self.dtype() == F64 => Tensor::new(convert(self.as_slice::<f64>()?, bf16::from_f64), shape),
            BF16 => Tensor::new(convert(&numbers::<f32>(self)?, bf16::from_f32), shape),
            I8 => Tensor::new(numbers::<i8>(self)?, shape),
            I16 => Tensor::new(numbers::<i16>(self)?, shape),
            I32 => Tensor::new(numbers::<i32>(self)?, shape),
            I64 => Tensor::new(numbers::<i64>(self)?, shape),
            U8 => Tensor::new(numbers::<u8>(self)?, shape),
            U16 => Tensor::new(numbers::<u16>(self)?, shape),
            U32 => Tensor::new(numbers::<u32>(self)?, shape),
            U64 => Tensor::new(numbers::<u64>(self)?, shape),
            I4 | I2 => {
                let narrow = convert(&numbers::<i64>(self)?, |v| wrap_bits(v, to.bits() as u32, true) as i8);
                Tensor::from_buffer(to, i8::wrap(narrow.into()), shape)
            }
            U4 | U2 => {
                let narrow = convert(&numbers::<i64>(self)?, |v| wrap_bits(v, to.bits() as u32, false) as u8);
                Tensor::from_buffer(to, u8::wrap(narrow.into()), shape)
            }
            Bool if self.dtype().is_int() => Tensor::new(convert(&numbers::<i64>(self)?, |v| v != 0), shape),
            Bool => Tensor::new(convert(&numbers::<f64>(self)?, |v| v != 0.0), shape),
            String => Tensor::new(print(self)?, shape),
            other => Err(TensorError::dtype("cast", other, "cannot be cast to")),
        }
    }

    /// The elements of any real type as f32.
    ///
    /// # Errors
    /// [`TensorError::DType`] for strings and complex numbers.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        numbers(self)
    }

    /// The elements of any real type as f64.
    ///
    /// # Errors
    /// [`TensorError::DType`] for strings and complex numbers.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        numbers(self)
    }

    /// The elements of any real type as i64 (floats truncate).
    ///
    /// # Errors
    /// [`TensorError::DType`] for strings and complex numbers.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>> {
        numbers(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_floats_saturate() {
        let wide = Tensor::vector(vec![300i32, -1, 7]);
        assert_eq!(wide.cast(DType::U8).unwrap(), Tensor::vector(vec![44u8, 255, 7]));
        assert_eq!(wide.cast(DType::I4).unwrap().to_i64_vec().unwrap(), [-4, -1, 7]);
        let x = Tensor::vector(vec![300f32, -1.7, f32::NAN]);
        assert_eq!(x.cast(DType::I8).unwrap(), Tensor::vector(vec![127i8, -1, 0]));
    }

    #[test]
    fn strings_are_read_and_written() {
        let s = Tensor::vector(["1.5", "-INF", "nan", "1e3"].map(String::from).to_vec());
        let x = s.cast(DType::F32).unwrap();
        assert_eq!(x.cast(DType::String).unwrap(), Tensor::vector(["1.5", "-INF", "NaN", "1000.0"].map(String::from).to_vec()));
        assert!(Tensor::vector(vec!["x".to_string()]).cast(DType::F32).is_err());
    }

    #[test]
    fn a_cast_between_floats_carries_gradients() {
        let x = Tensor::vector(vec![1f64, 2.0]).tracked().unwrap();
        let loss = x.cast(DType::F32).unwrap().sum(&[0], false).unwrap();
        let mut g = loss.backward().unwrap();
        assert_eq!(g.take(&x).unwrap(), Tensor::vector(vec![1f64, 1.0]));
    }
}
