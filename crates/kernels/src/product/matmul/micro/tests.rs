//! Every tile of every instruction set against f64.

use super::*;
use tightrope_testkit::{Random, assert_close};

/// All kernels that this processor can run.
fn kernels() -> Vec<&'static Kernel> {
    let mut kernels = vec![&portable::KERNEL];
    #[cfg(target_arch = "x86_64")]
    {
        if tightrope_device::has_avx2_fma() {
            kernels.push(&avx2::KERNEL);
        }
        if tightrope_device::has_avx512() {
            kernels.push(&avx512::KERNEL);
        }
    }
    kernels
}

/// `0.5 · a · b` plus the first row of `base`, with `a` (rows × k) and `b` (k × 16 · panels) by
/// rows or in panels, and the steps from `split` on given separately.
fn tile(
    kernel: &Kernel,
    (rows, panels, k): (usize, usize, usize),
    (packed, split): (bool, usize),
    [a, b, base]: [&[f32]; 3],
) -> Vec<f32> {
    let columns = panels * COLUMNS;
    let in_panels = |width: usize, count: usize, at: &dyn Fn(usize, usize) -> f32| {
        let mut result = vec![0.0; count.next_multiple_of(width) * k];
        for (i, p) in (0..count).flat_map(|i| (0..k).map(move |p| (i, p))) {
            result[i / width * width * k + p * width + i % width] = at(i, p);
        }
        result
    };
    let a_panels = in_panels(ROWS, rows, &|i, p| a[i * k + p]);
    let b_panels = in_panels(COLUMNS, columns, &|j, p| b[p * columns + j]);
    let mut c = vec![0f32; rows * columns];
    let mut steps = Steps {
        k: split,
        a: a.as_ptr(),
        a_stride: k,
        a_panel: ROWS * k,
        b: b.as_ptr(),
        b_stride: columns,
        b_panel: COLUMNS,
    };
    if packed {
        (steps.a, steps.a_stride) = (a_panels.as_ptr(), ROWS);
        (steps.b, steps.b_stride, steps.b_panel) = (b_panels.as_ptr(), COLUMNS, COLUMNS * k);
    }
    let more = Steps {
        k: k - split,
        a: steps.a.wrapping_add(split * if packed { ROWS } else { 1 }),
        b: steps.b.wrapping_add(split * steps.b_stride),
        ..steps
    };
    let call = Call {
        steps,
        more,
        alpha: 0.5,
        base: base.as_ptr(),
        base_stride: 0,
        c: c.as_mut_ptr(),
        c_stride: columns,
        next: b.as_ptr(),
        fetch_rows: true,
    };
    // SAFETY: all operands have the sizes that the call states.
    unsafe { kernel.tile(!packed, rows, panels)(&call) };
    c
}

#[test]
fn every_kernel_and_tile_matches_and_has_the_same_bits() {
    let mut random = Random::new(5);
    for k in [0, 1, 2, 17, 256] {
        let a = random.normal(MOST_ROWS * k, 1.0);
        let base = random.normal(MOST_COLUMNS, 1.0);
        for panels in [1, 2] {
            let columns = panels * COLUMNS;
            let b = random.normal(k * columns, 1.0);
            let product = |at| {
                let (i, j) = (at / columns, at % columns);
                let product = |p| f64::from(a[i * k + p]) * f64::from(b[p * columns + j]);
                f64::from(base[j]) + 0.5 * (0..k).map(product).sum::<f64>()
            };
            let expected: Vec<f64> = (0..MOST_ROWS * columns).map(product).collect();
            let mut bits = None;
            for kernel in kernels() {
                if panels * COLUMNS > kernel.columns {
                    continue;
                }
                for (rows, packed) in
                    (1..=kernel.rows).flat_map(|rows| [(rows, false), (rows, true)])
                {
                    let tile = |split| {
                        let size = (rows, panels, k);
                        tile(kernel, size, (packed, split), [&a, &b, &base])
                    };
                    let c = tile(k);
                    assert_eq!(c, tile(k / 3), "steps apart");
                    assert_close("c", &c, &expected[..rows * columns], 2e-5, 2e-6);
                    // Without fused instructions the portable kernel rounds once more.
                    if !std::ptr::eq(kernel, &portable::KERNEL) {
                        let first = bits.get_or_insert_with(|| c[..columns].to_vec());
                        assert_eq!(&c[..columns], first);
                    }
                }
            }
        }
    }
}

/// Pairs of bf16 that f32 holds exactly, and their products with those of another.
#[cfg(target_arch = "x86_64")]
#[test]
fn pairs_are_multiplied_and_added() {
    use half::bf16;
    let cpu = tightrope_device::Cpu::new(1).unwrap();
    if cpu.with_avx512_bf16().is_none() {
        return;
    }
    let k = 19;
    let mut random = Random::new(6);
    let mut halves = |count: usize| -> Vec<bf16> {
        let values = random.normal(2 * count, 1.0);
        values.into_iter().map(bf16::from_f32).collect()
    };
    let (a, b) = (halves(MOST_ROWS * k), halves(k * MOST_COLUMNS));
    let pairs = |halves: &[bf16]| -> Vec<f32> {
        let pair = |pair: &[bf16; 2]| {
            let [even, odd] = pair.map(|half| u32::from(half.to_bits()));
            f32::from_bits(even | odd << 16)
        };
        halves.as_chunks().0.iter().map(pair).collect()
    };
    let base = random.normal(MOST_COLUMNS, 1.0);
    let product = |at: usize| {
        let (i, j) = (at / MOST_COLUMNS, at % MOST_COLUMNS);
        let half = |x: &[bf16], at: usize| f64::from(x[at].to_f32());
        let step = |p: usize| {
            let (of_a, of_b) = (2 * (i * k + p), 2 * (p * MOST_COLUMNS + j));
            half(&a, of_a) * half(&b, of_b) + half(&a, of_a + 1) * half(&b, of_b + 1)
        };
        f64::from(base[j]) + 0.5 * (0..k).map(step).sum::<f64>()
    };
    let expected: Vec<f64> = (0..MOST_ROWS * MOST_COLUMNS).map(product).collect();
    let (a, b) = (pairs(&a), pairs(&b));
    for packed in [false, true] {
        let c = tile(PAIRS, (MOST_ROWS, 2, k), (packed, 7), [&a, &b, &base]);
        assert_close("c", &c, &expected, 2e-5, 2e-6);
    }
}
