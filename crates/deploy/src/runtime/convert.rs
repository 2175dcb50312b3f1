//! Tensors to and from ONNX Runtime's values.
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use tensor::{Buffer, DType, Element, Tensor, bf16, f16};

/// Our name of an element type, if both sides hold it the same way (types narrower than a byte are packed there).
pub(super) fn dtype(ty: TensorElementType) -> Option<DType> {
    use TensorElementType as T;
    Some(match ty {
        T::Float32 => DType::F32,
        T::Float64 => DType::F64,
        T::Float16 => DType::F16,
        T::Bfloat16 => DType::BF16,
        T::Int8 => DType::I8,
        T::Int16 => DType::I16,
        T::Int32 => DType::I32,
        T::Int64 => DType::I64,
        T::Uint8 => DType::U8,
        T::Uint16 => DType::U16,
        T::Uint32 => DType::U32,
        T::Uint64 => DType::U64,
        T::Bool => DType::Bool,
        T::String => DType::String,
        _ => return None,
    })
}

/// The tensor as an input; its elements are borrowed (strings are copied).
pub(super) fn to_ort(tensor: &Tensor) -> Result<SessionInputValue<'_>, String> {
    fn view<'t, T: PrimitiveTensorElementType + Element>(shape: Vec<i64>, data: &'t [T]) -> Result<SessionInputValue<'t>, String> {
        TensorRef::from_array_view((shape, data)).map(Into::into).map_err(|e| e.to_string())
    }
    let shape: Vec<i64> = tensor.shape().iter().map(|d| *d as i64).collect();
    let unsupported = || Err(format!("element type {} cannot be fed to ONNX Runtime", tensor.dtype()));
    match tensor.buffer() {
        Buffer::F32(v) => view(shape, v),
        Buffer::F64(v) => view(shape, v),
        Buffer::F16(v) => view(shape, v),
        Buffer::BF16(v) => view(shape, v),
        Buffer::I8(v) if tensor.dtype() == DType::I8 => view(shape, v),
        Buffer::I16(v) => view(shape, v),
        Buffer::I32(v) => view(shape, v),
        Buffer::I64(v) => view(shape, v),
        Buffer::U8(v) if tensor.dtype() == DType::U8 => view(shape, v),
        Buffer::U16(v) => view(shape, v),
        Buffer::U32(v) => view(shape, v),
        Buffer::U64(v) => view(shape, v),
        Buffer::Bool(v) => view(shape, v),
        Buffer::String(v) => ort::value::Tensor::from_string_array((shape, v.as_slice())).map(Into::into).map_err(|e| e.to_string()),
        _ => unsupported(),
    }
}

/// A copy of an output.
pub(super) fn from_ort(value: &DynValue) -> Result<Tensor, String> {
    fn copy<T: PrimitiveTensorElementType + Element>(value: &DynValue) -> Result<Tensor, String> {
        let (shape, data) = value.try_extract_tensor::<T>().map_err(|e| e.to_string())?;
        Tensor::new(data.to_vec(), sizes(shape)?).map_err(|e| e.to_string())
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(format!("is {:?}, not a tensor", value.dtype())) };
    use TensorElementType as T;
    match ty {
        T::Float32 => copy::<f32>(value),
        T::Float64 => copy::<f64>(value),
        T::Float16 => copy::<f16>(value),
        T::Bfloat16 => copy::<bf16>(value),
        T::Int8 => copy::<i8>(value),
        T::Int16 => copy::<i16>(value),
        T::Int32 => copy::<i32>(value),
        T::Int64 => copy::<i64>(value),
        T::Uint8 => copy::<u8>(value),
        T::Uint16 => copy::<u16>(value),
        T::Uint32 => copy::<u32>(value),
        T::Uint64 => copy::<u64>(value),
        T::Bool => copy::<bool>(value),
        T::String => {
            let (shape, data) = value.try_extract_strings().map_err(|e| e.to_string())?;
            Tensor::new(data, sizes(shape)?).map_err(|e| e.to_string())
        }
        other => Err(format!("element type {other:?} cannot be read from ONNX Runtime")),
    }
}

fn sizes(shape: &[i64]) -> Result<Vec<usize>, String> {
    shape.iter().map(|d| usize::try_from(*d).map_err(|_| format!("has shape {shape:?}"))).collect()
}
