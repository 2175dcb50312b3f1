//! One vector of f32 lanes behind a trait, so that a kernel is written once: AVX2+FMA chosen at run time, and a portable
//! form that the compiler vectorises for whatever it targets.
use std::sync::OnceLock;

/// Lanes in a vector.
pub(crate) const LANES: usize = 8;

/// A vector of [`LANES`] f32.
pub(crate) trait Lanes: Copy {
    /// All lanes zero.
    fn zero() -> Self;
    /// All lanes `v`.
    fn splat(v: f32) -> Self;
    /// Eight lanes from `at`.
    ///
    /// # Safety
    /// `at` must be valid for reading eight f32.
    unsafe fn load(at: *const f32) -> Self;
    /// Eight lanes to `at`.
    ///
    /// # Safety
    /// `at` must be valid for writing eight f32.
    unsafe fn store(self, at: *mut f32);
    /// `self * b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The lanes added in a fixed order.
    fn sum(self) -> f32;
}

/// Portable lanes.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Lanes for Portable {
    #[inline(always)]
    fn zero() -> Self {
        Portable([0.0; LANES])
    }
    #[inline(always)]
    fn splat(v: f32) -> Self {
        Portable([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller promises eight readable f32; the read does not need alignment.
        Portable(unsafe { at.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller promises eight writable f32; the write does not need alignment.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without an FMA instruction that is a slow library call.
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let v = self.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{LANES, Lanes};
    use std::arch::x86_64::*;

    /// AVX2 lanes. Made only inside functions that were entered because the processor has AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    impl Lanes for Avx2 {
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
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: the caller promises eight writable f32; storeu needs no alignment.
            unsafe { _mm256_storeu_ps(at, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the processor has FMA, see the type.
            Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            let mut v = [0f32; LANES];
            // SAFETY: `v` has eight elements.
            unsafe { self.store(v.as_mut_ptr()) };
            ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;

/// True if the processor has AVX2 and FMA (and `ESPALIER_PORTABLE` does not ask for the portable path).
pub(crate) fn has_avx2() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        found && std::env::var_os("ESPALIER_PORTABLE").is_none()
    })
}

/// Defines `$name(fast, args)`, which runs `$generic::<Avx2>` in a function compiled for AVX2 and FMA if `fast`, and
/// `$generic::<Portable>` otherwise. `fast` must come from [`has_avx2`].
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident = $generic:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        $(#[$doc])*
        fn $name(fast: bool, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                unsafe fn fast_version($($arg: $ty),*) {
                    $generic::<$crate::kernels::simd::Avx2>($($arg),*)
                }
                if fast {
                    // SAFETY: `fast` says that the processor has AVX2 and FMA.
                    return unsafe { fast_version($($arg),*) };
                }
            }
            let _ = fast;
            $generic::<$crate::kernels::simd::Portable>($($arg),*)
        }
    };
}
pub(crate) use dispatch;
