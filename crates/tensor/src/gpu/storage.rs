//! The elements of a tensor on the device, and copies to and from it.
use super::context::{Context, Memory};
use crate::{Buffer, DType, Result, Tensor, TensorError, memory};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Elements on the device: f32, or bool as one 32-bit word each.
pub(crate) struct DeviceData {
    memory: Memory,
    dtype: DType,
    len: usize,
    /// The copy on the CPU, made when it is first read.
    host: OnceLock<Result<Buffer>>,
}

impl DeviceData {
    /// Memory for so many elements, or `None` if that is more than a kernel can bind.
    pub(super) fn new(context: &Context, dtype: DType, len: usize) -> Option<Self> {
        Some(DeviceData { memory: context.memory(len)?, dtype, len, host: OnceLock::new() })
    }

    /// The buffer that holds them.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The copy on the CPU.
    pub(crate) fn host(&self) -> Result<&Buffer> {
        self.host.get_or_init(|| self.download()).as_ref().map_err(Clone::clone)
    }

    fn download(&self) -> Result<Buffer> {
        let context = Context::get().ok_or_else(|| TensorError::value("gpu", "is gone"))?;
        count_copy(self.len as u64 * 4);
        let copy = context.download(&self.memory, self.len, |bytes| match self.dtype {
            DType::Bool => Buffer::Bool(Arc::new(bytes.chunks_exact(4).map(|w| w != [0; 4]).collect())),
            _ => Buffer::F32(Arc::new(bytes.as_chunks::<4>().0.iter().map(|w| f32::from_ne_bytes(*w)).collect())),
        })?;
        crate::with_buffer!(&copy, v => memory::made(v));
        Ok(copy)
    }
}

impl Drop for DeviceData {
    /// The copy on the CPU counts as memory like any tensor's; elements on the device do not.
    fn drop(&mut self) {
        if let Some(Ok(copy)) = self.host.get() {
            crate::with_buffer!(copy, v => if Arc::strong_count(v) == 1 { memory::dropped(v) });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Device copies of CPU tensors, so that a batch or a weight that many operations read is copied once.
#[derive(Default)]
struct Uploaded {
    /// By the address of the shared vector. The weak reference keeps the address from being reused, and tells when the vector is
    /// dropped or was written to (a vector with weak references moves when it is written).
    vectors: HashMap<usize, (Weak<dyn Any + Send + Sync>, Arc<DeviceData>)>,
    /// Single numbers, by their bits: constants of a graph, factors of an optimizer.
    numbers: HashMap<u32, Arc<DeviceData>>,
}

/// Most single numbers kept.
const MOST_NUMBERS: usize = 4096;

static UPLOADED: LazyLock<Mutex<Uploaded>> = LazyLock::new(Mutex::default);

/// The elements of an f32 or bool tensor on the device, copied there if necessary.
pub(super) fn on_device(context: &Context, t: &Tensor) -> Option<Arc<DeviceData>> {
    if let Some(data) = &t.device {
        return Some(data.clone());
    }
    match t.buffer() {
        Buffer::F32(v) => match v.as_slice() {
            [one] => {
                if let Some(data) = lock(&UPLOADED).numbers.get(&one.to_bits()) {
                    return Some(data.clone());
                }
                let data = Arc::new(upload(context, DType::F32, v)?);
                let numbers = &mut lock(&UPLOADED).numbers;
                if numbers.len() >= MOST_NUMBERS {
                    numbers.clear();
                }
                numbers.insert(one.to_bits(), data.clone());
                Some(data)
            }
            _ => cached(v, |v| upload(context, DType::F32, v)),
        },
        Buffer::Bool(v) => cached(v, |v| upload(context, DType::Bool, &v.iter().map(|b| u32::from(*b)).collect::<Vec<_>>())),
        _ => None,
    }
}

fn upload<T: bytemuck::NoUninit>(context: &Context, dtype: DType, elements: &[T]) -> Option<DeviceData> {
    Some(DeviceData { memory: context.upload(bytemuck::cast_slice(elements))?, dtype, len: elements.len(), host: OnceLock::new() })
}

fn cached<T: Send + Sync + 'static>(v: &Arc<Vec<T>>, make: impl FnOnce(&[T]) -> Option<DeviceData>) -> Option<Arc<DeviceData>> {
    let address = Arc::as_ptr(v) as usize;
    if let Some((_, data)) = lock(&UPLOADED).vectors.get(&address).filter(|(alive, _)| alive.strong_count() > 0) {
        return Some(data.clone());
    }
    let data = Arc::new(make(v)?);
    let shared: Arc<dyn Any + Send + Sync> = v.clone();
    let mut uploaded = lock(&UPLOADED);
    uploaded.vectors.retain(|_, (alive, _)| alive.strong_count() > 0);
    uploaded.vectors.insert(address, (Arc::downgrade(&shared), data.clone()));
    Some(data)
}

/// The tensor with its elements on the device, if they can be there.
pub(crate) fn to_device(t: &Tensor) -> Result<Option<Tensor>> {
    let Some(context) = Context::get().filter(|_| t.dtype() == DType::F32) else { return Ok(None) };
    Ok(on_device(context, t).map(|data| Tensor::from_device(DType::F32, data, t.shape())))
}

thread_local! {
    /// The present section.
    static SECTION: RefCell<Vec<String>> = const { RefCell::new(vec![]) };
}

static COPIES: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// Runs `work` as a section, under whose name copies to the CPU are counted.
pub(crate) fn within<R>(name: String, work: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            SECTION.with_borrow_mut(|s| s.pop());
        }
    }
    SECTION.with_borrow_mut(|s| s.push(name));
    let _leave = Leave;
    work()
}

fn count_copy(bytes: u64) {
    let name = SECTION.with_borrow(|s| s.last().cloned()).unwrap_or_else(|| "results that were read".into());
    let mut copies = lock(&COPIES);
    let entry = copies.entry(name).or_default();
    *entry = (entry.0 + 1, entry.1 + bytes);
}

/// See [`crate::device::take_host_copies`].
pub(crate) fn take_host_copies() -> Vec<(String, u64, u64)> {
    std::mem::take(&mut *lock(&COPIES)).into_iter().map(|(name, (times, bytes))| (name, times, bytes)).collect()
}
