//! One source, two instruction sets.
//!
//! Rust compiles for the oldest x86-64 unless told otherwise. The hot loops
//! are plain Rust written so that the compiler turns them into vector
//! instructions; [`for_each_cpu`] has it do so a second time for AVX2 and
//! picks the wider version where the machine has it. Both give the same bytes:
//! Rust neither reorders nor fuses floating-point operations, whatever the
//! instruction set.

use std::sync::OnceLock;

/// Whether to run the AVX2 versions. `DDAS_CPU=baseline` in the environment of
/// the process says no, for tests and comparisons.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn has_avx2() -> bool {
    static HAS_AVX2: OnceLock<bool> = OnceLock::new();
    *HAS_AVX2.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        let detected = std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let detected = false;
        detected && std::env::var_os("DDAS_CPU").is_none_or(|value| value != "baseline")
    })
}

/// Defines a function whose body exists for the baseline and for AVX2.
///
/// What the body calls must be inlined into it to profit, so small helpers of
/// such functions are `#[inline(always)]`.
macro_rules! for_each_cpu {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }

                if $crate::cpu::has_avx2() {
                    // SAFETY: the one condition for calling it, that the
                    // machine has AVX2, has just been checked.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use for_each_cpu;
