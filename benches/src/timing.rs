//! Wall-clock time of repeated work.

use std::{hint::black_box, time::Instant};

/// Times of the repetitions of one piece of work, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Fastest time: the cost of the work without disturbance.
    pub min_s: f64,
    /// Median time.
    pub median_s: f64,
}

/// Does the work once to warm up, then `repetitions` times (at least one).
pub fn time<T>(repetitions: usize, mut work: impl FnMut() -> T) -> Timing {
    black_box(work());
    let seconds = (0..repetitions.max(1)).map(|_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64()
    });
    of(seconds.collect())
}

fn of(mut seconds: Vec<f64>) -> Timing {
    seconds.sort_by(f64::total_cmp);
    Timing {
        min_s: seconds[0],
        median_s: seconds[seconds.len() / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter() {
        let timing = of(vec![3.0, 1.0, 2.0]);
        assert_eq!((timing.min_s, timing.median_s), (1.0, 2.0));
    }

    #[test]
    fn works_once_more_than_it_measures() {
        let mut calls = 0;
        time(3, || calls += 1);
        assert_eq!(calls, 4);
        time(0, || calls += 1);
        assert_eq!(calls, 6);
    }
}
