//! The connection to one GPU: its queue, the commands being recorded, compiled kernels, buffers for reuse.
use crate::{Result, TensorError};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use wgpu::BufferUsages as Usage;

/// Dispatches recorded before they are submitted: enough to hide a submission's cost, few enough that the device starts while the
/// rest of a step is recorded.
const BATCH: usize = 64;
/// Bytes for the parameters of one batch of dispatches.
const ARENA: u64 = 1 << 16;
/// Storage buffers that the widest kernel binds.
const BINDINGS: u32 = 11;
/// Most bytes of unused buffers kept (1 GiB).
const MOST_KEPT: u64 = 1 << 30;
/// Workgroups along one axis that every device takes.
pub(super) const MOST_GROUPS: u32 = 65_535;

static SELECTED: AtomicBool = AtomicBool::new(false);
static CONTEXT: OnceLock<Context> = OnceLock::new();

/// Whether the process chose the GPU.
pub(super) fn selected() -> bool {
    SELECTED.load(Ordering::Relaxed)
}

/// The name of the GPU that the process chose.
pub(crate) fn selected_name() -> Option<String> {
    CONTEXT.get().filter(|_| selected()).map(|c| c.name.clone())
}

/// Switches back to the CPU.
pub(crate) fn deselect() {
    SELECTED.store(false, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future that is ready when it is polled, as `wgpu`'s are outside a browser.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
            return value;
        }
        std::thread::yield_now();
    }
}

fn instance() -> wgpu::Instance {
    let backends = wgpu::Backends::PRIMARY;
    // Validation layers of the driver would slow down every call.
    let flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(wgpu::InstanceDescriptor { backends, flags, ..wgpu::InstanceDescriptor::new_without_display_handle() })
}

fn describe(info: &wgpu::AdapterInfo) -> String {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    };
    format!("{} ({kind}, {:?}, {} {})", info.name, info.backend, info.driver, info.driver_info)
}

/// Every adapter, described.
pub(crate) fn adapters() -> Vec<String> {
    wait(instance().enumerate_adapters(wgpu::Backends::PRIMARY)).iter().map(|a| describe(&a.get_info())).collect()
}

/// Makes the GPU of this number, or the fastest, the device of the process.
pub(crate) fn select(number: Option<usize>) -> Result<String> {
    let name = open(number)?;
    SELECTED.store(true, Ordering::Relaxed);
    Ok(name)
}

/// Starts the GPU of this number, or the fastest, and returns its name.
///
/// # Errors
/// [`TensorError::Unsupported`] where there is none, or another one was started before.
pub fn open(number: Option<usize>) -> Result<String> {
    let context = match CONTEXT.get() {
        Some(context) => context,
        None => {
            let made = Context::new(number)?;
            CONTEXT.get_or_init(|| made)
        }
    };
    if number.is_some() && context.number != number {
        return Err(TensorError::unsupported("device", format!("another GPU, {}, was chosen before in this process", context.name)));
    }
    Ok(context.name.clone())
}

/// Waits for everything recorded so far.
pub(crate) fn synchronize() -> Result<()> {
    match CONTEXT.get() {
        Some(context) => context.finish(),
        None => Ok(()),
    }
}

/// A compiled kernel.
pub(super) struct Kernel {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

#[derive(Default)]
struct Recorder {
    encoder: Option<wgpu::CommandEncoder>,
    /// The open pass of `encoder`: dispatches follow each other in one pass until something else is recorded.
    pass: Option<wgpu::ComputePass<'static>>,
    parameters: Vec<u8>,
    dispatches: usize,
}

impl Recorder {
    fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None }))
    }
}

#[derive(Default)]
struct Pool {
    free: HashMap<u64, Vec<wgpu::Buffer>>,
    bytes: u64,
}

/// A GPU in use.
pub(super) struct Context {
    name: String,
    number: Option<usize>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Most bytes of a buffer that a kernel can bind.
    largest: u64,
    /// Alignment of one dispatch's parameters.
    alignment: usize,
    arena: wgpu::Buffer,
    recorder: Mutex<Recorder>,
    kernels: Mutex<HashMap<String, Arc<Kernel>>>,
    pool: Mutex<Pool>,
    failure: Arc<Mutex<Option<String>>>,
    submissions: AtomicU64,
}

