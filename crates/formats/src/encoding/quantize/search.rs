//! Searches the scale, or the scale and the offset, that represent some numbers best by whole numbers
//! of few bits.
//!
//! Both searches start from a row of guesses. For the levels that a guess gives, the best scale is a
//! weighted least-squares solution; for the best of them, new levels and a new solution follow each
//! other as long as the error falls.

/// Largest number of times that levels and solution follow each other.
const ROUNDS: usize = 4;

/// `Σ term(i)` for i below `N`, a multiple of 8, in eight lanes that a compiler can vectorise.
pub(super) fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    for start in (0..N).step_by(8) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
    }
    lanes.iter().sum()
}

/// The nearest whole number in `low..=high`, which are below 2²² in size; ties go to the even one.
pub(super) fn nearest(x: f32, low: f32, high: f32) -> f32 {
    // Numbers of this size have no fraction.
    const SHIFT: f32 = 12_582_912.0;
    (x.clamp(low, high) + SHIFT) - SHIFT
}

/// The reciprocal of a scale; 0 for scales that represent zeros only.
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = scale.recip();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Levels of `x` with a scale: `q = nearest(x / scale)`.
pub(super) fn levels<const N: usize>(
    x: &[f32; N],
    scale: f32,
    (low, high): (f32, f32),
) -> [f32; N] {
    let inverse = inverse(scale);
    std::array::from_fn(|i| nearest(x[i] * inverse, low, high))
}

/// `Σ w · (scale · q − x)²`.
fn error<const N: usize>(x: &[f32; N], w: &[f32; N], q: &[f32; N], scale: f32) -> f32 {
    sum::<N>(|i| {
        let difference = scale * q[i] - x[i];
        w[i] * difference * difference
    })
}

/// Scale with which `scale · q`, q in −n..n, is nearest to `x`: `Σ w · (scale · q − x)²` is small.
/// `stored` rounds a scale to what can be stored.
pub(super) fn symmetric<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    n: f32,
    stored: impl Fn(f32) -> f32,
) -> f32 {
    let extreme = x
        .iter()
        .fold(0.0, |extreme: f32, &x| match x.abs() > extreme.abs() {
            true => x,
            false => extreme,
        });
    if extreme == 0.0 {
        return 0.0;
    }
    let range = (-n, n - 1.0);
    let judged = |scale: f32| {
        let scale = stored(scale);
        let q = levels(x, scale, range);
        (error(x, w, &q, scale), scale, q)
    };
    let mut best = judged(-extreme / n);
    for step in (-9..=9).filter(|step| *step != 0) {
        let q = levels(x, -extreme / (n + 0.1 * step as f32), range);
        let found = judged(solution(x, w, &q));
        if found.0 < best.0 {
            best = found;
        }
    }
    for _ in 0..ROUNDS {
        let found = judged(solution(x, w, &best.2));
        if found.0 >= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// The scale for which `Σ w · (scale · q − x)²` is smallest.
fn solution<const N: usize>(x: &[f32; N], w: &[f32; N], q: &[f32; N]) -> f32 {
    let (xq, qq) = (
        sum::<N>(|i| w[i] * x[i] * q[i]),
        sum::<N>(|i| w[i] * q[i] * q[i]),
    );
    if qq > 0.0 { xq / qq } else { 0.0 }
}

/// `x ≈ scale · q + offset`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub scale: f32,
    pub offset: f32,
}

impl Line {
    /// Levels of `x` in 0..=n.
    pub(super) fn levels<const N: usize>(self, x: &[f32; N], n: f32) -> [f32; N] {
        let inverse = inverse(self.scale);
        std::array::from_fn(|i| nearest((x[i] - self.offset) * inverse, 0.0, n))
    }

    /// `Σ w · (scale · q + offset − x)²`.
    pub(super) fn error<const N: usize>(self, x: &[f32; N], w: &[f32; N], q: &[f32; N]) -> f32 {
        sum::<N>(|i| {
            let difference = self.scale * q[i] + self.offset - x[i];
            w[i] * difference * difference
        })
    }
}

/// Guesses of the number of steps between the smallest and the largest element, from `n + first` on.
#[derive(Clone, Copy)]
pub(super) struct Guesses {
    pub first: f32,
    pub step: f32,
    pub count: usize,
}

/// Line with which `scale · q + offset`, q in 0..=n, is nearest to `x`: `Σ w · (scale · q + offset −
/// x)²` is small. With `below`, the offset is at most zero. `stored` rounds a line to what can be
/// stored.
pub(super) fn affine<const N: usize>(
    (x, w): (&[f32; N], &[f32; N]),
    (n, guesses): (f32, Guesses),
    below: bool,
    stored: impl Fn(Line) -> Line,
) -> Line {
    let (low, high) = x
        .iter()
        .fold((x[0], x[0]), |(low, high), &x| (low.min(x), high.max(x)));
    let low = if below { low.min(0.0) } else { low };
    let scale = (high - low) / n;
    let first = stored(Line { scale, offset: low });
    if scale <= 0.0 {
        return first;
    }
    let judged = |line: Line| {
        let line = stored(line);
        let q = line.levels(x, n);
        (line.error(x, w, &q), line, q)
    };
    let (sum_w, sum_x) = (sum::<N>(|i| w[i]), sum::<N>(|i| w[i] * x[i]));
    let solution = |q: &[f32; N]| {
        let (sum_q, sum_qq) = (sum::<N>(|i| w[i] * q[i]), sum::<N>(|i| w[i] * q[i] * q[i]));
        let sum_xq = sum::<N>(|i| w[i] * x[i] * q[i]);
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            return None;
        }
        let offset = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
        Some(match below && offset > 0.0 {
            true => Line {
                scale: sum_xq / sum_qq,
                offset: 0.0,
            },
            false => Line {
                scale: (sum_w * sum_xq - sum_x * sum_q) / determinant,
                offset,
            },
        })
    };
    let mut best = judged(first);
    for guess in 0..guesses.count {
        let steps = n + guesses.first + guesses.step * guess as f32;
        let guess = Line {
            scale: (high - low) / steps,
            offset: low,
        };
        let Some(line) = solution(&guess.levels(x, n)) else {
            continue;
        };
        let found = judged(line);
        if found.0 < best.0 {
            best = found;
        }
    }
    for _ in 0..ROUNDS {
        let Some(line) = solution(&best.2) else {
            break;
        };
        let found = judged(line);
        if found.0 >= best.0 {
            break;
        }
        best = found;
    }
    best.1
}
