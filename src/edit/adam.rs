//! Adam (Kingma and Ba 2015) on one tensor.

use tch::Tensor;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// The state of the optimiser.
#[derive(Debug)]
pub(super) struct Adam {
    rate: f64,
    updates: i32,
    mean: Tensor,
    square: Tensor,
}

impl Adam {
    /// For a parameter of this shape.
    pub fn new(parameter: &Tensor, rate: f64) -> Self {
        Self {
            rate,
            updates: 0,
            mean: parameter.zeros_like(),
            square: parameter.zeros_like(),
        }
    }

    /// Moves the parameter along its gradient, which is taken from it.
    pub fn update(&mut self, parameter: &mut Tensor) {
        let _no_grad = tch::no_grad_guard();
        let gradient = parameter.grad();
        self.updates += 1;
        let (one, two) = BETAS;
        self.mean = &self.mean * one + &gradient * (1.0 - one);
        self.square = &self.square * two + gradient.square() * (1.0 - two);
        let bias = |beta: f64| 1.0 - beta.powi(self.updates);
        let scale = self.square.sqrt() / bias(two).sqrt() + EPSILON;
        *parameter -= &self.mean / scale * (self.rate / bias(one));
        parameter.zero_grad();
    }
}
