//! What is reported about answers.

use serde::{Deserialize, Serialize};

/// Means of the rewards that the model gives to answers: `β` times the answer's log-probability (its
/// mean over tokens for SimPO and ORPO), less that of the reference model if there is one. What an
/// objective does not measure is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rewards {
    /// Reward of the better, or of the good answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards_chosen: Option<f64>,
    /// Reward of the worse, or of the bad answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards_rejected: Option<f64>,
    /// Difference of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards_margin: Option<f64>,
    /// Share of the pairs whose better answer has the higher reward; a tie does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards_accuracy: Option<f64>,
    /// Estimate of the divergence from the reference model (KTO).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
}

impl Rewards {
    /// Whether the objective compares or judges answers.
    pub fn are_measured(&self) -> bool {
        *self != Self::default()
    }

    /// Part of one pair in the means over `pairs`.
    pub(super) fn of_pair([chosen, rejected]: [f64; 2], pairs: f64) -> Self {
        Self {
            rewards_chosen: Some(chosen / pairs),
            rewards_rejected: Some(rejected / pairs),
            rewards_margin: Some((chosen - rejected) / pairs),
            rewards_accuracy: Some(f64::from(u8::from(chosen > rejected)) / pairs),
            kl: None,
        }
    }

    /// Sum of two parts.
    pub(super) fn plus(self, other: Self) -> Self {
        let sum = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        Self {
            rewards_chosen: sum(self.rewards_chosen, other.rewards_chosen),
            rewards_rejected: sum(self.rewards_rejected, other.rewards_rejected),
            rewards_margin: sum(self.rewards_margin, other.rewards_margin),
            rewards_accuracy: sum(self.rewards_accuracy, other.rewards_accuracy),
            kl: sum(self.kl, other.kl),
        }
    }
}
