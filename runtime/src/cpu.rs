//! One source, several instruction sets.
//!
//! Rust compiles for the oldest x86-64 unless told otherwise. Most hot loops
//! are plain Rust written so that the compiler turns them into vector
//! instructions; [`for_each_cpu`] has it do so once more for wider vectors and
//! picks the widest version the machine has. Where that is not enough,
//! `kernels/x86/` holds versions in explicit instructions, chosen by [`cpu`].
//! All give the same bytes: Rust neither reorders nor fuses floating-point
//! operations, whatever the instruction set.

// Elsewhere there is the baseline alone, and nobody asks.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

use std::sync::OnceLock;

/// The instruction sets there are versions for, each including those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cpu {
    /// What every machine of the architecture has.
    Baseline,
    /// AVX2.
    Avx2,
    /// AVX-512 with what came with Intel's Ice Lake and AMD's Zen 4: byte
    /// permutations (VBMI) and dot products of bytes (VNNI).
    Avx512,
}

impl Cpu {
    fn named(name: &str) -> Option<Cpu> {
        match name {
            "baseline" => Some(Cpu::Baseline),
            "avx2" => Some(Cpu::Avx2),
            "avx512" => Some(Cpu::Avx512),
            _ => None,
        }
    }

    /// The best the machine has.
    fn detected() -> Cpu {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx512 = has!("avx512f")
                && has!("avx512bw")
                && has!("avx512dq")
                && has!("avx512vl")
                && has!("avx512vbmi")
                && has!("avx512vnni");
            match has!("avx2") {
                true if avx512 => Cpu::Avx512,
                true => Cpu::Avx2,
                false => Cpu::Baseline,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Baseline
    }
}

/// The versions to run: the best the machine has, or, for tests and
/// comparisons, at most what `DDAS_CPU=baseline|avx2|avx512` in the environment
/// of the process names.
#[inline]
pub(crate) fn cpu() -> Cpu {
    #[cfg(test)]
    if let Some(cpu) = FORCED.get() {
        return cpu;
    }
    static CPU: OnceLock<Cpu> = OnceLock::new();
    *CPU.get_or_init(|| {
        let named = std::env::var("DDAS_CPU").ok();
        let limit = named.and_then(|name| Cpu::named(&name));
        Cpu::detected().min(limit.unwrap_or(Cpu::Avx512))
    })
}

#[cfg(test)]
thread_local! {
    static FORCED: std::cell::Cell<Option<Cpu>> = const { std::cell::Cell::new(None) };
}

/// Calls `test` with the versions of each instruction set the machine has.
#[cfg(test)]
pub(crate) fn on_every_cpu(mut test: impl FnMut(Cpu)) {
    for cpu in [Cpu::Baseline, Cpu::Avx2, Cpu::Avx512] {
        if cpu <= Cpu::detected() {
            FORCED.set(Some(cpu));
            test(cpu);
        }
    }
    FORCED.set(None);
}

/// Defines a function whose body exists for the baseline, for AVX2 and, where
/// the definition begins with `avx512`, for AVX-512.
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

                if $crate::cpu::cpu() >= $crate::cpu::Cpu::Avx2 {
                    // SAFETY: the one condition for calling it, that the
                    // machine has AVX2, has just been checked.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
    (
        avx512
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

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }

                #[allow(unsafe_code)]
                match $crate::cpu::cpu() {
                    // SAFETY: the machine has these instructions.
                    $crate::cpu::Cpu::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: the machine has these instructions.
                    $crate::cpu::Cpu::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::cpu::Cpu::Baseline => {}
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use for_each_cpu;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_and_ordered() {
        assert_eq!(Cpu::named("baseline"), Some(Cpu::Baseline));
        assert_eq!(Cpu::named("avx2"), Some(Cpu::Avx2));
        assert_eq!(Cpu::named("avx512"), Some(Cpu::Avx512));
        assert_eq!(Cpu::named("AVX2"), None);
        assert!(Cpu::Baseline < Cpu::Avx2 && Cpu::Avx2 < Cpu::Avx512);
        let mut seen = Vec::new();
        on_every_cpu(|forced| {
            assert_eq!(cpu(), forced);
            seen.push(forced);
        });
        assert_eq!(seen.first(), Some(&Cpu::Baseline));
    }
}
