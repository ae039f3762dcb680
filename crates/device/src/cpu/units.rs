//! Detects what x86 processors have for products of bf16: a matrix unit (AMX), for which it asks
//! Linux for permission, and instructions on vectors (AVX512-BF16).

/// What the variable says: `0` leaves a unit out, and everything else takes it in.
#[cfg(target_arch = "x86_64")]
fn wanted(switch: &str) -> Option<bool> {
    std::env::var_os(switch).map(|value| value != "0")
}

/// Whether this process may multiply tiles of bf16, and has AVX-512 with bf16 to prepare them; it
/// is determined once.
///
/// A process must ask Linux for permission, because threads that use tiles have more state to save.
pub(super) fn amx() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static USABLE: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
            wanted("TIGHTROPE_AMX") != Some(false) && present() && permitted()
        });
        *USABLE
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// Whether the processor multiplies pairs of bf16 in vectors.
pub(super) fn has_avx512_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        crate::has_avx512() && std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether pairs of bf16 are multiplied in vectors unless something else is asked for; it is
/// determined once.
///
/// Processors of Intel do half as many operations this way as in f32.
pub(super) fn takes_avx512_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static TAKEN: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
            has_avx512_bf16() && wanted("TIGHTROPE_AVX512_BF16").unwrap_or_else(|| !is_intel())
        });
        *TAKEN
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether Intel made the processor.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let name = std::arch::x86_64::__cpuid(0);
    [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes) == [*b"Genu", *b"ineI", *b"ntel"]
}

/// Whether processor and operating system support tiles with products of bf16.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn present() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const LEAF: u32 = 7;
    /// Bits AMX-BF16 and AMX-TILE in EDX of leaf 7.
    const TILES: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= LEAF
        && __cpuid_count(LEAF, 0).edx & TILES == TILES
        && crate::has_avx512()
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Asks the operating system for permission to use the state of tiles.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    /// Code for `arch_prctl`, which `libc` lacks.
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call changes nothing but the permissions of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}
