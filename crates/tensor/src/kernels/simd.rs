//! One vector of f32 lanes behind a trait, so that a kernel is written once: AVX-512 or AVX2+FMA chosen at run time, and
//! a portable form that the compiler vectorises for whatever it targets.
use std::sync::OnceLock;

/// The lanes of every vector are a multiple of this.
pub(crate) const UNIT: usize = 8;

/// A set of vector instructions. Only [`Isa::best`] and [`Isa::available`] make other values than `Portable`, and only
/// those that the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// The instructions that a kernel chooses its version by.
    pub(super) fn level(self) -> Level {
        self.0
    }

    /// The widest set that this processor has (`ESPALIER_PORTABLE` in the environment asks for the portable one).
    pub(crate) fn best() -> Isa {
        static FOUND: OnceLock<Isa> = OnceLock::new();
        *FOUND.get_or_init(|| match std::env::var_os("ESPALIER_PORTABLE") {
            Some(_) => Isa(Level::Portable),
            None => Isa::available().into_iter().last().unwrap_or(Isa(Level::Portable)),
        })
    }

    /// Every set that this processor has, narrowest first.
    pub(crate) fn available() -> Vec<Isa> {
        let mut found = vec![Isa(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(Isa(Level::Avx2));
            if is_x86_feature_detected!("avx512f") {
                found.push(Isa(Level::Avx512));
            }
        }
        found
    }

    /// Lanes of its vectors.
    pub(crate) fn lanes(self) -> usize {
        match self.0 {
            Level::Portable | Level::Avx2 => UNIT,
            Level::Avx512 => 2 * UNIT,
        }
    }
}

/// A vector of f32.
pub(crate) trait Lanes: Copy {
    /// How many f32 it holds.
    const LANES: usize;
    /// The vector of one [`UNIT`] beside it.
    type Narrow: Lanes;
    /// All lanes zero.
    fn zero() -> Self;
    /// All lanes `v`.
    fn splat(v: f32) -> Self;
    /// All lanes from `at`.
    ///
    /// # Safety
    /// `at` must be valid for reading `LANES` f32.
    unsafe fn load(at: *const f32) -> Self;
    /// Each [`UNIT`] of lanes from a place of its own.
    ///
    /// # Safety
    /// `low` and, if there are more lanes than one unit, `high` must be valid for reading a unit.
    unsafe fn load_units(low: *const f32, high: *const f32) -> Self;
    /// All lanes to `at`.
    ///
    /// # Safety
    /// `at` must be valid for writing `LANES` f32.
    unsafe fn store(self, at: *mut f32);
    /// Each [`UNIT`] of lanes to a place of its own.
    ///
    /// # Safety
    /// `low` and, if there are more lanes than one unit, `high` must be valid for writing a unit.
    unsafe fn store_units(self, low: *mut f32, high: *mut f32);
    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self * b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// One step of a register tile: `sums[r][v] += rows[r] * columns[v]`.
    ///
    /// # Safety
    /// `rows` must be valid for reading `R` f32, each of `columns` for reading `LANES`.
    #[inline(always)]
    unsafe fn step<const R: usize, const V: usize>(sums: &mut [[Self; V]; R], rows: *const f32, columns: [*const f32; V]) {
        // SAFETY: the caller's promise is passed on.
        unsafe { step_plain(sums, rows, columns) }
    }
    /// Writes the square of [`UNIT`] rows and columns at `from` to `to` with rows and columns exchanged. `strides` are the
    /// distances of the rows at `from` and at `to`.
    ///
    /// # Safety
    /// Each of the rows at `from` must be valid for reading a unit, each of those at `to` for writing one; they must not
    /// overlap.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, to: *mut f32, strides: [usize; 2]) {
        for i in 0..UNIT {
            for k in 0..UNIT {
                // SAFETY: both places lie in rows that the caller promises.
                unsafe { *to.add(k * strides[1] + i) = *from.add(i * strides[0] + k) };
            }
        }
    }
}

/// Elements of a cache line.
pub(crate) const LINE: usize = 16;

