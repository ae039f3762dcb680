//! Two compilations of every row function: one for any processor, and one for AVX2 with FMA, chosen
//! at run time. Without the second, each fused multiply-add would be a call into the C library.
#![allow(unsafe_code, reason = "intrinsics of the processor")]

/// Whether the processor has the features of the wide compilations.
#[inline(always)]
pub(crate) fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Makes a `LaneFn` from a function on one lane.
macro_rules! dispatched {
    ($lane:ident) => {{
        #[inline(always)]
        fn rows(r: &[&$crate::lanes::Row; 4]) -> $crate::lanes::Row {
            let mut out = [0; 32];
            for i in 0..32 {
                out[i] = $lane(r[0][i], r[1][i], r[2][i], r[3][i]);
            }
            out
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn wide(r: &[&$crate::lanes::Row; 4]) -> $crate::lanes::Row {
            rows(r)
        }
        fn chosen(r: &[&$crate::lanes::Row; 4]) -> $crate::lanes::Row {
            #[cfg(target_arch = "x86_64")]
            if $crate::lanes::simd::is_wide() {
                // SAFETY: `is_wide` has just found the features that `wide` is compiled for.
                #[allow(unsafe_code, reason = "intrinsics of the processor")]
                return unsafe { wide(r) };
            }
            rows(r)
        }
        chosen as $crate::lanes::LaneFn
    }};
}
pub(crate) use dispatched;

/// A function with two compilations of the named `#[inline(always)]` function.
macro_rules! dispatched_fn {
    ($(#[$doc:meta])* $v:vis fn $name:ident($($x:ident: $t:ty),*) -> $out:ty = $body:ident) => {
        $(#[$doc])*
        $v fn $name($($x: $t),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($x: $t),*) -> $out {
                    $body($($x),*)
                }
                if $crate::lanes::simd::is_wide() {
                    // SAFETY: `is_wide` has just found the features that `wide` is compiled for.
                    #[allow(unsafe_code, reason = "intrinsics of the processor")]
                    return unsafe { wide($($x),*) };
                }
            }
            $body($($x),*)
        }
    };
}
pub(crate) use dispatched_fn;
