//! The tensor type: element type, shape, shared storage, and its position in the record of differentiation.
use crate::buffer::{Buffer, Element};
use crate::tape::GradRef;
use crate::{DType, Result, TensorError, memory, shape};
use std::fmt;
use std::sync::Arc;

/// A contiguous row-major array. Cloning shares the storage; writing copies it first if it is shared.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Arc<[usize]>,
    data: Buffer,
    /// The elements, if they are on the device; `data` is empty then.
    #[cfg(feature = "gpu")]
    pub(crate) device: Option<Arc<crate::gpu::DeviceData>>,
    pub(crate) grad: Option<GradRef>,
}

impl Tensor {
    /// A tensor of the elements' own type.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if `data` does not have as many elements as `shape`.
    pub fn new<T: Element>(data: Vec<T>, shape: impl Into<Vec<usize>>) -> Result<Self> {
        Self::from_buffer(T::DTYPE, T::wrap(Arc::new(data)), shape)
    }

    /// A tensor over existing storage, for types that share one (`I4` in `i8`, `F8E5M2` in `u8`).
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the element counts differ; [`TensorError::DType`] if the storage cannot hold `dtype`.
    pub fn from_buffer(dtype: DType, data: Buffer, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape: Vec<usize> = shape.into();
        if shape::count(&shape)? != data.len() {
            return Err(TensorError::shape("tensor", format!("{} elements do not fill shape {shape:?}", data.len())));
        }
        use DType::*;
        let fits = match &data {
            Buffer::F32(_) => dtype == F32,
            Buffer::F64(_) => dtype == F64,
            Buffer::F16(_) => dtype == F16,
            Buffer::BF16(_) => dtype == BF16,
            Buffer::I8(_) => matches!(dtype, I8 | I4 | I2),
            Buffer::I16(_) => dtype == I16,
            Buffer::I32(_) => dtype == I32,
            Buffer::I64(_) => dtype == I64,
            Buffer::U8(_) => matches!(dtype, U8 | U4 | U2 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1),
            Buffer::U16(_) => dtype == U16,
            Buffer::U32(_) => dtype == U32,
            Buffer::U64(_) => dtype == U64,
            Buffer::Bool(_) => dtype == Bool,
            Buffer::String(_) => dtype == String,
            Buffer::C64(_) => dtype == C64,
            Buffer::C128(_) => dtype == C128,
        };
        if !fits {
            return Err(TensorError::dtype("tensor", dtype, "is not what the storage holds"));
        }
        // Storage shared with a tensor has been counted already.
        crate::with_buffer!(&data, v => if Arc::strong_count(v) == 1 { memory::made(v) });
        let out = Self::assemble(dtype, shape.into(), data);
        memory::within("tensor")?;
        Ok(out)
    }

    fn assemble(dtype: DType, shape: Arc<[usize]>, data: Buffer) -> Self {
        Tensor {
            dtype,
            shape,
            data,
            #[cfg(feature = "gpu")]
            device: None,
            grad: None,
        }
    }

