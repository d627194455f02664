//! Which instructions the native engine may use.

/// The instruction sets there are kernels for, each including those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Isa {
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
}

impl Isa {
    /// The best that the machine has, or at most what `DDAS_CPU=baseline|avx2|avx512` in the
    /// environment names, as for the augmentation's kernels; none without AVX2.
    pub(super) fn detect() -> Option<Self> {
        let limit = std::env::var("DDAS_CPU").ok();
        Self::available()
            .into_iter()
            .rfind(|isa| match limit.as_deref() {
                Some("baseline") => false,
                Some("avx2") => *isa <= Self::Avx2,
                _ => true,
            })
    }

    /// All that the machine has, the best last.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                found.push(Self::Avx2);
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                    found.push(Self::Avx512);
                }
            }
        }
        found
    }
}

/// Whether the processor multiplies bf16 in tiles (AMX).
pub(super) fn has_bf16_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // Intel's manual, volume 2, CPUID: leaf 7, EDX, bit 22 is AMX-BF16.
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 22 & 1 == 1
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Defines a function of plain loops whose body the compiler turns into vector instructions, once
/// for each [`Isa`], which its callers give as the first argument. What the body calls must be
/// inlined into it to profit. All versions compute the same: nothing is reordered or fused.
macro_rules! for_each_isa {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name(isa: $crate::networks::native::isa::Isa, $($argument: $type),*) {
            #[inline(always)]
            fn body($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    body($($argument),*)
                }

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) {
                    body($($argument),*)
                }

                #[allow(unsafe_code)]
                match isa {
                    // SAFETY: an `Isa` is only made where the machine has it.
                    $crate::networks::native::isa::Isa::Avx512 => unsafe {
                        avx512($($argument),*)
                    },
                    // SAFETY: as above.
                    $crate::networks::native::isa::Isa::Avx2 => unsafe { avx2($($argument),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = isa;
                body($($argument),*)
            }
        }
    };
}
pub(super) use for_each_isa;
