//! What an objective makes of the losses of a batch, outside of training.

use super::{
    Totals,
    preference::{Preference, sides},
    reward::Reward,
};
use crate::config::ObjectiveSection;
use tightrope_model::Loss;
use tightrope_packing::{Batch, IGNORED};

/// A batch that is a whole step, with the targets whose losses its objective needs.
#[derive(Clone, Debug)]
pub struct Weighed {
    batch: Batch,
    needed: Batch,
    preference: Option<Preference>,
    reward: Option<Reward>,
}

impl Weighed {
    /// A batch of examples under an objective. Objectives that do not compare answers count as
    /// cross-entropy.
    pub fn new(section: &ObjectiveSection, batch: Batch) -> Self {
        let scores = section.kind.scores();
        let compares = section.kind.compares() && !scores;
        let preference = compares.then(|| Preference::new(section, None));
        let mut own = None;
        let needed = match &preference {
            None => batch.clone(),
            Some(preference) => preference.targets(&batch, &mut own).clone(),
        };
        Self {
            batch,
            needed,
            preference,
            reward: scores.then(|| Reward::new(section)),
        }
    }

    /// The batch with the targets whose losses are needed.
    pub fn needed(&self) -> &Batch {
        &self.needed
    }

    /// Whether the losses of a reference model are needed.
    pub fn has_reference(&self) -> bool {
        let preference = self.preference.as_ref();
        preference.is_some_and(Preference::has_reference)
    }

    /// Whether sequences are scored: then [`Self::weigh_scores`] takes the place of
    /// [`Self::weigh`].
    pub fn scores(&self) -> bool {
        self.reward.is_some()
    }

    /// The loss of the step, and its derivative by each score.
    pub fn weigh_scores(&self, scores: &[f64]) -> (f64, Vec<f64>) {
        let totals = Totals::of(std::slice::from_ref(&self.batch));
        let mut slopes = vec![0.0; scores.len()];
        let of_reward = |reward: &Reward| reward.results(scores, totals, Some(&mut slopes)).loss;
        let loss = self.reward.as_ref().map_or(0.0, of_reward);
        (loss, slopes)
    }

    /// Whether log-probabilities of answers are compared.
    pub fn compares(&self) -> bool {
        self.preference.is_some()
    }

    /// The loss of the step, and the weight of each token's loss in its gradient, from the losses of
    /// all tokens under the model and under the reference model.
    pub fn weigh(&self, losses: Vec<f32>, reference: Option<&[f32]>) -> (f64, Vec<f32>) {
        let totals = Totals::of(std::slice::from_ref(&self.batch));
        let sum = losses.iter().map(|&loss| f64::from(loss)).sum();
        let Some(preference) = &self.preference else {
            let weight = (1.0 / totals.trained_tokens) as f32;
            return (sum / totals.trained_tokens, vec![weight; losses.len()]);
        };
        let reference = reference.map(|losses| sides(&self.batch, losses));
        let pairs = reference.iter().flat_map(|sides| sides.chunks_exact(2));
        let pairs: Vec<_> = pairs.map(|pair| [pair[0].sum, pair[1].sum]).collect();
        let mut weights = vec![0.0; losses.len()];
        let losses = Loss {
            sum,
            trained_tokens: self.needed.trained_tokens(),
            per_token: losses,
        };
        let own = Some(&mut weights[..]);
        let results = preference.results(&self.batch, &self.needed, &losses, &pairs, totals, own);
        (results.loss, weights)
    }

    /// The losses of the trained tokens of each example, answer by answer: the same values wherever
    /// the example stands, and whether its answers share their beginning or not.
    pub fn by_example(&self, losses: &[f32]) -> Vec<Vec<f32>> {
        let mut all: Vec<Vec<f32>> = Vec::new();
        for sequence in self.batch.segments().sequences() {
            if sequence.place == 0 {
                all.push(Vec::new());
            }
            // Only the first answer trains what it shares.
            let shared = sequence.prefix.filter(|_| sequence.place == 0);
            let shared = shared.map_or(0..0, |shared| shared.tokens());
            let tokens = shared.chain(sequence.own.tokens());
            let trained = tokens.filter(|&token| self.needed.targets()[token] != IGNORED);
            if let Some(example) = all.last_mut() {
                example.extend(trained.map(|token| losses[token]));
            }
        }
        all
    }
}
