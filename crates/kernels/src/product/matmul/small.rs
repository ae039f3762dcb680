//! Products of blocks that already lie in the cache, on one thread, for attention.

use super::micro::{COLUMNS, Call, KERNEL, ROWS, Steps};

/// Left operand of a small product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Element `(i, p)` at `i · stride + p`.
    Rows(&'a [f32], usize),
    /// Element `(i, p)` at `p · stride + i`.
    Columns(&'a [f32], usize),
}

/// Right operand of a small product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Element `(p, j)` at `p · stride + j`.
    Rows(&'a [f32], usize),
    /// Panels of 16 columns, as [`super::pack`] writes them.
    Panels(&'a [f32]),
}

/// `C[m, n] += alpha · A[m, k] · B[k, n]`, or `=` without `accumulate`; `n` a multiple of 16.
///
/// `C` is stored by rows of the given stride. Each element is one chain of fused multiply-adds over
/// `k`, which is then added: its bits do not depend on `m` and `n`.
pub(crate) fn small_product(
    (m, n, k): (usize, usize, usize),
    a: Left<'_>,
    b: Right<'_>,
    alpha: f32,
    accumulate: bool,
    (c, c_stride): (&mut [f32], usize),
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n.is_multiple_of(COLUMNS) && n <= c_stride);
    assert!(
        (m - 1) * c_stride + n <= c.len(),
        "the result does not fit its memory"
    );
    // Distances between steps and between panels.
    let (b, b_stride, b_panel) = match b {
        Right::Rows(data, stride) => (data, stride, COLUMNS),
        Right::Panels(data) => (data, COLUMNS, COLUMNS * k),
    };
    let b_len = (n / COLUMNS - 1) * b_panel + k.saturating_sub(1) * b_stride + COLUMNS;
    assert!(k == 0 || b_len <= b.len(), "`b` is too short");
    let by_rows = matches!(a, Left::Rows(..));
    let (data, a_stride, a_row) = match a {
        Left::Rows(data, stride) => {
            assert!(
                k == 0 || (m - 1) * stride + k <= data.len(),
                "`a` is too short"
            );
            (data, stride, stride)
        }
        Left::Columns(data, stride) => {
            assert!(
                k == 0 || (k - 1) * stride + m <= data.len(),
                "`a` is too short"
            );
            (data, stride, 1)
        }
    };
    for j in (0..n).step_by(KERNEL.columns) {
        let panels = (n - j).min(KERNEL.columns) / COLUMNS;
        for i in (0..m).step_by(KERNEL.rows) {
            let tile = KERNEL.tile(by_rows, KERNEL.rows.min(m - i), panels);
            let to = c.as_mut_ptr().wrapping_add(i * c_stride + j);
            let call = Call {
                steps: Steps {
                    k,
                    a: data.as_ptr().wrapping_add(i * a_row),
                    a_stride,
                    a_panel: ROWS * a_row,
                    b: b.as_ptr().wrapping_add(j / COLUMNS * b_panel),
                    b_stride,
                    b_panel,
                },
                more: Steps::NONE,
                alpha,
                base: if accumulate {
                    to.cast_const()
                } else {
                    std::ptr::null()
                },
                base_stride: c_stride,
                c: to,
                c_stride,
                next: b.as_ptr(),
                fetch_rows: false,
            };
            // SAFETY: the assertions above hold for the last row, column and step of all tiles.
            unsafe { tile(&call) };
        }
    }
}
