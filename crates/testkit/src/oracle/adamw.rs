//! AdamW of one element.

/// Weight and moments of one element.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Weight.
    pub w: f64,
    /// First moment.
    pub m: f64,
    /// Second moment.
    pub v: f64,
}

/// Hyperparameters.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Decay β₁ of the first moment.
    pub beta1: f64,
    /// Decay β₂ of the second moment.
    pub beta2: f64,
    /// Added outside the root.
    pub eps: f64,
    /// Weight decay λ.
    pub weight_decay: f64,
}

/// Computes step `t`, counted from 1, with gradient `g`.
pub fn step(state: State, g: f64, t: i32, options: Options) -> State {
    let Options {
        learning_rate,
        beta1,
        beta2,
        eps,
        weight_decay,
    } = options;
    let m = beta1 * state.m + (1.0 - beta1) * g;
    let v = beta2 * state.v + (1.0 - beta2) * g * g;
    let m_hat = m / (1.0 - beta1.powi(t));
    let v_hat = v / (1.0 - beta2.powi(t));
    let decayed = state.w - learning_rate * weight_decay * state.w;
    State {
        w: decayed - learning_rate * m_hat / (v_hat.sqrt() + eps),
        m,
        v,
    }
}
