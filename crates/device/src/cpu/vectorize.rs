//! Compiles functions for any processor, for AVX2 with FMA and for AVX-512.

/// Whether the processor has AVX2 and FMA; the standard library remembers the answer.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn has_avx2_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Whether the processor has AVX-512 with the extensions F, BW, DQ and VL, which only the first
/// such processors lack.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has_avx2_fma()
}

/// Compiles the function for any processor, for AVX2 with FMA and for AVX-512, and chooses at run
/// time.
///
/// The compiler vectorises the loops of the body; functions that the body calls must be
/// `#[inline(always)]`. Rust never fuses or reorders floating-point operations by itself, so all
/// versions give the same bits: lane arrays fix the order of a sum, and `mul_add` is fused with or
/// without hardware support (without it, it is exact but slow).
#[macro_export]
macro_rules! vectorize {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),*>)? (
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $output)? {
                    portable $(::<$($generic),*>)? ($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn avx512 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $output)? {
                    portable $(::<$($generic),*>)? ($($argument),*)
                }
                if $crate::has_avx512() {
                    // SAFETY: the processor has the features that the function was compiled for.
                    return unsafe { avx512 $(::<$($generic),*>)? ($($argument),*) };
                }
                if $crate::has_avx2_fma() {
                    // SAFETY: the processor has the features that the function was compiled for.
                    return unsafe { avx2 $(::<$($generic),*>)? ($($argument),*) };
                }
            }
            portable $(::<$($generic),*>)? ($($argument),*)
        }
    )*};
}

#[cfg(test)]
mod tests {
    vectorize! {
        /// Adds in the order of the lanes.
        fn total<T: Into<f32>, U: Copy>(values: &[f32], first: T, _unused: U) -> f32 {
            let mut lanes = [0f32; 8];
            for chunk in values.chunks_exact(8) {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = value.mul_add(2.0, *lane);
                }
            }
            lanes.iter().fold(first.into(), |sum, lane| sum + lane)
        }
    }

    #[test]
    fn the_chosen_form_computes_what_the_body_says() {
        let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
        assert_eq!(total(&values, 1f32, ()), 241.0);
    }
}
