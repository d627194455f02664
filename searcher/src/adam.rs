//! The optimiser of the policy's logits.

/// Adam (Kingma and Ba, algorithm 1, with bias correction) on a few plain numbers.
///
/// ```
/// use ddas_search::Adam;
///
/// let mut adam = Adam::new(1, 0.005, (0.5, 0.999));
/// let mut logits = [0.0];
/// adam.step(&mut logits, &[3.0]);
/// assert!((logits[0] + 0.005).abs() < 1e-10); // the first step has the length of the rate
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    learning_rate: f64,
    betas: (f64, f64),
    state: AdamState,
}

/// The moments of an [`Adam`], for checkpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamState {
    /// Steps taken.
    pub steps: u64,
    /// Running mean of the gradient, one per number.
    pub first: Vec<f64>,
    /// Running mean of its square.
    pub second: Vec<f64>,
}

/// Keeps the quotient finite where no gradient has been seen; PyTorch's default.
const EPSILON: f64 = 1e-8;

impl Adam {
    /// For `count` numbers, with a learning rate and the decay rates of both moments.
    pub fn new(count: usize, learning_rate: f64, betas: (f64, f64)) -> Self {
        let state = AdamState {
            steps: 0,
            first: vec![0.0; count],
            second: vec![0.0; count],
        };
        Self {
            learning_rate,
            betas,
            state,
        }
    }

    /// Steps taken and moments so far.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// Continues from a checkpoint's moments; false, and unchanged, when they are for another
    /// number of values.
    #[must_use]
    pub fn restore(&mut self, state: AdamState) -> bool {
        let count = self.state.first.len();
        let fits = state.first.len() == count && state.second.len() == count;
        if fits {
            self.state = state;
        }
        fits
    }

    /// Moves `values` against `gradient`; both as long as the `count` given to [`Adam::new`]
    /// (of longer ones the rest is left alone).
    pub fn step(&mut self, values: &mut [f64], gradient: &[f64]) {
        let (beta1, beta2) = self.betas;
        self.state.steps += 1;
        let steps = self.state.steps as f64;
        let correction1 = 1.0 - beta1.powf(steps);
        let correction2 = (1.0 - beta2.powf(steps)).sqrt();
        let moments = self.state.first.iter_mut().zip(&mut self.state.second);
        for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + (1.0 - beta1) * gradient;
            *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
            let scale = second.sqrt() / correction2 + EPSILON;
            *value -= self.learning_rate / correction1 * *first / scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_match_the_algorithm_worked_by_hand() {
        let mut adam = Adam::new(1, 0.1, (0.5, 0.999));
        let mut values = [1.0];
        adam.step(&mut values, &[2.0]);
        // m = 1, v = 0.004; corrected 2 and 4: the quotient is 1.
        assert!((values[0] - 0.9).abs() < 1e-9, "{}", values[0]);
        adam.step(&mut values, &[-1.0]);
        // m = 0.5 - 0.5 = 0: no move.
        assert!((values[0] - 0.9).abs() < 1e-9, "{}", values[0]);
        adam.step(&mut values, &[-1.0]);
        // m = -0.5, corrected by 1 - 1/8; v = 0.999 (0.999 * 0.004 + 0.001) + 0.001.
        let first = -0.5 / 0.875;
        let second = (0.999 * (0.999 * 0.004 + 0.001) + 0.001) / (1.0 - 0.999_f64.powi(3));
        let wanted = 0.9 - 0.1 * first / (f64::sqrt(second) + 1e-8);
        assert!(
            (values[0] - wanted).abs() < 1e-9,
            "{} against {wanted}",
            values[0]
        );
    }

    #[test]
    fn zero_gradients_from_the_start_move_nothing() {
        let mut adam = Adam::new(2, 0.1, (0.5, 0.999));
        let mut values = [0.25, -4.0];
        for _ in 0..5 {
            adam.step(&mut values, &[0.0, 0.0]);
        }
        assert_eq!(values, [0.25, -4.0]);
    }

    #[test]
    fn a_restored_optimiser_goes_on_as_if_never_stopped() {
        let gradients = [[0.3, -0.1], [0.2, 0.4], [-0.7, 0.0], [0.1, 0.1]];
        let mut whole = Adam::new(2, 0.01, (0.5, 0.999));
        let mut values = [0.0, 0.0];
        let mut halves = values;
        let mut first_half = whole.clone();
        for gradient in &gradients {
            whole.step(&mut values, gradient);
        }
        for gradient in &gradients[..2] {
            first_half.step(&mut halves, gradient);
        }
        let mut second_half = Adam::new(2, 0.01, (0.5, 0.999));
        assert!(second_half.restore(first_half.state().clone()));
        for gradient in &gradients[2..] {
            second_half.step(&mut halves, gradient);
        }
        assert_eq!(values, halves);
        assert!(!Adam::new(3, 0.01, (0.5, 0.999)).restore(second_half.state().clone()));
    }
}
