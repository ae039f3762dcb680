//! Chooses the next token from logits.

use tightrope_packing::random;

/// Settings for choosing the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0: always the most likely token.
    pub temperature: f64,
    /// Keeps only the fewest tokens whose probabilities reach this sum; 1: all.
    pub top_p: f64,
    /// Keeps only this number of the most likely tokens; 0: all.
    pub top_k: usize,
    /// Seed of every choice.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 42,
        }
    }
}

impl Sampling {
    /// Chooses the token at `position` of the answer, as a function of its arguments alone. Among
    /// equal logits the lower id comes first; a logit that is not a number is never chosen. `None`
    /// if there is nothing to choose from.
    pub fn choose(&self, logits: &[f32], position: u64) -> Option<u32> {
        let usable = |(_, logit): &(usize, &f32)| !logit.is_nan();
        let mut order: Vec<(usize, f64)> = logits
            .iter()
            .enumerate()
            .filter(usable)
            .map(|(id, &logit)| (id, f64::from(logit)))
            .collect();
        let first = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.temperature <= 0.0 {
            return order.into_iter().min_by(first).map(|(id, _)| id as u32);
        }
        order.sort_unstable_by(first);
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let highest = order.first()?.1;
        // A single infinite logit leaves no choice.
        if highest.is_infinite() {
            return order.first().map(|(id, _)| *id as u32);
        }
        let weight = |logit: f64| ((logit - highest) / self.temperature).exp();
        let total: f64 = order.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut kept = 0.0;
        let mut nucleus = 0;
        while nucleus < order.len() && (nucleus == 0 || kept < self.top_p * total) {
            kept += weight(order[nucleus].1);
            nucleus += 1;
        }
        order.truncate(nucleus);
        let mut left = random::fraction(random::at(self.seed, position)) * kept;
        for (id, logit) in &order {
            left -= weight(*logit);
            if left < 0.0 {
                return Some(*id as u32);
            }
        }
        order.last().map(|(id, _)| *id as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, f32::NAN, 2.0, 1.0];

    fn counts(sampling: Sampling) -> [f64; 5] {
        let mut counts = [0.0; 5];
        for position in 0..20_000 {
            counts[sampling.choose(&LOGITS, position).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(Sampling::default().choose(&LOGITS, 7), Some(1));
        assert_eq!(Sampling::default().choose(&[], 7), None);
        assert_eq!(Sampling::default().choose(&[f32::NAN], 7), None);
        let warm = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_eq!(warm.choose(&[f32::NAN], 0), None);
        assert_eq!(warm.choose(&[0.0, f32::INFINITY], 0), Some(1));
    }

    #[test]
    fn tokens_come_with_their_probabilities() {
        let warm = Sampling {
            temperature: 0.5,
            ..Sampling::default()
        };
        let weights: Vec<f64> = [0.0, 2.0, 2.0, 1.0]
            .iter()
            .map(|x: &f64| (x / 0.5).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let seen = counts(warm);
        let seen = [seen[0], seen[1], seen[3], seen[4]];
        for (share, weight) in seen.iter().zip(&weights) {
            // Allows five standard deviations of 20,000 draws.
            let close = (share - weight / total).abs() <= 5.0 * 0.5 / 20_000f64.sqrt();
            assert!(close, "{seen:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let warm = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        let two = counts(Sampling { top_k: 2, ..warm });
        assert!(
            two[1] > 0.0 && two[3] > 0.0 && two[0] + two[4] == 0.0,
            "{two:?}"
        );
        let one = counts(Sampling { top_p: 0.1, ..warm });
        assert_eq!(one[1], counts(Sampling { top_k: 1, ..warm })[1]);
        assert_eq!(one[3], 0.0);
        // 2 · e² of e⁰ + e¹ + 2 · e² are 0.8: less than 0.81 needs the third.
        assert!(
            counts(Sampling {
                top_p: 0.81,
                ..warm
            })[4]
                > 0.0
        );
        assert_eq!(
            counts(Sampling {
                top_p: 0.79,
                ..warm
            })[4],
            0.0
        );
    }

    #[test]
    fn the_seed_decides() {
        let warm = |seed| Sampling {
            temperature: 2.0,
            seed,
            ..Sampling::default()
        };
        let draw = |seed| {
            (0..50)
                .map(|p| warm(seed).choose(&LOGITS, p))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