/// Memory of the device, returned for reuse when dropped.
pub(super) struct Memory {
    buffer: Option<wgpu::Buffer>,
}

impl Memory {
    fn buffer(&self) -> Option<&wgpu::Buffer> {
        self.buffer.as_ref()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let (Some(buffer), Some(context)) = (self.buffer.take(), CONTEXT.get()) {
            context.give(buffer);
        }
    }
}

impl Context {
    /// The GPU that was chosen.
    pub(super) fn get() -> Option<&'static Context> {
        CONTEXT.get()
    }

    fn new(number: Option<usize>) -> Result<Context> {
        let none = |what: String| TensorError::unsupported("device", what);
        let instance = instance();
        let adapter = match number {
            Some(n) => {
                let mut all = wait(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
                if n >= all.len() {
                    return Err(none(format!("there is no GPU of number {n}: there are {}", all.len())));
                }
                all.swap_remove(n)
            }
            None => {
                let options =
                    wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
                wait(instance.request_adapter(&options)).map_err(|_| {
                    none("this machine has no GPU with a driver for Vulkan, Metal or Direct3D 12: install one, or compute on cpu".into())
                })?
            }
        };
        let (name, limits) = (describe(&adapter.get_info()), adapter.limits());
        if limits.max_storage_buffers_per_shader_stage < BINDINGS || limits.max_compute_invocations_per_workgroup < 256 {
            return Err(none(format!("{name} takes too few buffers or too small workgroups for the kernels")));
        }
        let wanted = wgpu::DeviceDescriptor { required_limits: limits.clone(), ..Default::default() };
        let (device, queue) = wait(adapter.request_device(&wanted)).map_err(|e| none(format!("{name} does not start: {e}")))?;
        let failure = Arc::new(Mutex::new(None));
        let seen = failure.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            lock(&seen).get_or_insert_with(|| e.to_string());
        }));
        let arena = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: ARENA,
            usage: Usage::STORAGE | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        Ok(Context {
            name,
            number,
            largest: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            alignment: limits.min_storage_buffer_offset_alignment as usize,
            device,
            queue,
            arena,
            recorder: Mutex::default(),
            kernels: Mutex::default(),
            pool: Mutex::default(),
            failure,
            submissions: AtomicU64::new(0),
        })
    }

    /// Submissions so far.
    #[cfg(test)]
    pub(super) fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// Memory for so many 32-bit elements, with undefined content; `None` if that is more than a kernel can bind.
    pub(super) fn memory(&self, elements: usize) -> Option<Memory> {
        let bytes = (elements as u64).checked_mul(4)?.next_multiple_of(256);
        if elements == 0 || bytes > self.largest {
            return None;
        }
        let mut pool = lock(&self.pool);
        if let Some(buffer) = pool.free.get_mut(&bytes).and_then(Vec::pop) {
            pool.bytes -= bytes;
            return Some(Memory { buffer: Some(buffer) });
        }
        drop(pool);
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
        Some(Memory { buffer: Some(buffer) })
    }

    fn give(&self, buffer: wgpu::Buffer) {
        let (mut pool, bytes) = (lock(&self.pool), buffer.size());
        if pool.bytes + bytes > MOST_KEPT {
            // Kept buffers may have the sizes of an earlier model: all are dropped.
            pool.free.clear();
            pool.bytes = 0;
        }
        pool.bytes += bytes;
        pool.free.entry(bytes).or_default().push(buffer);
    }

    /// Copies 32-bit elements to the device, in order with the commands recorded before and after.
    pub(super) fn upload(&self, data: &[u8]) -> Option<Memory> {
        let memory = self.memory(data.len() / 4)?;
        let size = data.len() as u64;
        let staging =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage: Usage::COPY_SRC, mapped_at_creation: true });
        staging.slice(..).get_mapped_range_mut().ok()?.copy_from_slice(data);
        staging.unmap();
        let mut recorder = lock(&self.recorder);
        recorder.encoder(&self.device).copy_buffer_to_buffer(&staging, 0, memory.buffer()?, 0, size);
        Some(memory)
    }

    /// Fills memory with zeros.
    pub(super) fn clear(&self, memory: &Memory) {
        if let Some(buffer) = memory.buffer() {
            lock(&self.recorder).encoder(&self.device).clear_buffer(buffer, 0, None);
        }
    }

    /// Copies so many 32-bit elements to the CPU, after everything recorded before, and passes their bytes to `f`.
    pub(super) fn download<R>(&self, memory: &Memory, elements: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let failed = |what: String| TensorError::value("gpu", what);
        let size = elements as u64 * 4;
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        if let Some(buffer) = memory.buffer() {
            lock(&self.recorder).encoder(&self.device).copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        }
        self.flush();
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.finish()?;
        let view = staging.slice(..).get_mapped_range().map_err(|e| failed(format!("{} returns no data: {e}", self.name)))?;
        Ok(f(&view))
    }

    /// Submits what is recorded and waits for it.
    fn finish(&self) -> Result<()> {
        self.flush();
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        let failed = |what: String| Err(TensorError::value("gpu", format!("{} failed: {what}", self.name)));
        match (lock(&self.failure).clone(), polled) {
            (Some(what), _) => failed(what),
            (None, Err(e)) => failed(e.to_string()),
            _ => Ok(()),
        }
    }

    fn flush(&self) {
        self.submit(&mut lock(&self.recorder));
    }

    fn submit(&self, recorder: &mut Recorder) {
        recorder.pass = None;
        let Some(encoder) = recorder.encoder.take() else { return };
        if !recorder.parameters.is_empty() {
            self.queue.write_buffer(&self.arena, 0, &recorder.parameters);
        }
        self.queue.submit([encoder.finish()]);
        self.submissions.fetch_add(1, Ordering::Relaxed);
        recorder.parameters.clear();
        recorder.dispatches = 0;
    }

    /// The kernel of this key, compiled from `source` at first use. Its buffers are, in binding order: the parameters, the
    /// `inputs` that it reads, the `outputs` that it writes.
    pub(super) fn kernel(&self, key: &str, inputs: usize, outputs: usize, source: impl FnOnce() -> String) -> Arc<Kernel> {
        if let Some(kernel) = lock(&self.kernels).get(key) {
            return kernel.clone();
        }
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..=inputs + outputs)
            .map(|i| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: i <= inputs },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(key), entries: &entries });
        let groups = [Some(&layout)];
        let whole = wgpu::PipelineLayoutDescriptor { label: Some(key), bind_group_layouts: &groups, immediate_size: 0 };
        let whole = self.device.create_pipeline_layout(&whole);
        let source = wgpu::ShaderSource::Wgsl(source().into());
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(key), source });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(key),
            layout: Some(&whole),
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let kernel = Arc::new(Kernel { pipeline, layout });
        lock(&self.kernels).insert(key.to_string(), kernel.clone());
        kernel
    }

    /// Records one dispatch.
    pub(super) fn run(&self, kernel: &Kernel, parameters: &[u32], inputs: &[&Memory], outputs: &[&Memory], groups: [u32; 3]) {
        let mut recorder = lock(&self.recorder);
        let size = (parameters.len() * 4).next_multiple_of(self.alignment);
        if recorder.dispatches >= BATCH || recorder.parameters.len() + size > ARENA as usize {
            self.submit(&mut recorder);
        }
        let offset = recorder.parameters.len();
        recorder.parameters.extend_from_slice(bytemuck::cast_slice(parameters));
        recorder.parameters.resize(offset + size, 0);
        let size = std::num::NonZeroU64::new(size as u64);
        let arena = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &self.arena, offset: offset as u64, size });
        let buffers = inputs.iter().chain(outputs).filter_map(|m| m.buffer()).map(wgpu::Buffer::as_entire_binding);
        let entries: Vec<wgpu::BindGroupEntry> = std::iter::once(arena)
            .chain(buffers)
            .enumerate()
            .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &kernel.layout, entries: &entries });
        if recorder.pass.is_none() {
            let pass = recorder.encoder(&self.device).begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime();
            recorder.pass = Some(pass);
        }
        if let Some(pass) = &mut recorder.pass {
            pass.set_pipeline(&kernel.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        }
        recorder.dispatches += 1;
    }
}