    /// A tensor whose elements are on the device.
    #[cfg(feature = "gpu")]
    pub(crate) fn from_device(dtype: DType, device: Arc<crate::gpu::DeviceData>, shape: impl Into<Vec<usize>>) -> Self {
        let shape: Vec<usize> = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), device.len());
        Tensor { dtype, shape: shape.into(), data: Buffer::F32(Arc::default()), device: Some(device), grad: None }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        let data = vec![value];
        memory::made(&data);
        Self::assemble(T::DTYPE, Arc::from([]), T::wrap(Arc::new(data)))
    }

    /// A tensor of one repeated value.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the shape's element count overflows, [`TensorError::Memory`] where there is no room.
    pub fn full<T: Element>(value: T, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape: Vec<usize> = shape.into();
        Self::new(vec![value; memory::room::<T>("full", &shape)?], shape)
    }

    /// A rank-1 tensor.
    pub fn vector<T: Element>(data: Vec<T>) -> Self {
        let shape = Arc::from([data.len()]);
        memory::made(&data);
        Self::assemble(T::DTYPE, shape, T::wrap(Arc::new(data)))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        #[cfg(feature = "gpu")]
        if let Some(device) = &self.device {
            return device.len();
        }
        self.data.len()
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage of the elements, in row-major order.
    ///
    /// # Panics
    /// If the elements are on a device that failed; [`Tensor::as_slice`] gives an error there.
    pub fn buffer(&self) -> &Buffer {
        match self.host() {
            Ok(data) => data,
            Err(e) => panic!("{e}"),
        }
    }

    /// Number of elements of a tensor of shape `to` and this one's type; checks the memory limit.
    pub(crate) fn room(&self, op: &'static str, to: &[usize]) -> Result<usize> {
        if self.on_device() {
            return shape::count(to);
        }
        let bytes = crate::with_buffer!(&self.data, v => memory::of_each(v));
        memory::room_of(op, bytes, to)
    }

    /// The elements on the CPU, copied there if necessary.
    #[inline(always)]
    fn host(&self) -> Result<&Buffer> {
        #[cfg(feature = "gpu")]
        if let Some(device) = &self.device {
            return device.host();
        }
        Ok(&self.data)
    }

    /// Moves the elements to the CPU.
    #[inline(always)]
    fn settle(&mut self) -> Result<()> {
        #[cfg(feature = "gpu")]
        if self.device.is_some() {
            self.data = self.host()?.clone();
            self.device = None;
        }
        Ok(())
    }

    /// The elements, if they are held as `T`.
    ///
    /// # Errors
    /// [`TensorError::DType`] if they are held as another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        T::peek(self.host()?)
            .map(|v| v.as_slice())
            .ok_or_else(|| TensorError::dtype("read", self.dtype, format!("where {} is needed", T::DTYPE)))
    }

    /// The elements as a vector: without a copy if there is no other reference.
    ///
    /// # Errors
    /// [`TensorError::DType`] if they are held as another type.
    pub fn into_vec<T: Element>(mut self) -> Result<Vec<T>> {
        self.settle()?;
        let dtype = self.dtype;
        let v = T::peek_mut(&mut self.data).ok_or_else(|| TensorError::dtype("read", dtype, format!("where {} is needed", T::DTYPE)))?;
        let taken = std::mem::take(v);
        Ok(Arc::try_unwrap(taken).inspect(|own| memory::dropped(own)).unwrap_or_else(|shared| shared.as_ref().clone()))
    }

    /// The elements for writing in place; copies first if they are shared. The tensor leaves the record of differentiation.
    ///
    /// # Errors
    /// [`TensorError::DType`] if they are held as another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.grad = None;
        self.settle()?;
        let dtype = self.dtype;
        let v = T::peek_mut(&mut self.data).ok_or_else(|| TensorError::dtype("write", dtype, format!("where {} is needed", T::DTYPE)))?;
        // A vector that the device's cache references (weakly) moves, and is no longer found there.
        if Arc::strong_count(v) != 1 {
            *v = Arc::new(crate::recycle::copy::<T>(v));
            memory::made(v);
        }
        Ok(Arc::make_mut(v).as_mut_slice())
    }

    /// The elements for writing, if they are on the CPU and there is no other reference.
    pub(crate) fn unshared<T: Element>(&mut self) -> Option<&mut [T]> {
        #[cfg(feature = "gpu")]
        if self.device.is_some() {
            return None;
        }
        T::peek_mut(&mut self.data).and_then(Arc::get_mut).map(Vec::as_mut_slice)
    }

    /// This tensor's shape and position in the record, without its elements.
    pub(crate) fn stand_in(&self) -> Tensor {
        let mut out = Self::assemble(self.dtype, self.shape.clone(), f32::wrap(Arc::default()));
        out.grad = self.grad.clone();
        out
    }

    /// The one element of a tensor with one element.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if it has more or none; [`TensorError::DType`] if it is held as another type.
    pub fn item<T: Element>(&self) -> Result<T> {
        match self.as_slice::<T>()? {
            [one] => Ok(one.clone()),
            more => Err(TensorError::shape("item", format!("one element is needed, shape {:?} has {}", self.shape(), more.len()))),
        }
    }

    /// The same elements under another shape of equal count (differentiable; shares the storage).
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the counts differ.
    pub fn reshape(&self, to: impl Into<Vec<usize>>) -> Result<Tensor> {
        let to: Vec<usize> = to.into();
        if shape::count(&to)? != self.len() {
            return Err(TensorError::shape("reshape", format!("{:?} does not have as many elements as {to:?}", self.shape())));
        }
        let mut out = self.detach();
        out.shape = to.into();
        let from = self.shape.clone();
        Ok(crate::record("reshape", &[self], out, move |dy| Ok(vec![Some(dy.reshape(from.to_vec())?)])))
    }
}

impl Drop for Tensor {
    /// Storage without other references is returned for reuse.
    fn drop(&mut self) {
        crate::with_buffer!(&mut self.data, v => if Arc::strong_count(v) == 1 { memory::dropped(v) });
        if let Buffer::F32(v) = &mut self.data
            && let Some(own) = Arc::get_mut(v)
        {
            crate::recycle::give(std::mem::take(own));
        }
    }
}

impl PartialEq for Tensor {
    /// Equal type, shape and elements, floats by their bits (so NaN equals itself, and -0 differs from 0).
    fn eq(&self, other: &Self) -> bool {
        fn bits<T, B: PartialEq>(a: &[T], b: &[T], f: impl Fn(&T) -> B) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| f(x) == f(y))
        }
        self.dtype == other.dtype
            && self.shape == other.shape
            && match (self.buffer(), other.buffer()) {
                (Buffer::F32(a), Buffer::F32(b)) => Arc::ptr_eq(a, b) || bits(a, b, |v| v.to_bits()),
                (Buffer::F64(a), Buffer::F64(b)) => Arc::ptr_eq(a, b) || bits(a, b, |v| v.to_bits()),
                (Buffer::F16(a), Buffer::F16(b)) => bits(a, b, |v| v.to_bits()),
                (Buffer::BF16(a), Buffer::BF16(b)) => bits(a, b, |v| v.to_bits()),
                (Buffer::C64(a), Buffer::C64(b)) => bits(a, b, |v| v.map(f32::to_bits)),
                (Buffer::C128(a), Buffer::C128(b)) => bits(a, b, |v| v.map(f64::to_bits)),
                (a, b) => a == b,
            }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {}{:?}", self.dtype, self.shape())?;
        if self.len() <= 16 {
            crate::with_buffer!(self.buffer(), v => write!(f, " {v:?}"))?;
        }
        Ok(())
    }
}