/// Prefetches the cache line at `at`, into the first-level cache if it is needed `SOON`; any address is allowed.
#[inline(always)]
pub(crate) fn prefetch<const SOON: bool>(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint that reads nothing, whatever the address; every such processor has it.
        unsafe {
            match SOON {
                true => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
                false => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// [`Lanes::step`] as the compiler orders it.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn step_plain<L: Lanes, const R: usize, const V: usize>(sums: &mut [[L; V]; R], rows: *const f32, columns: [*const f32; V]) {
    // SAFETY: as the function's own contract says. Plain indices: iterators make the compiler spill accumulators.
    unsafe {
        let mut vectors = [L::zero(); V];
        for v in 0..V {
            vectors[v] = L::load(columns[v]);
        }
        for r in 0..R {
            let row = L::splat(*rows.add(r));
            for v in 0..V {
                sums[r][v] = row.mul_add(vectors[v], sums[r][v]);
            }
        }
    }
}

/// Portable lanes.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; UNIT]);

impl Lanes for Portable {
    const LANES: usize = UNIT;
    type Narrow = Self;
    #[inline(always)]
    fn zero() -> Self {
        Portable([0.0; UNIT])
    }
    #[inline(always)]
    fn splat(v: f32) -> Self {
        Portable([v; UNIT])
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller promises eight readable f32; the read does not need alignment.
        Portable(unsafe { at.cast::<[f32; UNIT]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_units(low: *const f32, _: *const f32) -> Self {
        // SAFETY: the one unit is promised by the caller.
        unsafe { Self::load(low) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller promises eight writable f32; the write does not need alignment.
        unsafe { at.cast::<[f32; UNIT]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_units(self, low: *mut f32, _: *mut f32) {
        // SAFETY: the one unit is promised by the caller.
        unsafe { self.store(low) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without an FMA instruction that is a slow library call.
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, UNIT, step_plain};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// [`Lanes::transpose`] in 8 loads, 24 shuffles and 8 stores.
    ///
    /// # Safety
    /// As there; the processor must have AVX.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, to: *mut f32, strides: [usize; 2]) {
        // SAFETY: the rows are promised by the caller; loadu and storeu need no alignment.
        unsafe {
            let mut r = [_mm256_setzero_ps(); UNIT];
            for i in 0..UNIT {
                r[i] = _mm256_loadu_ps(from.add(i * strides[0]));
            }
            let mut pairs = r;
            for i in 0..UNIT / 2 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut fours = r;
            for i in [0, 4] {
                for k in 0..2 {
                    fours[i + 2 * k] = _mm256_shuffle_ps::<0x44>(pairs[i + k], pairs[i + k + 2]);
                    fours[i + 2 * k + 1] = _mm256_shuffle_ps::<0xEE>(pairs[i + k], pairs[i + k + 2]);
                }
            }
            for i in 0..UNIT / 2 {
                _mm256_storeu_ps(to.add(i * strides[1]), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
                _mm256_storeu_ps(to.add((i + 4) * strides[1]), _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]));
            }
        }
    }

    /// AVX2 lanes. Made only inside functions that were entered because the processor has AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    impl Lanes for Avx2 {
        const LANES: usize = UNIT;
        type Narrow = Self;
        #[inline(always)]
        unsafe fn transpose(from: *const f32, to: *mut f32, strides: [usize; 2]) {
            // SAFETY: the caller's promise is passed on; the processor has AVX2, see the type.
            unsafe { transpose(from, to, strides) }
        }
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the processor has AVX2, see the type.
            Avx2(unsafe { _mm256_setzero_ps() })
        }
        #[inline(always)]
        fn splat(v: f32) -> Self {
            // SAFETY: the processor has AVX2, see the type.
            Avx2(unsafe { _mm256_set1_ps(v) })
        }
        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: the caller promises eight readable f32; loadu needs no alignment.
            Avx2(unsafe { _mm256_loadu_ps(at) })
        }
        #[inline(always)]
        unsafe fn load_units(low: *const f32, _: *const f32) -> Self {
            // SAFETY: the one unit is promised by the caller.
            unsafe { Self::load(low) }
        }
        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: the caller promises eight writable f32; storeu needs no alignment.
            unsafe { _mm256_storeu_ps(at, self.0) }
        }
        #[inline(always)]
        unsafe fn store_units(self, low: *mut f32, _: *mut f32) {
            // SAFETY: the one unit is promised by the caller.
            unsafe { self.store(low) }
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            // SAFETY: the processor has AVX2, see the type.
            Avx2(unsafe { _mm256_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            // SAFETY: the processor has AVX2, see the type.
            Avx2(unsafe { _mm256_sub_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the processor has FMA, see the type.
            Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        /// The tile of 4 x 3 uses all sixteen registers: by itself the compiler keeps two rows at once and moves a sum through
        /// memory at every step, which halves the speed. So the order is written out.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn step<const R: usize, const V: usize>(sums: &mut [[Self; V]; R], rows: *const f32, columns: [*const f32; V]) {
            if R != 4 || V != 3 {
                // SAFETY: the caller's promise is passed on.
                return unsafe { step_plain(sums, rows, columns) };
            }
            // SAFETY: reads four f32 at `rows` and eight at each of three columns, which the caller promises; it writes
            // nothing but the named registers.
            unsafe {
                asm!(
                    "vmovups {x}, ymmword ptr [{c0}]",
                    "vmovups {y}, ymmword ptr [{c1}]",
                    "vmovups {z}, ymmword ptr [{c2}]",
                    "vbroadcastss {w}, dword ptr [{rows}]",
                    "vfmadd231ps {s00}, {w}, {x}",
                    "vfmadd231ps {s01}, {w}, {y}",
                    "vfmadd231ps {s02}, {w}, {z}",
                    "vbroadcastss {w}, dword ptr [{rows} + 4]",
                    "vfmadd231ps {s10}, {w}, {x}",
                    "vfmadd231ps {s11}, {w}, {y}",
                    "vfmadd231ps {s12}, {w}, {z}",
                    "vbroadcastss {w}, dword ptr [{rows} + 8]",
                    "vfmadd231ps {s20}, {w}, {x}",
                    "vfmadd231ps {s21}, {w}, {y}",
                    "vfmadd231ps {s22}, {w}, {z}",
                    "vbroadcastss {w}, dword ptr [{rows} + 12]",
                    "vfmadd231ps {s30}, {w}, {x}",
                    "vfmadd231ps {s31}, {w}, {y}",
                    "vfmadd231ps {s32}, {w}, {z}",
                    rows = in(reg) rows,
                    c0 = in(reg) columns[0],
                    c1 = in(reg) columns[1],
                    c2 = in(reg) columns[2],
                    x = out(ymm_reg) _,
                    y = out(ymm_reg) _,
                    z = out(ymm_reg) _,
                    w = out(ymm_reg) _,
                    s00 = inout(ymm_reg) sums[0][0].0,
                    s01 = inout(ymm_reg) sums[0][1].0,
                    s02 = inout(ymm_reg) sums[0][2].0,
                    s10 = inout(ymm_reg) sums[1][0].0,
                    s11 = inout(ymm_reg) sums[1][1].0,
                    s12 = inout(ymm_reg) sums[1][2].0,
                    s20 = inout(ymm_reg) sums[2][0].0,
                    s21 = inout(ymm_reg) sums[2][1].0,
                    s22 = inout(ymm_reg) sums[2][2].0,
                    s30 = inout(ymm_reg) sums[3][0].0,
                    s31 = inout(ymm_reg) sums[3][1].0,
                    s32 = inout(ymm_reg) sums[3][2].0,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    }

    /// AVX-512 lanes. Made only inside functions that were entered because the processor has AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Lanes for Avx512 {
        const LANES: usize = 2 * UNIT;
        type Narrow = Avx2;
        #[inline(always)]
        unsafe fn transpose(from: *const f32, to: *mut f32, strides: [usize; 2]) {
            // SAFETY: the caller's promise is passed on; the processor has AVX-512F, see the type.
            unsafe { transpose(from, to, strides) }
        }
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the processor has AVX-512F, see the type.
            Avx512(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        fn splat(v: f32) -> Self {
            // SAFETY: the processor has AVX-512F, see the type.
            Avx512(unsafe { _mm512_set1_ps(v) })
        }
        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: the caller promises sixteen readable f32; loadu needs no alignment.
            Avx512(unsafe { _mm512_loadu_ps(at) })
        }
        #[inline(always)]
        unsafe fn load_units(low: *const f32, high: *const f32) -> Self {
            // SAFETY: the caller promises eight readable f32 at both places. Only AVX-512F is used: the upper half is
            // inserted as four f64.
            unsafe {
                let halves = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(low)));
                Avx512(_mm512_castpd_ps(_mm512_insertf64x4::<1>(halves, _mm256_castps_pd(_mm256_loadu_ps(high)))))
            }
        }
        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: the caller promises sixteen writable f32; storeu needs no alignment.
            unsafe { _mm512_storeu_ps(at, self.0) }
        }
        #[inline(always)]
        unsafe fn store_units(self, low: *mut f32, high: *mut f32) {
            // SAFETY: the caller promises eight writable f32 at both places. Only AVX-512F is used: the upper half is
            // taken as four f64.
            unsafe {
                _mm256_storeu_ps(low, _mm512_castps512_ps256(self.0));
                _mm256_storeu_pd(high.cast(), _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            }
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            // SAFETY: the processor has AVX-512F, see the type.
            Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            // SAFETY: the processor has AVX-512F, see the type.
            Avx512(unsafe { _mm512_sub_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the processor has AVX-512F, see the type.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Proof that the processor has AVX2 and FMA; what [`vectorised!`] expands to.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct HasAvx2(());

impl HasAvx2 {
    #[inline(always)]
    pub fn proof() -> Option<Self> {
        (cfg!(target_arch = "x86_64") && Isa::best().level() >= Level::Avx2).then_some(HasAvx2(()))
    }

    /// Runs `f` compiled for AVX2 and FMA, if it is inlined.
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        {
            #[inline]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<R>(f: impl FnOnce() -> R) -> R {
                f()
            }
            // SAFETY: `self` exists only where the processor has AVX2 and FMA.
            unsafe { avx2(f) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        f()
    }
}

/// Evaluates an expression compiled for AVX2 and FMA if the processor has them: for plain loops over slices that the compiler
/// vectorises. Functions that it calls must be inlined into it.
///
/// A macro, so that the expression is written twice. A closure called in two places becomes a function that the compiler may not
/// inline, and then it is compiled for the oldest processor (batch normalization ran at half its speed that way).
#[macro_export]
macro_rules! vectorised {
    ($body:expr) => {
        match $crate::HasAvx2::proof() {
            Some(processor) => processor.run(|| $body),
            None => $body,
        }
    };
}
pub(crate) use vectorised;

/// Proof that the processor has AVX-512F beside AVX2 and FMA; what [`widely_vectorised!`] expands to.
#[derive(Clone, Copy)]
pub(crate) struct HasAvx512(());

impl HasAvx512 {
    #[inline(always)]
    pub(crate) fn proof() -> Option<Self> {
        (cfg!(target_arch = "x86_64") && Isa::best().level() >= Level::Avx512).then_some(HasAvx512(()))
    }

    /// Runs `f` compiled for AVX-512F, if it is inlined.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        {
            #[inline]
            #[target_feature(enable = "avx2,fma,avx512f")]
            unsafe fn avx512<R>(f: impl FnOnce() -> R) -> R {
                f()
            }
            // SAFETY: `self` exists only where the processor has AVX-512F, AVX2 and FMA.
            unsafe { avx512(f) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        f()
    }
}

/// [`vectorised!`] with vectors of 512 bits if the processor has them: for loops that are bound by arithmetic. Their comparisons
/// and selections then use masks instead of vectors.
macro_rules! widely_vectorised {
    ($body:expr) => {
        match $crate::kernels::simd::HasAvx512::proof() {
            Some(processor) => processor.run(|| $body),
            None => $crate::kernels::simd::vectorised!($body),
        }
    };
}
pub(crate) use widely_vectorised;

/// Defines `$name(isa, args)`, which runs `$generic::<L>` in a function compiled for the instructions of `isa`.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis $name:ident = $generic:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::kernels::simd::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::simd::{Avx2, Avx512, Level};
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($arg: $ty),*) {
                    $generic::<Avx2>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,avx512f")]
                unsafe fn avx512($($arg: $ty),*) {
                    $generic::<Avx512>($($arg),*)
                }
                match isa.level() {
                    // SAFETY: this level exists only where the processor has AVX-512F, AVX2 and FMA.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: this level exists only where the processor has AVX2 and FMA.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            let _ = isa;
            $generic::<$crate::kernels::simd::Portable>($($arg),*)
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    fn transposed_generic<L: Lanes>(from: &[f32], to: &mut [f32]) {
        assert!(from.len() >= UNIT * 9 && to.len() >= UNIT * 10);
        // SAFETY: eight rows at distances 9 and 10 lie within the slices (asserted).
        unsafe { L::transpose(from.as_ptr(), to.as_mut_ptr(), [9, 10]) }
    }
    dispatch! { transposed = transposed_generic(from: &[f32], to: &mut [f32]) }

    #[test]
    fn squares_are_transposed() {
        let from: Vec<f32> = (0..UNIT * 9).map(|v| v as f32).collect();
        for isa in Isa::available() {
            let mut to = vec![-1f32; UNIT * 10];
            transposed(isa, &from, &mut to);
            for (i, v) in to.iter().enumerate() {
                let expected = if i % 10 < UNIT { (i % 10 * 9 + i / 10) as f32 } else { -1.0 };
                assert_eq!(*v, expected, "{isa:?} element {i}");
            }
        }
    }
}
