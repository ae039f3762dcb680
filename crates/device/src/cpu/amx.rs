//! Detects the matrix unit of x86 processors (AMX), and asks Linux for permission to use it.

/// If this variable is `0`, products are computed in vectors, as on processors without a matrix
/// unit.
const SWITCH: &str = "TIGHTROPE_AMX";

/// Whether this process may multiply tiles of bf16, and has AVX-512 with bf16 to prepare them; it
/// is determined once.
///
/// A process must ask Linux for permission, because threads that use tiles have more state to save.
pub(crate) fn usable() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static USABLE: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
            std::env::var_os(SWITCH).is_none_or(|value| value != "0") && present() && permitted()
        });
        *USABLE
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        let _ = SWITCH;
        false
    }
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
